"""Leaving in order: what runs may finish what it is at, and the rest is the next daemon's."""

from __future__ import annotations

import asyncio
from typing import Final

from interactd.durable.port import Schedules
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue

LAST_WRITES_S: Final = 5.0


async def drain(core: Core, queue: Queue, schedules: Schedules | None, timeout_s: float) -> bool:
    """Take no more work; let running model calls finish for `timeout_s`, then stop those that are left.

    What is stopped stays in progress in the store, and the next daemon makes its model call again. Turns that wait stay
    queued there.

    Returns:
        Whether nothing runs any more.
    """
    core.handing_over = True
    queue.dispatcher.pause()
    if schedules is not None:
        await schedules.drain()
    loop = asyncio.get_running_loop()
    end = loop.time() + max(0.0, timeout_s)
    for run in queue.runs:
        if not run.at_work:
            run.stop("hand_over")
    while queue.running and (left := end - loop.time()) > 0:
        pending = [asyncio.create_task(run.done.wait()) for run in queue.runs]
        await asyncio.wait(pending, timeout=left)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.sleep(0)
    for run in queue.runs:
        run.stop("hand_over")
    done = await queue.settled(LAST_WRITES_S)
    core.handed_over = True
    # Who still follows a turn gets a handle now; the turn goes on in the next daemon.
    core.hub.close_all()
    return done
