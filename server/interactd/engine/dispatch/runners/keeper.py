"""The engine's own tick: signs of life for what runs here, and looking after what may have changed elsewhere.

It ticks only while something runs or waits here, or while another daemon is on the same store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.dispatch.recovery import adopt
from interactd.errors import InteractdError

log = logging.getLogger(__name__)

TICK_S: Final = 1.0


class Keeper:
    """Owns one task, which is there only while there is something to look after."""

    def __init__(self, core: Core, queue: Queue) -> None:
        self._core = core
        self._queue = queue
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        queue.on_work = self.wake

    def wake(self) -> None:
        """There is something to look after; returns at once."""
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._keep(), name="keeper")

    async def look(self) -> None:
        """See whether a daemon came or went. Raises: InteractdError, of the store."""
        if await self._core.others.look():
            await adopt(self._core, self._queue)
        if self._core.others.live:
            self.wake()

    async def aclose(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def _busy(self) -> bool:
        return bool(self._queue.running or self._queue.queued or self._core.others.live)

    async def _keep(self) -> None:
        while self._busy:
            await asyncio.sleep(self._pause())
            try:
                await self._tick()
            except InteractdError as error:
                log.warning("looking after what runs failed: %s", error)

    def _pause(self) -> float:
        lease = self._core.settings.lease_s / 3
        return min(TICK_S, lease) if self._queue.running or self._core.others.live else lease

    async def _tick(self) -> None:
        core, queue = self._core, self._queue
        if queue.running or queue.queued:
            await core.lease.keep()
        await self._claims()
        if core.others.live or core.others.stale:
            await self.look()
            await self._elsewhere()

    async def _claims(self) -> None:
        """Stop the runs that somebody else has taken over, or wants cancelled."""
        runs = self._queue.runs
        if not runs:
            return
        claims = await self._core.store.runners.claims([run.interaction.id for run in runs])
        for run in runs:
            claim = claims.get(run.interaction.id)
            if run.settling or run.done.is_set():
                continue
            if claim is None or claim.epoch != run.interaction.epoch or claim.status != "in_progress":
                run.stop("fenced")
            elif claim.cancel_asked:
                run.stop("cancel")

    async def _elsewhere(self) -> None:
        """Let go of waiting turns that were settled by another daemon, and see whether their sessions are free."""
        queue = self._queue
        if not queue.queued:
            return
        waiting = queue.waiting
        claims = await self._core.store.runners.claims(waiting)
        for id in waiting:
            claim = claims.get(id)
            if claim is None or claim.status != "queued":
                queue.forget(id)
        for session_id in queue.waiting_sessions():
            queue.advance_soon(session_id)
