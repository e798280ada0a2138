"""Cancelling: whatever runs for an interaction stops, what it made is kept, and it has its one outcome.

All of it is told to stop at once, the interactions that it started too; then each is given a bounded time to settle
itself, since its runner alone knows what has come so far. One that does not is settled from outside and fenced by that.
"""

from __future__ import annotations

import asyncio

from interactd.engine.agents.endings import closing
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.dispatch.runners import elsewhere
from interactd.errors import Deleted, Expired, Fenced, NotFound
from interactd.nouns import Interaction

_ROUNDS = 3


async def cancel(core: Core, queue: Queue, interaction: Interaction) -> None:
    """Cancel one interaction and all that it started. Returns when they are terminal, whoever made them so."""
    for _ in range(_ROUNDS):
        family = [interaction, *await core.store.descendants(interaction.id)]
        for one in family:
            if (run := queue.run_of(one.id)) is not None:
                run.stop("cancel")
        await asyncio.gather(*(_cancel_alone(core, queue, one) for one in family))
        # A child that was being started meanwhile is one of the next round's.
        if not await core.store.descendants(interaction.id):
            return


async def cancel_open(core: Core, queue: Queue, session_id: str) -> None:
    """Cancel all of a session's open interactions, and what they started. The caller holds the session's lock."""
    # The last first: a turn that waits must not start because the one before it was cancelled.
    for interaction in reversed(await core.store.active(session_id)):
        await _cancel(core, queue, interaction.id)
        others = [one for one in await core.store.descendants(interaction.id) if one.session_id != session_id]
        await asyncio.gather(*(_cancel_alone(core, queue, one) for one in others))


async def _cancel_alone(core: Core, queue: Queue, interaction: Interaction) -> None:
    async with core.session_lock(interaction.session_id):
        await _cancel(core, queue, interaction.id)
    queue.advance_soon(interaction.session_id)


async def _cancel(core: Core, queue: Queue, interaction_id: str) -> None:
    run = queue.run_of(interaction_id)
    if run is not None:
        run.stop("cancel")
        try:
            async with asyncio.timeout(core.settings.cancel_patience_s):
                await run.settled.wait()
        except TimeoutError:
            pass
    try:
        current = await core.store.get_interaction(interaction_id)
        if current.status == "in_progress" and run is None and core.others.holds(current.runner):
            current = await elsewhere.cancel(core, current)
        if current.terminal:
            return
        if run is not None and not run.settled.is_set():
            steps = run.partial()
        else:
            steps = closing(await core.store.get_steps(interaction_id), "cancelled")
        # Without an epoch: whoever still runs it is fenced by this.
        settled = await core.store.settle(interaction_id, None, "cancelled", steps=steps, now=core.clock())
    except (Fenced, NotFound, Expired, Deleted):
        return
    queue.drop(settled)
    if channel := core.hub.get(interaction_id):
        channel.status(settled)
        core.hub.close(channel)
