"""Money in answers: what something cost, and what is left of its budgets."""

from __future__ import annotations

import math
from typing import Any

from interactd.nouns import Json

NEARLY = 0.8
"""From this part on a budget is said to be nearly used up."""


def dollars(value: float) -> str:
    """Write dollars, rounded up: `$0.0123`, `$2.50`."""
    if value <= 0:
        return "$0"
    places = 6 if value < 0.0001 else 4 if value < 1 else 2
    return f"${math.ceil(round(value * 10**places, 6)) / 10**places:,.{places}f}"


def usd(cost: Json) -> str:
    """Write what something cost; what nobody knows is not called zero."""
    if cost.get("usd") is None:
        return "cost unknown"
    said = dollars(cost["usd"])
    if cost.get("unsure_usd"):
        # Of some calls it is only known what they can have cost at most.
        said = f"at most {said}"
    return said + (f" and {cost['unpriced_calls']} calls of unknown cost" if cost.get("unpriced_calls") else "")


def amount(unit: str, value: float) -> str:
    """Write a figure of a budget."""
    if unit == "usd":
        return dollars(value)
    return f"{value:,.0f} {unit}" if unit != "seconds" else f"{value:g} seconds"


def left(cost: Json) -> str:
    """Write what is left of an account's own budget, as the end of a sentence."""
    limits: dict[str, Any] = cost.get("budget") or {}
    parts = [f"{amount(unit, cost['left'][unit])} of {amount(unit, limit)} left" for unit, limit in limits.items()]
    return f" ({', '.join(parts)})" if parts else ""


def budgets(cost: Json | None) -> str:
    """Write one line about the budgets that a turn is under; empty when there are none."""
    parts: list[str] = []
    held: list[Json] = (cost or {}).get("budgets") or []
    for one in held:
        whose = "" if one["scope"] == "interaction" else f"{one['scope']}'s "
        for unit, limit in one["limit"].items():
            spent = one["spent"][unit]
            part = f"{amount(unit, one['left'][unit])} of the {whose}{amount(unit, limit)} left"
            parts.append(part + (" (nearly used up)" if limit and NEARLY <= spent / limit < 1 else ""))
    return f"Budget: {', '.join(parts)}" if parts else ""
