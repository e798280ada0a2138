"""resources/list, resources/templates/list and resources/read."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext

from interactd.engine.port import Engine
from interactd.faces.mcp.connections import caller_of, complete
from interactd.faces.mcp.resources import transcripts
from interactd.faces.mcp.resources.files import Files
from interactd.faces.mcp.resources.uris import (
    ARTIFACT_TEMPLATE,
    EXPORT_TEMPLATE,
    INTERACTION_TEMPLATE,
    SESSION_TEMPLATE,
    parse,
    session_uri,
)
from interactd.faces.wire import iso
from interactd.nouns import Json, Session

Context = ServerRequestContext[Any, Any]
RECENT = 50
MARKDOWN = "text/markdown"


_TEMPLATES: list[Json] = [
    {
        "uriTemplate": SESSION_TEMPLATE,
        "name": "session",
        "title": "Session transcript",
        "description": "The newest turns of a session as Markdown; before=<interaction id> pages back.",
        "mimeType": MARKDOWN,
    },
    {
        "uriTemplate": INTERACTION_TEMPLATE,
        "name": "interaction",
        "title": "One turn",
        "description": "One interaction with all its steps as Markdown; can be subscribed to.",
        "mimeType": MARKDOWN,
    },
    {
        "uriTemplate": ARTIFACT_TEMPLATE,
        "name": "artifact",
        "title": "A file an agent made",
        "description": "One file of an agent's finished turn, as it was then: text, or base64 where it is none.",
    },
    {
        "uriTemplate": EXPORT_TEMPLATE,
        "name": "export",
        "title": "An export",
        "description": "A zip that export_data wrote, in pieces of 8 MB at most; the last one is shorter, or empty.",
        "mimeType": "application/zip",
    },
]


class Reading:
    """Sessions and interactions as Markdown, artifacts as they are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._files = Files(engine)

    async def list(self, ctx: Context, params: types.PaginatedRequestParams | None) -> Any:
        """The most recent sessions and the files that agents left in them, on one page: hosts read all pages at their
        start, and nobody wants thousands."""
        caller = caller_of(ctx)
        page = await self._engine.list_sessions(limit=RECENT, caller=caller)
        made = await self._files.recent(page.items, caller)
        return complete(ctx, {"resources": [*(_resource(session) for session in page.items), *made]})

    async def templates(self, ctx: Context, params: types.PaginatedRequestParams | None) -> Any:
        """The forms of URI."""
        return complete(ctx, {"resourceTemplates": _TEMPLATES})

    async def read(self, ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        """A transcript, or a file. Reading one does not mark its result as read: that is for who waits for it."""
        target = parse(params.uri)
        caller = caller_of(ctx)
        if target.kind == "artifact":
            content = await self._files.read(target.id, target.name, caller)
            return complete(ctx, {"contents": [{"uri": params.uri, **content}]})
        if target.kind == "export":
            content = await self._files.read_export(target, caller)
            return complete(ctx, {"contents": [{"uri": params.uri, **content}]})
        if target.kind == "session":
            session, turns = await self._engine.transcript(
                target.id, limit=target.limit, before=target.before, caller=caller
            )
            text = transcripts.session_markdown(session, turns)
        else:
            text = transcripts.interaction_markdown(await self._engine.get_interaction(target.id, caller=caller))
        return complete(ctx, {"contents": [{"uri": params.uri, "mimeType": MARKDOWN, "text": text}]})


def _resource(session: Session) -> Json:
    last_used = iso(session.updated_at)
    return {
        "uri": session_uri(session.id),
        "name": session.id,
        "title": session.title or f"Session of {iso(session.created_at)}",
        "description": f"{session.turns} turns, {session.model or session.agent or 'auto'}, last used {last_used}",
        "mimeType": MARKDOWN,
        "annotations": {"lastModified": last_used},
    }
