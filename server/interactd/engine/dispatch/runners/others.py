"""The other daemons on this store, and which of them live."""

from __future__ import annotations

import logging

from interactd.store.port import Store

log = logging.getLogger(__name__)


class Others:
    """What is known of the other runners since the last `look`."""

    def __init__(self, store: Store, own: str) -> None:
        self._store = store
        self._own = own
        self._seen: object = None
        self.live: frozenset[str] = frozenset()
        """Those whose work is theirs: their process is there, and not silent for longer than its lease."""

    @property
    def stale(self) -> bool:
        """Whether a runner may have come or gone since the last look."""
        return self._store.runners.changed != self._seen

    async def look(self) -> bool:
        """See who lives; True when one that did does no more, so that its work has to be taken up."""
        seen, before = self._store.runners.changed, self.live
        live: set[str] = set()
        for runner in await self._store.runners.list():
            if runner.id == self._own:
                continue
            if runner.gone:
                log.info("runner %s (pid %d) is gone", runner.id, runner.pid)
                await self._store.runners.bury(runner.id)
            elif runner.silent_s < runner.lease_s:
                live.add(runner.id)
            elif runner.id in before:
                log.warning("runner %s (pid %d) is silent for %.0f s", runner.id, runner.pid, runner.silent_s)
        self.live, self._seen = frozenset(live), seen
        return bool(before - self.live)

    def holds(self, runner: str | None) -> bool:
        """Whether what belongs to this runner is another's, and alive."""
        return runner is not None and runner in self.live
