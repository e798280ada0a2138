"""The files that agents' turns left, for who may see the turn."""

from __future__ import annotations

from interactd.engine.core import Core
from interactd.engine.retention import leftovers
from interactd.errors import NotFound, SandboxUnavailable
from interactd.nouns import Caller, Json
from interactd.sandbox.environments_port import Artifact, Environments


def environments_of(core: Core) -> Environments:
    """See `Engine.environments`."""
    if core.environments is None:
        raise SandboxUnavailable("This daemon has no environments.", repair="Use models; list_agents shows them.")
    return core.environments


async def listing(core: Core, interaction_id: str, caller: Caller) -> list[Artifact]:
    """See `Engine.artifacts`."""
    whole = await _seen(core, interaction_id, caller)
    return [] if core.environments is None else await core.environments.artifacts(whole)


async def requests(core: Core, interaction_id: str, caller: Caller) -> list[Json]:
    """See `Engine.requests`."""
    return await core.store.list_requests(await _seen(core, interaction_id, caller))


async def left_out(core: Core, interaction_id: str, caller: Caller) -> list[Json]:
    """See `Engine.left_out`."""
    whole = await _seen(core, interaction_id, caller)
    return [] if core.environments is None else await core.environments.left_out(whole)


async def read(
    core: Core, interaction_id: str, name: str, offset: int, limit: int, caller: Caller
) -> tuple[Artifact, bytes]:
    """See `Engine.read_artifact`."""
    whole = await _seen(core, interaction_id, caller)
    if core.environments is None:
        raise _none(whole)
    return await core.environments.read_artifact(whole, name, offset=offset, limit=limit)


async def pack(core: Core, interaction_id: str, names: list[str], caller: Caller) -> Artifact:
    """See `Engine.zip_artifacts`."""
    whole = await _seen(core, interaction_id, caller)
    if core.environments is None:
        raise _none(whole)
    # Written to its end also when nobody waits any more: the next call finds it.
    return await core.finish(core.environments.zip_artifacts(whole, names))


async def forget(core: Core, session_id: str) -> None:
    """Remove what only a deleted session referred to: contents, environments that were made for its turns, copies of
    agents. What fails here is taken up again: the store keeps the lists."""
    del session_id
    await leftovers.clear(core)


async def _seen(core: Core, interaction_id: str, caller: Caller) -> str:
    """The whole id of an interaction that the caller may see, in a session that is still there."""
    interaction, session = await core.interaction(interaction_id, caller)
    await core.session(session.id, caller)
    return interaction.id


def _none(interaction_id: str) -> NotFound:
    return NotFound(
        f"Interaction {interaction_id} left no files.",
        repair="Only agents make files.",
        kind="artifact",
        id=interaction_id,
    )
