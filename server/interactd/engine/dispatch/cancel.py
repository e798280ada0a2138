"""Cancelling: the provider call in flight stops, what it made is kept, and the interaction has its one outcome."""

from __future__ import annotations

import asyncio

from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.dispatch.runners import elsewhere
from interactd.errors import Fenced
from interactd.nouns import Interaction


async def cancel(core: Core, queue: Queue, interaction: Interaction) -> None:
    """Cancel one interaction. Returns when it is terminal, whoever made it so."""
    async with core.session_lock(interaction.session_id):
        await _cancel(core, queue, interaction.id)
    queue.advance_soon(interaction.session_id)


async def cancel_open(core: Core, queue: Queue, session_id: str) -> None:
    """Cancel all of a session's open interactions. The caller holds the session's lock."""
    # The last first: a turn that waits must not start because the one before it was cancelled.
    for interaction in reversed(await core.store.active(session_id)):
        await _cancel(core, queue, interaction.id)


async def _cancel(core: Core, queue: Queue, interaction_id: str) -> None:
    run = queue.run_of(interaction_id)
    if run is not None:
        run.stop("cancel")
        # A runner that lives settles itself: it alone knows what has come so far.
        try:
            async with asyncio.timeout(core.settings.cancel_patience_s):
                await run.done.wait()
        except TimeoutError:
            pass
    current = await core.store.get_interaction(interaction_id)
    if current.status == "in_progress" and run is None and core.others.holds(current.runner):
        current = await elsewhere.cancel(core, current)
    if current.terminal:
        return
    stuck = run is not None and not run.done.is_set()
    steps = run.draft.partial() if stuck and run and run.draft else ()
    try:
        # Without an epoch: whoever still runs it is fenced by this.
        settled = await core.store.settle(interaction_id, None, "cancelled", steps=steps, now=core.clock())
    except Fenced:
        return
    queue.drop(settled)
    if channel := core.hub.get(interaction_id):
        channel.status(settled)
        core.hub.close(channel)
