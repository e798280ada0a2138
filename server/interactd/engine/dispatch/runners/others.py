"""The other daemons on this store, and which of them live."""

from __future__ import annotations

import asyncio
import logging

from interactd.store.port import Store

log = logging.getLogger(__name__)


class Others:
    """What is known of the other runners since the last `look`."""

    def __init__(self, store: Store, own: str) -> None:
        self._store = store
        self._own = own
        self._seen: object = None
        self._silent: frozenset[str] = frozenset()
        self._looking = asyncio.Lock()
        self.live: frozenset[str] = frozenset()
        """Those whose work is theirs: their process is there, and not silent for longer than its lease."""

    @property
    def stale(self) -> bool:
        """Whether a runner may have come or gone since the last look."""
        return self._store.runners.changed != self._seen

    async def look(self) -> bool:
        """See who lives; True when one is found dead, silent or gone that was not before, so that its work has to be
        taken up."""
        async with self._looking:
            return await self._look()

    async def _look(self) -> bool:
        seen, before = self._store.runners.changed, self.live
        live: set[str] = set()
        silent: set[str] = set()
        gone = False
        for runner in await self._store.runners.list():
            if runner.id == self._own:
                continue
            if runner.gone:
                log.info("runner %s (pid %d) is gone", runner.id, runner.pid)
                await self._store.runners.bury(runner.id)
                gone = True
            elif runner.silent_s < runner.lease_s:
                live.add(runner.id)
            else:
                silent.add(runner.id)
                if runner.id not in self._silent:
                    log.warning("runner %s (pid %d) is silent for %.0f s", runner.id, runner.pid, runner.silent_s)
        news = gone or bool(silent - self._silent) or bool(before - live)
        self.live, self._silent, self._seen = frozenset(live), frozenset(silent), seen
        return news

    def holds(self, runner: str | None) -> bool:
        """Whether what belongs to this runner is another's, and alive."""
        return runner is not None and runner in self.live
