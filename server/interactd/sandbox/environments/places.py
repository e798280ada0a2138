"""The places of all environments that are known to this daemon: who has which, and who waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from interactd.errors import Conflict
from interactd.sandbox.environments.place import Place

log = logging.getLogger(__name__)


class Places:
    """Makes a place when an environment is first held, and forgets it when nobody needs it.

    Args:
        root: where the folders of environments are.
        clock: tells the time of day.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._places: dict[str, Place] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def in_use(self, id: str) -> bool:
        """Whether somebody has it."""
        place = self._places.get(id)
        return place is not None and place.lock.locked()

    def wanted(self, id: str) -> bool:
        """Whether somebody has it or waits for it."""
        place = self._places.get(id)
        return place is not None and (place.lock.locked() or place.waiting > 0)

    def holder(self, id: str) -> str | None:
        """Who has it."""
        place = self._places.get(id)
        return None if place is None else place.holder

    def idle(self) -> list[Place]:
        """Those that nobody has or waits for: their locks are had at once."""
        return [place for place in self._places.values() if not self.wanted(place.id)]

    def forget(self, id: str) -> None:
        """Know a place no more; what runs in it was stopped before."""
        self._places.pop(id, None)

    async def stop(self) -> None:
        """Stop everything that runs in any of them."""
        places = list(self._places.values())
        self._places.clear()
        for result in await asyncio.gather(*(place.stop() for place in places), return_exceptions=True):
            if isinstance(result, Exception):
                log.warning("a sandbox did not stop: %s", result)

    @asynccontextmanager
    async def hold(self, id: str, holder: str, wait_s: float) -> AsyncGenerator[Place]:
        """Take the environment for oneself; others wait in turn.

        Raises:
            Conflict: somebody else has it for longer than `wait_s`.
        """
        place = self._places.get(id)
        if place is None:
            place = self._places[id] = Place(id, self._root / id, self._clock)
        place.waiting += 1
        try:
            try:
                async with asyncio.timeout(wait_s):
                    await place.lock.acquire()
            except TimeoutError:
                raise Conflict(
                    f"environment {id} is in use by {place.holder} for more than {wait_s:.0f} s",
                    repair=f"Wait for {place.holder} or cancel it, or use another environment.",
                    interaction_id=place.holder,
                ) from None
        finally:
            place.waiting -= 1
        try:
            place.holder = holder
            place.touch()
            yield place
        finally:
            place.holder = None
            place.lock.release()
