"""Once a minute: look at the clock, and remove a little of what is over. Sessions are the sweeper's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from interactd.agents.port import KeptAgents
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.retention import leftovers
from interactd.engine.retention.settings import KEY_S, RetentionSettings
from interactd.errors import InteractdError

log = logging.getLogger(__name__)
_PIECES: Final = 50
_PAUSE_S: Final = 0.05
_LATE_S: Final = 3600.0
"""However busy, it is not put off for longer than this."""
IMPORTS_S: Final = 86_400.0


class Tending:
    """The engine's own task for what is kept."""

    def __init__(
        self, core: Core, queue: Queue, settings: RetentionSettings, tidy: Callable[[], Awaitable[None]]
    ) -> None:
        """`tidy` removes what dead daemons were exporting and importing."""
        self._tidy = tidy
        self._core = core
        self._queue = queue
        self._settings = settings
        self._last = time.monotonic()

    async def for_ever(self) -> None:
        """Ends when it is cancelled."""
        while True:
            try:
                await self.once()
            except (InteractdError, OSError) as error:
                # A full disk today is no reason not to look again in a minute.
                log.warning("looking after what is kept failed: %s", error)
            await asyncio.sleep(self._settings.every_s)

    async def once(self) -> None:
        """One round."""
        core = self._core
        await core.look_at_clock()
        # What is over is so by the time that was looked at: the clock can jump while this is at work.
        at, now = core.clock(), time.monotonic()
        if self._queue.running > self._settings.busy_above and now - self._last < _LATE_S:
            return
        self._last = now
        await leftovers.clear(core)
        await self._tidy()
        if core.may_delete():
            await self._trim(at)
            await self._copies()
            await asyncio.to_thread(self._files, at)

    async def _trim(self, now: float) -> None:
        retention = self._core.retention
        if retention is None:
            return
        times = self._settings
        for _ in range(_PIECES):
            trimmed = await retention.trim(
                keys_before=now - KEY_S,
                tombstones_before=now - times.tombstones_s if times.tombstones_s is not None else 0,
                artifacts_before=now - times.artifacts_s if times.artifacts_s is not None else 0,
            )
            if not trimmed.any:
                return
            # Turns go first.
            await asyncio.sleep(_PAUSE_S)

    async def _copies(self) -> None:
        core, unused_s = self._core, self._settings.agents_s
        if unused_s is not None and core.retention is not None and isinstance(core.agents, KeptAgents):
            await core.agents.prune(await core.retention.pinned_agents(), unused_s=unused_s)

    def _files(self, now: float) -> None:
        archive = getattr(self._core.store, "archive", None)
        folder: Path | None = None if archive is None else archive.folder / "exports"
        kept_s = self._settings.exports_s
        if folder is None or kept_s is None or not folder.is_dir():
            return
        for file in folder.iterdir():
            try:
                if file.stat().st_mtime < now - kept_s:
                    file.unlink()
                    log.info("removed an export that was older than %.0f days", kept_s / 86_400)
            except OSError as error:
                log.debug("%s stays: %s", file.name, error)
