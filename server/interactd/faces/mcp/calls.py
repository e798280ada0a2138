"""tools/list and tools/call: from the wire to `interactd_tools` and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp_types.version import is_version_at_least

from interactd.engine.port import Engine
from interactd.errors import InteractdError, Overloaded
from interactd.faces.failures import internal, sentence
from interactd.faces.mcp.connections import caller_of, client_name, complete, peer_of
from interactd.faces.mcp.guard import RAW_ARGUMENTS
from interactd.faces.mcp.peer import Peer
from interactd.nouns import Json
from interactd_tools import deadlines
from interactd_tools.context import CallContext, Place, Progress, ProgressKind, Tool, ToolResult

Context = ServerRequestContext[Any, Any]

HANG_S = 300.0
"""No tool waits this long by itself; one that does is broken, and its client must not be left waiting."""
RICH_RESULTS = "2025-06-18"
"""Structured content and resource links came with this version; older clients may refuse a block they do not know."""
KIND_KEY = "interactd/kind"
SEEN_KEY = "interactd/seen"
"""On progress: interaction, event, whether its step is unfinished, messages so far. The shim says it again for a call
that it asks of the next daemon."""


class ToolSet(Protocol):
    """What `interactd_tools` offers; the tests bring small ones of their own."""

    def select(self, toolsets: Iterable[str] = ()) -> list[Tool]: ...

    async def call(
        self, name: str, arguments: object, ctx: CallContext, *, toolsets: Iterable[str] = ()
    ) -> ToolResult: ...


class Calls:
    """The tools of one server object."""

    def __init__(self, engine: Engine, tools: ToolSet) -> None:
        self._engine = engine
        self._tools = tools
        self._selected: dict[tuple[str, ...], dict[str, Tool]] = {}

    def schema(self, name: str) -> Json | None:
        """The input schema of a tool of the default set, for the SDK's header checks."""
        tool = self._select(()).get(name)
        return tool.input_schema if tool else None

    def _select(self, toolsets: tuple[str, ...]) -> dict[str, Tool]:
        found = self._selected.get(toolsets)
        if found is None:
            found = {tool.name: tool for tool in self._tools.select(toolsets)}
            # Any text can stand in a URL; only a name that exists is kept, so this cannot grow.
            self._selected[toolsets] = found
        return found

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> Any:
        """All tools of the connection's sets, on one page, in a fixed order."""
        return complete(ctx, {"tools": [tool.as_dict() for tool in self._select(peer_of(ctx).toolsets).values()]})

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        """Call a tool; whatever goes wrong is an `isError` result with a sentence that helps."""
        peer = peer_of(ctx)
        if not await peer.admit():
            refusal = Overloaded(
                f"{peer.max_calls} calls of this connection are running already; this one was not started",
                repair="Wait until some of them are answered, then call again.",
            )
            return complete(ctx, _error(sentence(refusal)))
        try:
            result = await self._call(ctx, params, peer)
        finally:
            peer.leave()
        return complete(ctx, _shape(result, ctx.protocol_version))

    async def _call(self, ctx: Context, params: types.CallToolRequestParams, peer: Peer) -> ToolResult:
        # Arguments that are no object did not pass the SDK's model; the tools explain that better than it does.
        arguments = (ctx.params or {}).get(RAW_ARGUMENTS, params.arguments)
        context = self._context(ctx, peer)
        began = time.monotonic()
        try:
            async with asyncio.timeout(HANG_S):
                return await self._tools.call(params.name, arguments, context, toolsets=peer.toolsets)
        except asyncio.CancelledError:
            if not peer.left:
                deadlines.cancelled(context.client_name, time.monotonic() - began)
            raise
        except InteractdError as error:
            return ToolResult(sentence(error), is_error=True)
        except Exception as error:  # noqa: BLE001 - the top level of a call: the client must get an answer
            return ToolResult(sentence(internal(error, f"tool {params.name}")), is_error=True)

    def _context(self, ctx: Context, peer: Peer) -> CallContext:
        place = _place(ctx)
        return CallContext(
            engine=self._engine,
            caller=caller_of(ctx),
            request_id=peer.distinct(ctx.request_id),
            progress=_progress(ctx, place),
            place=place,
            client_name=client_name(ctx),
        )


def _place(ctx: Context) -> Place:
    """Where the call's progress stood when it was asked of a daemon that died; the shim says so."""
    said: object = (ctx.meta or {}).get(SEEN_KEY)
    match said:
        case [str(interaction), int(after), int(partial), int(count)]:
            return Place(interaction, after, bool(partial), count)
        case _:
            return Place()


def _progress(ctx: Context, place: Place) -> Progress | None:
    token = (ctx.meta or {}).get("progress_token")
    if token is None:
        return None

    async def send(message: str, kind: ProgressKind) -> None:
        place.count += 1
        meta: Json = {KIND_KEY: kind}
        if place.interaction_id:
            meta[SEEN_KEY] = [place.interaction_id, place.after, int(place.partial), place.count]
        note = types.ProgressNotification(
            params=types.ProgressNotificationParams(
                progress_token=token, progress=place.count, message=message, _meta=meta
            )
        )
        await ctx.session.send_notification(note, related_request_id=ctx.request_id)

    return send


def _shape(result: ToolResult, version: str) -> Json:
    content: list[Json] = [{"type": "text", "text": result.text}]
    content.extend({"type": "image", "data": image.data, "mimeType": image.mime_type} for image in result.images)
    shaped: Json = {"content": content, "isError": result.is_error}
    if result.meta:
        shaped["_meta"] = result.meta
    if is_version_at_least(version, RICH_RESULTS):
        for link in result.links:
            block = {"type": "resource_link", "uri": link.uri, "name": link.name, "mimeType": link.mime_type}
            content.append(block if link.description is None else {**block, "description": link.description})
        if result.structured is not None:
            shaped["structuredContent"] = result.structured
    return shaped


def _error(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}], "isError": True}
