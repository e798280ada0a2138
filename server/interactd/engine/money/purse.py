"""What one run may spend: each model call is reserved before it is made, and its outcome kept for the next commit.

The run calls its model through `stream`, books `bill()` with whatever it commits next, and asks `over` when it was cut:
a budget in seconds stops even a call that is paid for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import anyio

from interactd.engine.money import words
from interactd.engine.money.bounds import InputBound, most_output, sure_output
from interactd.engine.money.money import Money
from interactd.engine.money.outcome import outcome_of, room, unpaid
from interactd.engine.money.timekeeper import Timekeeper
from interactd.engine.run.outcome import Verdict
from interactd.errors import InteractdError, StorageError, StorageFull
from interactd.ids import new_ulid
from interactd.models.port import Finished, Model, ModelEvent, ModelRequest, StepDelta, StepFinished
from interactd.models.prices import Price
from interactd.nouns import GenerationConfig, Interaction, Json
from interactd.store.ledger_port import Bill, Granted, Outcome, Refused, Reservation, Scope, Shortfall

log = logging.getLogger(__name__)
T = TypeVar("T")

LEAST_ANSWER: Final = 64
"""An answer shorter than this is not worth a call."""
OTHERS_S: Final = 300.0
"""How long a call waits for what others have reserved and may not need; also for a full disk."""
_LOOK_S: Final = 0.2


class Purse:
    """One per run. `cut` stops what the run waits for."""

    def __init__(self, money: Money, interaction: Interaction, cut: Callable[[], None]) -> None:
        self.budgets: dict[Scope, Json] = {}
        """What the agent's manifest allows."""
        self._money = money
        self._interaction = interaction
        self._time = Timekeeper(money, interaction, cut)
        self._bound = InputBound()
        self._outcome: Outcome | None = None
        self._cut_short: Shortfall | None = None
        """The budget because of which the answer may be no longer."""

    @property
    def over(self) -> Json | None:
        """The error of a budget in seconds that ran out."""
        return self._time.over

    def enter(self) -> None:
        """The run has a sandbox from now on."""
        self._time.enter()

    def leave(self) -> None:
        """The sandbox is gone."""
        self._time.leave()

    def close(self) -> None:
        """The run has ended."""
        self._time.close()

    def bill(self, *, leaving: bool = False) -> Bill | None:
        """What there is to book by now; `None` when nothing was begun. Booking it twice does no harm."""
        return None if not self._time.begun else replace(self._time.bill(), call=self._outcome, leaving=leaving)

    async def stream(self, model: Model, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Ask the model, as `Model.stream` does, for money that was set aside first.

        Raises:
            BudgetExceeded, UnknownPrice: the call was not made.
            Fenced: the turn is another runner's by now.
        """
        self._time.begin()
        price = await self._money.price(model)
        most = self._bound.of(request)
        limit = await self._reserve(model, request, price, most)
        if limit < _whole(model, request):
            request = replace(request, config=GenerationConfig(max_output_tokens=limit).over(request.config))

        async def again(error: InteractdError) -> None:
            # The first may have been answered, and its answer lost on the way: both count.
            if not unpaid(error, produced=False) and (shorts := await self._grant(model, price, most, limit)):
                raise words.exceeded(shorts[0], self._interaction)

        produced = said = False
        try:
            async with aclosing(cast("Any", model.stream(replace(request, before_retry=again)))) as events:
                async for event in events:
                    produced = True
                    said = said or (isinstance(event, StepDelta) and bool(event.text))
                    said = said or (isinstance(event, StepFinished) and bool(event.step.text))
                    if isinstance(event, Finished) and self._outcome is not None:
                        self._outcome = outcome_of(self._outcome, event.usage, price, most, limit, said=said)
                        if self._outcome.state == "settled" and event.usage and event.usage.input:
                            self._bound.learn(request, event.usage.input)
                    yield event
        except InteractdError as error:
            if self._outcome is not None and self._outcome.state == "unknown" and unpaid(error, produced=produced):
                self._outcome = Outcome(self._outcome.id, "released")
            raise

    def judged(self, verdict: Verdict) -> Verdict:
        """A verdict, where it is on an answer that was cut short because the budget pays for no more."""
        if self._cut_short is None or verdict.finish_reason != "length" or verdict.status != "incomplete":
            return verdict
        return replace(verdict, status="budget_exceeded", error=words.cut(self._cut_short, self._interaction).as_dict())

    # -- reserving -------------------------------------------------------------------------------------------
    async def _reserve(self, model: Model, request: ModelRequest, price: Price | None, most: int) -> int:
        """Set money aside for the whole answer, else for as much of it as the budgets still pay for; returns for how
        many tokens of output."""
        limit = whole = _whole(model, request)
        least = min(LEAST_ANSWER, whole)
        end = _now() + OTHERS_S
        self._cut_short = None
        while shorts := await self._grant(model, price, most, limit):
            tightest = min(shorts, key=lambda short: room(short, price, most, held=True))
            paid = room(tightest, price, most, held=True)
            if paid >= least and limit > least:
                limit = max(least, min(paid, limit - 1))
                self._cut_short = tightest
                if request.config.max_output_tokens is None and limit > (sure := sure_output(model)):
                    # Most models refuse a limit beyond their own, which nobody knows here.
                    limit, self._cut_short = sure, None
                continue
            if min(room(short, price, most, held=False) for short in shorts) < least or _now() > end:
                raise words.exceeded(tightest, self._interaction)
            # Others have reserved more than they will need, as a rule.
            await asyncio.sleep(_LOOK_S)
            limit, self._cut_short = whole, None
        return limit

    async def _grant(self, model: Model, price: Price | None, most: int, limit: int) -> tuple[Shortfall, ...]:
        """Ask the ledger for one call; returns what it does not fit into. Cancelled, it leaves nothing reserved."""
        nano = None if price is None else price.most(most, limit)
        reservation = Reservation(
            f"{self._interaction.id}.{new_ulid()}",
            replace(self._time.bill(), call=self._outcome),
            model.provider,
            model.name,
            None if price is None else price.as_dict(),
            nano,
            most + limit,
            {**self.budgets, "day": self._money.settings.day},
        )
        paid = price is None or not price.free
        # Whether it is reserved must be known, whoever has lost patience meanwhile.
        answer = await self._shielded(reservation, durable=paid)
        if not isinstance(answer, Granted):
            return answer.shortfalls
        self._outcome = Outcome(reservation.id, "unknown", None, nano, most + limit)
        self._time.leased(answer.lease_ms)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._outcome = Outcome(reservation.id, "released")
            raise
        return ()

    async def _shielded(self, reservation: Reservation, *, durable: bool) -> Granted | Refused:
        pause = 0.1
        end = _now() + OTHERS_S
        while True:
            try:
                return await finished(self._money.ledger.reserve(reservation, durable=durable))
            except (StorageFull, StorageError) as refused:
                if _now() + pause > end:
                    raise
                log.warning("%s: a call cannot be reserved: %s; trying again", self._interaction.id, refused)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)


async def finished(writing: Awaitable[T]) -> T:
    """Wait for a write to its end; a cancellation takes effect after it."""
    with anyio.CancelScope(shield=True):
        return await writing
    raise AssertionError("a shielded scope is not left early")


def _whole(model: Model, request: ModelRequest) -> int:
    """How long the answer may be."""
    return request.config.max_output_tokens or most_output(model)


def _now() -> float:
    return asyncio.get_running_loop().time()
