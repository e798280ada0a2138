"""Artifacts as resources: those of recent turns listed, each readable as text or as base64."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Final

from interactd.engine.port import Engine
from interactd.errors import InteractdError, InvalidArgument
from interactd.faces.mcp.resources.uris import Target
from interactd.faces.wire import iso
from interactd.nouns import Caller, Json, Session
from interactd.sandbox.environments_port import Artifact
from interactd_tools.answers import artifacts as shown

SESSIONS: Final = 10
TURNS: Final = 3
LISTED: Final = 50
MAX_BYTES: Final = 16 * 1024 * 1024


class Files:
    """What agents left."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def recent(self, sessions: Sequence[Session], caller: Caller) -> list[Json]:
        """Return the resources of the files that the last turns of the first few sessions with agents left."""
        used = [session for session in sessions if session.agent or session.agent_pins][:SESSIONS]
        found = await asyncio.gather(*(self._of(session, caller) for session in used))
        return [_resource(one) for files in found for one in files][:LISTED]

    async def _of(self, session: Session, caller: Caller) -> list[Artifact]:
        try:
            _, turns = await self._engine.transcript(session.id, limit=TURNS, caller=caller)
            by_agents = [turn.interaction.id for turn in reversed(turns) if turn.interaction.agent]
            found = await asyncio.gather(*(self._engine.artifacts(one, caller=caller) for one in by_agents))
        except InteractdError:
            # It expired or was deleted since it was listed: the others are still worth showing.
            return []
        return [one for files in found for one in files]

    async def read(self, interaction_id: str, name: str, caller: Caller) -> Json:
        """Return `{"mimeType", "text"}`, or `"blob"` with base64 where the file is no UTF-8 text.

        Raises:
            InvalidArgument: it is too large to go through a message; the repair has its path.
            NotFound, Expired, Deleted: as `Engine.read_artifact`.
        """
        artifact, data = await self._engine.read_artifact(interaction_id, name, limit=MAX_BYTES, caller=caller)
        if artifact.size_bytes > len(data):
            raise InvalidArgument(
                f"the file has {artifact.size_bytes:,} bytes, and {MAX_BYTES:,} is the most that is read as a resource",
                repair=f"Read it at its path, {artifact.path}, or in pieces with fetch_artifacts.",
                field="uri",
            )
        return await asyncio.to_thread(_content, artifact, data)

    async def read_export(self, target: Target, caller: Caller) -> Json:
        """Return `{"mimeType", "blob", "_meta"}` of a piece of an export; `_meta` says where the next begins.

        Raises:
            NotFound, InvalidArgument: there is no such export.
        """
        size, data = await self._engine.read_export(
            target.name, offset=target.offset, limit=target.limit, caller=caller
        )
        end = target.offset + len(data)
        place: Json = {"size_bytes": size, "offset": target.offset, "next_offset": end if end < size else None}
        return {
            "mimeType": "application/zip",
            "blob": base64.b64encode(data).decode(),
            "_meta": {"interactd/piece": place},
        }


def _content(artifact: Artifact, data: bytes) -> Json:
    if b"\0" not in data:
        try:
            return {"mimeType": artifact.mime_type, "text": data.decode()}
        except UnicodeDecodeError:
            pass
    return {"mimeType": artifact.mime_type, "blob": base64.b64encode(data).decode()}


def _resource(artifact: Artifact) -> Json:
    made = iso(artifact.created_at)
    return {
        "uri": shown.uri(artifact),
        "name": shown.safe(artifact.name),
        "title": shown.safe(artifact.name.rpartition("/")[2] or artifact.name),
        "description": f"A file that interaction {artifact.interaction_id} left, {made}",
        "mimeType": artifact.mime_type,
        "size": artifact.size_bytes,
        "annotations": {"lastModified": made},
    }
