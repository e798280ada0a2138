"""What waits for somebody: results that nobody read, questions that nobody answered; and cancelling all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from interactd.engine.checks.arguments import check_limit
from interactd.engine.core import Core
from interactd.engine.dispatch.cancel import cancel
from interactd.engine.dispatch.queue import Queue
from interactd.engine.port import Inbox
from interactd.engine.waiting import result_of
from interactd.errors import Deleted, Expired, NotFound
from interactd.nouns import Caller, Interaction

_AT_ONCE = 200
_ROUNDS = 100
_LOOK_AGAIN_S = 1.0


async def wait(core: Core, queue: Queue, session_id: str | None, limit: int, wait_s: float, caller: Caller) -> Inbox:
    """See `Engine.inbox`."""
    check_limit(limit, _AT_ONCE)
    within = await _within(core, session_id, caller)
    loop = asyncio.get_running_loop()
    end = loop.time() + max(0.0, wait_s)
    ran: set[str] = set()
    while True:
        found = await _look(core, queue, within, limit, caller)
        asks = any(one.interaction.id in ran for one in found.waiting)
        left = end - loop.time()
        if found.unread or asks or not found.running or left <= 0 or core.handed_over:
            return found
        ran.update(one.id for one in found.running)
        await _one_rests(core, found.running, min(left, _LOOK_AGAIN_S))


async def _one_rests(core: Core, running: Sequence[Interaction], timeout_s: float) -> None:
    """Return when one of them may have ended. Those that run at another daemon tell nothing here: hence the time."""
    channels = [channel for one in running if (channel := core.hub.get(one.id)) is not None]
    if not channels:
        return await asyncio.sleep(timeout_s)
    ended = [asyncio.create_task(channel.ended.wait()) for channel in channels]
    try:
        await asyncio.wait(ended, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


async def _look(core: Core, queue: Queue, within: str | None, limit: int, caller: Caller) -> Inbox:
    listed = core.store.list_interactions
    # What runs before what is unread: one that ends between the two looks must not be in neither.
    running, running_total = await listed("running", owner=caller.owner, session_id=within, limit=limit)
    unread, unread_total = await listed("unread", owner=caller.owner, session_id=within, limit=limit)
    asked, waiting_total = await listed("waiting", owner=caller.owner, session_id=within, limit=limit)
    found = Inbox(unread, [], unread_total, waiting_total, running, running_total)
    for one in asked:
        try:
            result = await result_of(core, queue, one)
        except (NotFound, Expired, Deleted):
            continue
        if result.waiting_for:
            found.waiting.append(result)
    # What ended or asked between the looks runs no more.
    rests = {one.id for one in unread} | {one.interaction.id for one in found.waiting}
    found.running = [one for one in running if one.id not in rests]
    found.running_total -= len(running) - len(found.running)
    return found


async def cancel_all(core: Core, queue: Queue, session_id: str | None, caller: Caller) -> list[str]:
    """See `Engine.cancel_all`."""
    within = await _within(core, session_id, caller)
    cancelled: dict[str, None] = {}
    for _ in range(_ROUNDS):
        found, _ = await core.store.list_interactions("open", owner=caller.owner, session_id=within, limit=_AT_ONCE)
        fresh = [one for one in found if one.id not in cancelled]
        if not fresh:
            break
        # The last first: a turn that waits must not start because the one before it was cancelled.
        for one in reversed(fresh):
            await core.finish(cancel(core, queue, one))
            cancelled[one.id] = None
    return list(cancelled)


async def _within(core: Core, session_id: str | None, caller: Caller) -> str | None:
    if session_id is None:
        return None
    return (await core.any_session(await core.session_id(session_id), caller)).id
