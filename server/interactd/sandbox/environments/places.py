"""The places of all environments that this daemon knows: who has which, and who waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from interactd.errors import Conflict
from interactd.ids import PREFIXES
from interactd.sandbox.environments.claims import Claim, Claims
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
        self._claims = Claims(root)
        self._places: dict[str, Place] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def in_use(self, id: str) -> bool:
        """Whether somebody has it here, or is the next to have it."""
        place = self._places.get(id)
        return place is not None and place.lock.locked()

    def wanted(self, id: str) -> bool:
        """Whether somebody has it here, or waits for it."""
        place = self._places.get(id)
        return place is not None and (place.lock.locked() or place.waiting > 0)

    async def holder(self, id: str) -> str | None:
        """Who has it: a run, or what else is done with it, here or in another daemon."""
        place = self._places.get(id)
        return (place.holder if place is not None else None) or await self._claims.holder(id)

    async def moved(self) -> set[str]:
        """Those of the idle ones that another daemon had meanwhile: what waits here for a next run is of no use."""
        return await self._claims.moved([place.id for place in self.idle()])

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
        """Take the environment for oneself; others wait in turn, those in other daemons too.

        Raises:
            Conflict: somebody else has it for longer than `wait_s`.
            StorageError: its lock cannot be opened.
        """
        place = self._places.get(id)
        if place is None:
            place = self._places[id] = Place(id, self._root / id, self._clock)
        place.waiting += 1
        try:
            try:
                async with asyncio.timeout(wait_s):
                    claim = await self._claim(place, holder)
            except TimeoutError:
                raise in_use(id, await self.holder(id)) from None
        finally:
            place.waiting -= 1
        try:
            place.holder = holder
            place.touch()
            if claim.moved:
                # Its files are not as this sandbox and its Python knew them, and only one may be at work in them.
                await place.stop()
            yield place
        finally:
            place.holder = None
            claim.close()
            place.lock.release()

    async def _claim(self, place: Place, holder: str) -> Claim:
        await place.lock.acquire()
        try:
            return await self._claims.wait(place.id, holder)
        except BaseException:
            place.lock.release()
            raise


def in_use(id: str, holder: str | None) -> Conflict:
    """Return the error for an environment that somebody else has."""
    if holder is not None and holder.startswith(PREFIXES["interaction"]):
        repair = f"cancel_interaction {holder} or wait for it, then try again; or use another environment."
        return Conflict(f"environment {id} is in use by {holder}", repair=repair, interaction_id=holder)
    return Conflict(
        f"environment {id} is in use{f' ({holder})' if holder else ''}",
        repair="Wait a little, then try again; or use another environment.",
    )
