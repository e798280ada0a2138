"""completion/complete for the ids in our resource templates."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext

from interactd.engine.port import Engine
from interactd.faces.mcp.connections import caller_of, complete

MAX_VALUES = 100


class Completion:
    """Ids of recent sessions and of their newest turns; names of a turn's files."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, ctx: ServerRequestContext[Any, Any], params: types.CompleteRequestParams) -> Any:
        """Return the recent ids that begin as the argument does; nothing for what we do not know."""
        values: list[str] = []
        wanted = params.argument.name
        if isinstance(params.ref, types.ResourceTemplateReference) and wanted in {"session_id", "interaction_id"}:
            page = await self._engine.list_sessions(limit=MAX_VALUES, caller=caller_of(ctx))
            found = [session.id if wanted == "session_id" else session.head for session in page.items]
            typed = params.argument.value.strip().lower()
            # With or without the prefix, as everywhere.
            values = [i for i in found if i and (i.startswith(typed) or i.partition("_")[2].startswith(typed))]
        elif isinstance(params.ref, types.ResourceTemplateReference) and wanted == "name":
            given = (params.context.arguments or {}) if params.context else {}
            if interaction_id := given.get("interaction_id"):
                files = await self._engine.artifacts(interaction_id, caller=caller_of(ctx))
                names = [file.name for file in files if file.name.startswith(params.argument.value)]
                values = names[:MAX_VALUES]
        return complete(ctx, {"completion": {"values": values, "total": len(values), "hasMore": False}})
