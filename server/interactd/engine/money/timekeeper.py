"""How long a run works, and for how long it may: budgets in seconds lend it time, a little at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from interactd.engine.money import words
from interactd.engine.money.money import Money
from interactd.errors import InteractdError, StorageError, StorageFull
from interactd.nouns import Interaction, Json
from interactd.store.ledger_port import Bill, Granted

log = logging.getLogger(__name__)

_AGAIN_S = 1.0


class Timekeeper:
    """One per run. `cut` stops what the run waits for, once time is over."""

    def __init__(self, money: Money, interaction: Interaction, cut: Callable[[], None]) -> None:
        self.over: Json | None = None
        """The error of a budget that ran out."""
        self._money = money
        self._interaction = interaction
        self._cut = cut
        self._began: float | None = None
        self._inside: float | None = None
        self._sandbox_s = 0.0
        self._ends = 0.0
        self._watch: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self._began is not None

    def begin(self) -> None:
        """It works from now on."""
        self._began = self._began or _now()

    def enter(self) -> None:
        """It has a sandbox from now on."""
        self.begin()
        self._inside = self._inside or _now()

    def leave(self) -> None:
        """The sandbox is gone."""
        if self._inside is not None:
            self._sandbox_s += _now() - self._inside
            self._inside = None

    def bill(self) -> Bill:
        """The time so far, to be booked."""
        now = _now()
        sandbox = self._sandbox_s + (now - self._inside if self._inside is not None else 0.0)
        return Bill(
            self._interaction.id,
            self._interaction.epoch,
            self._money.day(),
            self._money.clock(),
            active_ms=round((now - (self._began or now)) * 1000),
            sandbox_ms=round(sandbox * 1000),
        )

    def leased(self, lease_ms: int | None) -> None:
        """It may work for so long; `None`: as long as it likes."""
        if lease_ms is None:
            return
        self._ends = _now() + lease_ms / 1000
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._keep(), name=f"time of {self._interaction.id}")

    def close(self) -> None:
        """It has ended."""
        if self._watch is not None:
            self._watch.cancel()

    async def _keep(self) -> None:
        """Ask for more time whenever it is up, and cut the run when there is none."""
        while self.over is None:
            if (left := self._ends - _now()) > 0:
                # It may have been given more meanwhile.
                await asyncio.sleep(left)
                continue
            try:
                answer = await self._money.ledger.tick(self.bill())
            except (StorageFull, StorageError) as error:
                log.warning("%s: its time cannot be booked: %s", self._interaction.id, error)
                self._ends = _now() + _AGAIN_S
                continue
            except InteractdError as error:
                log.debug("%s is not ours any more: %s", self._interaction.id, error)
                return
            if not isinstance(answer, Granted):
                self.over = words.exceeded(answer.shortfalls[0], self._interaction).as_dict()
                self._cut()
            elif answer.lease_ms is None:
                return
            else:
                self._ends = _now() + answer.lease_ms / 1000


def _now() -> float:
    return asyncio.get_running_loop().time()
