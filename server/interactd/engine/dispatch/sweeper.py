"""Once a minute and at the start: remove what expired, and take up what was left lying."""

from __future__ import annotations

import asyncio
import logging

from interactd.engine.artifacts import forget
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.dispatch.recovery import adopt
from interactd.engine.dispatch.runners.keeper import Keeper
from interactd.errors import InteractdError

log = logging.getLogger(__name__)

_BATCH = 100
_LOOK_S = 5.0


async def sweep(core: Core) -> int:
    """Remove every expired session in which nothing runs; returns how many."""
    removed = 0
    while True:
        receipts = await core.store.sweep(core.clock(), limit=_BATCH)
        removed += len(receipts)
        for receipt in receipts:
            core.history.forget(receipt.session_id)
        if receipts:
            await forget(core, receipts[0].session_id)
        if len(receipts) < _BATCH:
            return removed


async def sweep_for_ever(core: Core, queue: Queue, keeper: Keeper) -> None:
    """The engine's own task; ends when it is cancelled."""
    while True:
        try:
            if core.may_delete() and (removed := await sweep(core)):
                log.info("removed %d expired sessions", removed)
            await keeper.look()
            await adopt(core, queue)
        except InteractdError as error:
            # A full disk today is no reason not to look again in a minute.
            log.warning("sweep failed: %s", error)
        await _pause(core, keeper)


async def _pause(core: Core, keeper: Keeper) -> None:
    """Until the next sweep; who comes to the store meanwhile is noticed soon, at the price of one `stat` each time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + core.settings.sweep_every_s
    while (left := end - loop.time()) > 0:
        await asyncio.sleep(min(left, _LOOK_S))
        if core.others.stale:
            try:
                await keeper.look()
            except InteractdError as error:
                log.warning("cannot see who else works on the store: %s", error)
