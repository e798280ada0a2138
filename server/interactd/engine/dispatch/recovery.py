"""Taking up what nobody runs: after a crash, a hand-over, or an outcome that could not be written."""

from __future__ import annotations

import logging

from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.run.note import Note
from interactd.errors import InteractdError
from interactd.nouns import Interaction

log = logging.getLogger(__name__)


async def adopt(core: Core, queue: Queue, *, died: bool) -> int:
    """Take up every unfinished interaction that nobody runs here; returns how many.

    Args:
        core: the engine's parts.
        queue: where they run.
        died: whether the last runner's process is gone, which counts as an attempt unless it left on purpose.
    """
    taken = 0
    for interaction in await core.store.unfinished():
        if core.handing_over:
            break
        if queue.knows(interaction):
            continue
        try:
            async with core.session_lock(interaction.session_id):
                now = await core.store.get_interaction(interaction.id)
                if queue.knows(now) or now.status != interaction.status:
                    continue
                if now.status == "queued":
                    queue.enqueue(now)
                else:
                    await _take_up(core, queue, now, died=died)
                taken += 1
        except InteractdError as error:
            # One that cannot be taken up must not keep the others down; the sweeper tries it again.
            log.warning("cannot take up %s: %s", interaction.id, error)
    for session_id in queue.waiting_sessions():
        queue.advance_soon(session_id)
    return taken


async def _take_up(core: Core, queue: Queue, interaction: Interaction, *, died: bool) -> None:
    note = Note.read(await core.store.pending(interaction.id))
    if died:
        note = note.after_death()
    if note.deaths >= core.settings.crash_limit:
        log.error("%s ended %d attempts with the daemon's death; giving it up", interaction.id, note.deaths)
        settled = await core.store.settle(
            interaction.id,
            None,
            "failed",
            usage=note.usage,
            error={
                "code": "crashed",
                "message": f"The daemon died {note.deaths} times while this turn was running; it was not tried again.",
                "repair": "Send the turn again if you like, perhaps with another model; interactd doctor may know why.",
            },
            now=core.clock(),
        )
        if channel := core.hub.get(interaction.id):
            channel.status(settled)
            core.hub.close(channel)
        return
    claimed = await core.store.claim(interaction.id, from_status=("in_progress",), now=core.clock())
    if claimed is None:
        return
    await core.store.append(claimed.id, claimed.epoch, (), pending=note.as_dict())
    session = await core.store.get_session(claimed.session_id)
    own = await core.store.get_steps(claimed.id)
    log.info("taking up %s, attempt %d", claimed.id, claimed.attempt)
    queue.launch(claimed, session, own, note)
