"""The ledger: what every model call may cost, written before it is made, and what it did cost, written after.

A reservation is one transaction: it looks at every budget that applies (the turn's and those of the turns that started
it, their sessions', their agents' for the day, and the day's), and is granted only if what was spent, what others have
reserved and this call at its worst fit into all of them. It then counts as spent until it is settled. A reservation
nobody settled (its daemon died) is settled as what it may have cost at most, when its turn is taken up again or ends.

Money is in nano-dollars, time in milliseconds here; budgets are in what people say (`Interaction.budget`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from interactd.nouns import Json, Usage

Scope = Literal["interaction", "session", "agent", "day"]
"""Whose budget. An agent's is for all of its turns of one day together."""
Unit = Literal["usd", "tokens", "steps", "seconds"]
CallState = Literal["settled", "released", "unknown"]
"""How a reservation ends: what it used is known; it was never made; or nobody knows, and it counts at its worst."""
By = Literal["day", "model", "agent", "session"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reserved call."""

    id: str
    state: CallState
    usage: Usage | None = None
    nano: int | None = None
    """What it cost; `None` where nobody knows the price."""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run has to book by now. Booking it twice books it once: times are those of the whole attempt so far."""

    interaction_id: str
    epoch: int
    day: str
    """The local day, `2026-11-28`."""
    now: float
    active_ms: int = 0
    sandbox_ms: int = 0
    call: Outcome | None = None
    leaving: bool = False
    """Whether the runner leaves with it, so that no time is set aside for it any more."""

    @property
    def paid(self) -> bool:
        """Whether it has a call that cost something, or may have."""
        return self.call is not None and self.call.nano != 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A model call that is about to be made, at its worst."""

    id: str
    bill: Bill
    """What to book first: the time so far, and what became of the attempt's last call."""
    provider: str
    model: str
    price: Json | None
    nano: int | None
    """`None` where nobody knows the price: then it is refused wherever a budget is in money."""
    tokens: int
    budgets: dict[Scope, Json] = field(default_factory=dict[Scope, Json])
    """Budgets that are not kept with a session or turn: the agent's (`agent`, and `interaction` for each of its turns)
    and the configuration's (`day`). Those left out are none."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A budget that is too small for what was asked. All in the ledger's units."""

    scope: Scope
    key: str
    unit: Unit
    limit: int
    spent: int
    held: int
    """What other calls have reserved."""
    needed: int | None
    """What was asked for; `None`: nobody knows (no price)."""

    @property
    def left(self) -> int:
        return self.limit - self.spent - self.held


@dataclass(frozen=True, slots=True)
class Granted:
    """It may go on. `lease_ms`: for how long, before `tick` has to be asked again; `None` where time is no matter."""

    lease_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not: every budget that is too small."""

    shortfalls: tuple[Shortfall, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent in one scope by now, children's included."""

    scope: Scope
    key: str
    nano: int = 0
    unsure_nano: int = 0
    """The part of `nano` that is only known to be no more than that."""
    held_nano: int = 0
    unpriced: int = 0
    """Calls whose price nobody knows: they are not in `nano`."""
    tokens: int = 0
    steps: int = 0
    active_ms: int = 0
    sandbox_ms: int = 0
    budgets: tuple[Json, ...] = ()
    """The budgets that hold for this scope."""


class Ledger(Protocol):
    """Each method is one transaction; see `store.port.Store`, of which this is a part."""

    async def reserve(self, reservation: Reservation, *, durable: bool = False) -> Granted | Refused:
        """Set aside what a call may cost, or say what it does not fit into; then nothing is set aside, but what the
        bill says is booked all the same. Earlier calls of the turn that nobody settled are settled at their worst.

        Raises:
            Fenced: the interaction's epoch is newer, or it has ended.
        """
        ...

    async def tick(self, bill: Bill) -> Granted | Refused:
        """Book the time worked and ask for more of it. Raises: Fenced."""
        ...

    async def accounts(self, interaction_ids: Sequence[str] = (), session_ids: Sequence[str] = ()) -> list[Account]:
        """What turns and sessions have cost; one that made no call has an account without anything in it."""
        ...

    async def applying(self, interaction_id: str, day: str) -> list[Account]:
        """The accounts whose budgets a turn is under, its own first, the day's last; those without budgets too."""
        ...

    async def day(self, day: str) -> Account:
        """What the whole machine spent on a local day."""
        ...

    async def report(self, by: By, *, since: float | None, since_day: str | None, owner: str) -> list[Json]:
        """What was spent, by day (newest first), model, agent or session (dearest first): `{"key", "calls", "nano",
        "unsure_nano", "unpriced", "input", "output", "thought", "cached", "tokens", "active_ms", "sandbox_ms"}`. The
        key is `None` for what belongs to none, such as deleted sessions. `since_day` is the local day of `since`."""
        ...

    async def stored(self, *, owner: str) -> Json:
        """Bytes kept: `{"sessions", "artifacts", "environments"}`."""
        ...

    async def set_budget(self, session_id: str, budget: Json | None) -> None:
        """Replace a session's budget. Raises: NotFound, Deleted, Expired."""
        ...
