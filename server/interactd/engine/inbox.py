"""What waits for somebody: results that nobody read, questions that nobody answered; and cancelling all of it."""

from __future__ import annotations

from interactd.engine.checks.arguments import check_limit
from interactd.engine.core import Core
from interactd.engine.dispatch.cancel import cancel
from interactd.engine.dispatch.queue import Queue
from interactd.engine.port import Inbox
from interactd.engine.waiting import result_of
from interactd.errors import Deleted, Expired, NotFound
from interactd.nouns import Caller

_AT_ONCE = 200
_ROUNDS = 100


async def look(core: Core, queue: Queue, session_id: str | None, limit: int, caller: Caller) -> Inbox:
    """See `Engine.inbox`."""
    check_limit(limit, _AT_ONCE)
    within = await _within(core, session_id, caller)
    store = core.store
    unread, unread_total = await store.list_interactions("unread", owner=caller.owner, session_id=within, limit=limit)
    asked, waiting_total = await store.list_interactions("waiting", owner=caller.owner, session_id=within, limit=limit)
    found = Inbox(unread, [], unread_total, waiting_total)
    for one in asked:
        try:
            result = await result_of(core, queue, one)
        except (NotFound, Expired, Deleted):
            continue
        if result.waiting_for:
            found.waiting.append(result)
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
