"""How an interaction looks now, waiting for it to end, and following it live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from interactd.engine.agents.steps import waiting_for
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.events import Channel
from interactd.engine.port import Event, Result, Standing
from interactd.engine.run.outcome import unanswered
from interactd.errors import StorageError, StorageFull
from interactd.nouns import Caller, Interaction, Session

log = logging.getLogger(__name__)

_RUNS = ("queued", "in_progress")
_POLL_S = 0.25


async def result_of(
    core: Core, queue: Queue, interaction: Interaction, session: Session | None = None, *, replayed: bool = False
) -> Result:
    """Return the interaction with its steps and its place, all of one moment."""
    session = session or await core.store.get_session(interaction.session_id)
    steps = await core.store.get_steps(interaction.id)
    for _ in range(3):
        if interaction.terminal:
            break
        now = await core.store.get_interaction(interaction.id)
        if (now.status, now.epoch) == (interaction.status, interaction.epoch):
            break
        # It moved on between the two reads: its steps belong to another status than its row.
        interaction, steps = now, await core.store.get_steps(interaction.id)
    run = queue.run_of(interaction.id) if interaction.status == "in_progress" else None
    channel = core.hub.get(interaction.id) if run else None
    position, reason = await _standing(core, queue, interaction)
    return Result(
        session=session,
        interaction=interaction,
        steps=steps,
        partial_text=run.draft.text() if run and run.draft else "",
        printed=channel.printed if channel else "",
        queue_position=position,
        queue_reason=reason,
        waiting_for=waiting_for(unanswered(steps)) if interaction.status == "requires_action" else [],
        cost=await core.money.cost(interaction),
        replayed=replayed,
    )


async def _standing(core: Core, queue: Queue, interaction: Interaction) -> tuple[int | None, str | None]:
    """Its place in its session's line and why it waits; of one that waits at another daemon as far as can be told."""
    if interaction.status not in _RUNS:
        return None, None
    position, reason = queue.position(interaction), queue.reason(interaction)
    if position is None and interaction.status == "queued" and core.others.holds(interaction.runner):
        line = [one.id for one in await core.store.active(interaction.session_id) if one.status == "queued"]
        position = line.index(interaction.id) + 1 if interaction.id in line else None
        reason = "waits at another daemon"
    return position, reason


async def standings(core: Core, queue: Queue, limit: int, caller: Caller) -> list[Standing]:
    """See `Engine.queue`."""
    found: list[Standing] = []
    owners: dict[str, str] = {}
    for one in await core.store.unfinished():
        if one.session_id not in owners:
            owners[one.session_id] = (await core.store.get_session(one.session_id)).owner
        if owners[one.session_id] == caller.owner:
            found.append(Standing(one, *await _standing(core, queue, one)))
        if len(found) >= limit:
            break
    return found


async def wait(core: Core, queue: Queue, interaction_id: str, timeout_s: float, caller: Caller) -> Result:
    """See `Engine.wait`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + max(0.0, timeout_s)
    whole = await core.interaction_id(interaction_id)
    # The channel first: one that ends after this look is seen to end, whatever the row said.
    channel = core.hub.get(whole)
    interaction, session = await core.interaction(whole, caller)
    while interaction.status in _RUNS and (left := end - loop.time()) > 0 and not core.handed_over:
        try:
            async with asyncio.timeout(left):
                if channel is not None:
                    await channel.ended.wait()
                else:
                    # Nobody here runs it just now (it is being taken up, or handed over): look again soon.
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            pass
        channel = core.hub.get(whole)
        interaction, session = await core.interaction(whole, caller)
    if interaction.status in _RUNS and (refused := core.refused.get(whole)) is not None:
        raise type(refused)(
            f"what {whole} produced cannot be written yet: {refused.message}",
            repair=f"Free some space on the disk; then it goes on by itself: do not send it again, wait for {whole}.",
            interaction_id=whole,
        )
    return await read(core, queue, interaction, session)


async def read(core: Core, queue: Queue, interaction: Interaction, session: Session) -> Result:
    """Return the interaction for a caller; a finished one counts as read from now on.

    Raises:
        Expired: its session's time has passed, and somebody has read this result. One that nobody has read yet is
            still handed over: it was paid for.
    """
    if interaction.terminal and interaction.read_at is not None:
        core.check_alive(session)
    result = await result_of(core, queue, interaction, session)
    seen = result.interaction
    if seen.terminal and seen.read_at is None:
        now = core.clock()
        try:
            await core.store.mark_read(seen.id, now, grace_s=core.settings.read_grace_s)
            if seen.background:
                # That it was read has given its session some more time.
                result.session = await core.store.get_session(seen.session_id)
        except (StorageFull, StorageError) as error:
            # A full disk must not keep anybody from reading what is there.
            log.warning("%s was read, which cannot be noted: %s", seen.id, error)
        else:
            seen.read_at = now
    return result


async def follow(core: Core, interaction_id: str, after: int) -> AsyncIterator[Event]:
    """See `Engine.events`."""
    whole = await core.interaction_id(interaction_id)
    while True:
        channel = core.hub.get(whole)
        interaction = await core.store.get_interaction(whole)
        live = channel is not None or interaction.status not in _RUNS or core.handed_over
        if channel is None:
            channel = Channel.of_journal(interaction, await core.store.get_steps(whole))
            (channel.status if live else channel.stands)(interaction)
        async for event in channel.read(after):
            after = event.seq
            yield event
        if live:
            return
        # Nobody here runs it: it is being taken up, or another daemon has it. What that one writes down is told.
        await asyncio.sleep(_POLL_S)
