"""Taking up what nobody runs: after a crash, a hand-over, or an outcome that could not be written."""

from __future__ import annotations

import logging

from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.run.note import Note
from interactd.errors import InteractdError
from interactd.nouns import Interaction

log = logging.getLogger(__name__)


async def adopt(core: Core, queue: Queue) -> int:
    """Take up every unfinished interaction that nobody runs; returns how many.

    Nobody does when its runner is gone or was silent for its whole lease, and when it is ours and we do not know of it.
    """
    taken = 0
    sessions: set[str] = set()
    for interaction in await core.store.unfinished():
        if core.handing_over:
            break
        if queue.knows(interaction) or core.others.holds(interaction.runner):
            continue
        try:
            async with core.session_lock(interaction.session_id):
                now = await core.store.get_interaction(interaction.id)
                if queue.knows(now) or (now.status, now.epoch) != (interaction.status, interaction.epoch):
                    continue
                mine = now.runner == core.lease.id
                if now.status != "queued":
                    await _take_up(core, queue, now, died=not mine)
                elif mine or await core.store.runners.take_queued(now.id, now.runner):
                    queue.enqueue(now, Note.read(await core.store.pending(now.id)))
                    sessions.add(now.session_id)
                else:
                    continue
                taken += 1
        except InteractdError as error:
            # One that cannot be taken up must not keep the others down; the sweeper tries it again.
            log.warning("cannot take up %s: %s", interaction.id, error)
    for session_id in sessions:
        queue.arrange(session_id, [one.id for one in await core.store.active(session_id)])
    for session_id in queue.waiting_sessions():
        queue.advance_soon(session_id)
    return taken


async def _take_up(core: Core, queue: Queue, interaction: Interaction, *, died: bool) -> None:
    note = Note.read(await core.store.pending(interaction.id))
    if died:
        note = note.after_death()
    asked = (await core.store.runners.claims([interaction.id])).get(interaction.id)
    if asked is not None and asked.cancel_asked:
        _told(core, await core.store.settle(interaction.id, interaction.epoch, "cancelled", now=core.clock()))
        return
    if note.deaths >= core.settings.crash_limit:
        log.error("%s ended %d attempts with the daemon's death; giving it up", interaction.id, note.deaths)
        settled = await core.store.settle(
            interaction.id,
            interaction.epoch,
            "failed",
            usage=note.usage,
            error={
                "code": "crashed",
                "message": f"The daemon died {note.deaths} times while this turn was running; it was not tried again.",
                "repair": "Send the turn again if you like, perhaps with another model; interactd doctor may know why.",
            },
            now=core.clock(),
        )
        _told(core, settled)
        return
    # At this epoch: of two daemons that see the same runner dead, one takes it.
    claimed = await core.store.claim(
        interaction.id, from_status=("in_progress",), now=core.clock(), epoch=interaction.epoch
    )
    if claimed is None:
        return
    await core.store.append(claimed.id, claimed.epoch, (), pending=note.as_dict())
    session = await core.store.get_session(claimed.session_id)
    own = await core.store.get_steps(claimed.id)
    log.info("taking up %s, attempt %d", claimed.id, claimed.attempt)
    queue.launch(claimed, session, own, note)


def _told(core: Core, settled: Interaction) -> None:
    if channel := core.hub.get(settled.id):
        channel.status(settled)
        core.hub.close(channel)
