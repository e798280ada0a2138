"""What deleted sessions leave outside of the store: contents, environments made for them, copies of agents."""

from __future__ import annotations

import logging

from interactd.agents.port import KeptAgents
from interactd.engine.core import Core
from interactd.errors import Conflict, Deleted, Expired, InteractdError, NotFound
from interactd.nouns import Json

log = logging.getLogger(__name__)


async def clear(core: Core) -> None:
    """Remove what no session refers to any more. What fails here stays noted in the store, and is tried again."""
    # One at a time, so that nothing is counted twice in a receipt.
    async with core.session_lock("leftovers"):
        await _clear(core)


async def _clear(core: Core) -> None:
    await _contents(core)
    retention = core.retention
    if retention is None:
        return
    try:
        noted = await retention.leftovers()
    except InteractdError as error:
        log.warning("what deleted sessions left is removed later: %s", error)
        return
    for session_id, left in noted.items():
        try:
            removed = await _of_one(core, session_id, left)
            await retention.settle(session_id, removed)
        except Conflict as error:
            log.info("what session %s left is removed when it is no longer in use: %s", session_id, error)
        except (InteractdError, OSError) as error:
            log.warning("what session %s left is removed later: %s", session_id, error)


async def _contents(core: Core) -> None:
    if core.environments is None:
        return
    try:
        await core.environments.delete_artifacts("")
    except (InteractdError, OSError) as error:
        log.warning("files of deleted sessions are removed later: %s", error)


async def _of_one(core: Core, session_id: str, left: Json) -> dict[str, int]:
    removed = {"environments": 0, "environment_files": 0, "agent_copies": 0}
    if core.environments is not None:
        session = await core.store.get_session(session_id)
        for id in left["environments"]:
            try:
                receipt = await core.environments.delete(id, owner=session.owner)
            except (NotFound, Deleted, Expired):
                continue
            removed["environments"] += 1
            removed["environment_files"] += receipt["removed"]["files"]
    if isinstance(core.agents, KeptAgents) and core.retention is not None and left["agents"]:
        pinned = await core.retention.pinned_agents()
        removed["agent_copies"] = await core.agents.prune(pinned, unused_s=0, only=left["agents"])
    return removed
