"""Work that a cancelled scope stops, and that is given the time to clear up after itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")
ENDING_S: Final = 5.0
"""How long work that was told to stop may take to end what it had begun."""


async def told_once(work: Coroutine[Any, Any, T], name: str) -> T:
    """Do `work` as a task of its own. A cancelled scope interrupts whoever waits in it again and again, also while they
    clear up; the task is told once, and then waited for, for a bounded time.

    Returns:
        What the work returned; also when it was done before it heard that it should stop.
    """
    task = asyncio.create_task(work, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task}, timeout=ENDING_S)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        raise
