"""What the engine's parts share about money: prices, the day and its budget, what turns have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from interactd.engine.money import words
from interactd.models.port import Model
from interactd.models.prices import Price, Prices
from interactd.nouns import NANO, Interaction, Json
from interactd.store.ledger_port import Account, Ledger, Scope, Unit

UNITS: tuple[Unit, ...] = ("usd", "tokens", "steps", "seconds")


@dataclass(slots=True)
class MoneySettings:
    """What the configuration says about money."""

    prices: Prices = field(default_factory=Prices)
    day: Json = field(default_factory=dict[str, Any])
    """The budget of each local day, for everything on this machine together."""
    hosted: Mapping[str, float] = field(default_factory=dict[str, float])
    """Assumptions about hosted services that replace `hosted.ASSUMED`."""
    addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where the providers of the configuration are called."""


class Money:
    """One per engine."""

    def __init__(self, ledger: Callable[[], Ledger], settings: MoneySettings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self._ledger = ledger

    @property
    def ledger(self) -> Ledger:
        return self._ledger()

    def day(self, at: float | None = None) -> str:
        """The local day of a time; today."""
        return datetime.fromtimestamp(self.clock() if at is None else at).astimezone().strftime("%Y-%m-%d")

    async def price(self, model: Model) -> Price | None:
        """What a model costs; `None` when nobody knows."""
        return await self.settings.prices.of(model.provider, model.name, model.base_url)

    async def check_price(self, model: Model, *budgets: tuple[str, Mapping[str, Any] | None]) -> None:
        """Refuse a turn under a budget in money when its model has no price.

        Args:
            model: who would take it.
            budgets: whose (`The session's`) and what.

        Raises:
            UnknownPrice: as it says.
        """
        of = next((whose for whose, budget in (*budgets, ("The day's", self.settings.day)) if has_usd(budget)), None)
        if of is not None and await self.price(model) is None:
            raise words.unknown_price(model.label, of=of)

    async def cost(self, interaction: Interaction) -> Json:
        """What a turn has cost, children's included, and what is left of the budgets that it is under.

        `{"usd", "unsure_usd"?, "unpriced_calls"?, "reserved_usd"?, "tokens", "steps", "seconds", "budgets": [...]}`;
        `usd` is `None` when no price was known. Each budget is `{"scope", "id", "limit", "spent", "left"}`.
        """
        found = await self.ledger.applying(interaction.id, self.day())
        if self.settings.day:
            found[-1] = replace(found[-1], budgets=(self.settings.day,))
        return {**shown(found[0]), "budgets": [one for account in found if (one := _budget(account))]}


def has_usd(budget: Mapping[str, Any] | None) -> bool:
    """Whether a budget is in money (an agent's has one for each turn inside)."""
    return budget is not None and (budget.get("usd") is not None or has_usd(budget.get("turn")))


def agents_budgets(budget: Mapping[str, Any]) -> dict[Scope, Json]:
    """An agent's budget as the ledger takes it: for its turns of a day, and for each turn."""
    turn = budget.get("turn")
    day = {name: value for name, value in budget.items() if name != "turn"}
    out: dict[Scope, Json] = {}
    if day:
        out["agent"] = day
    if turn:
        out["interaction"] = dict(turn)
    return out


def shown(account: Account) -> Json:
    """An account as callers see it."""
    out: Json = {"usd": None if account.unpriced and not account.nano else account.nano / NANO}
    if account.unsure_nano:
        out["unsure_usd"] = account.unsure_nano / NANO
    if account.unpriced:
        out["unpriced_calls"] = account.unpriced
    if account.held_nano:
        out["reserved_usd"] = account.held_nano / NANO
    return {
        **out,
        "tokens": account.tokens,
        "steps": account.steps,
        "seconds": round(account.active_ms / 1000, 3),
        **({"sandbox_seconds": round(account.sandbox_ms / 1000, 3)} if account.sandbox_ms else {}),
    }


def _budget(account: Account) -> Json | None:
    limits = tightest(account.budgets)
    if not limits:
        return None
    spent: dict[str, float | int] = {
        "usd": account.nano / NANO,
        "tokens": account.tokens,
        "steps": account.steps,
        "seconds": round(account.active_ms / 1000, 3),
    }
    held = account.held_nano / NANO
    left = {unit: max(0, limit - spent[unit] - (held if unit == "usd" else 0)) for unit, limit in limits.items()}
    return {
        "scope": account.scope,
        "id": account.key,
        "limit": limits,
        "spent": {unit: spent[unit] for unit in limits},
        "left": {unit: round(value, 9) for unit, value in left.items()},
    }


def tightest(budgets: Sequence[Json]) -> dict[str, float | int]:
    """Several budgets of one scope as one."""
    return {
        unit: min(budget[unit] for budget in budgets if budget.get(unit) is not None)
        for unit in UNITS
        if any(budget.get(unit) is not None for budget in budgets)
    }
