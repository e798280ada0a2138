"""Money in words: amounts, what a budget lacks, and the exact next call that goes on."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from interactd.errors import BudgetExceeded, InteractdError, UnknownPrice
from interactd.nouns import NANO, Interaction, Json
from interactd.store.ledger_port import Shortfall, Unit

KEPT: Final = "Everything it did is kept."


def dollars(nano: int) -> str:
    """Write an amount, rounded up: `$0.0123`, `$2.50`, `$0` for nothing."""
    if nano <= 0:
        return "$0"
    for limit, places in ((NANO // 10_000, 6), (NANO, 4)):
        if nano < limit:
            return f"${math.ceil(nano * 10**places / NANO) / 10**places:.{places}f}"
    return f"${math.ceil(nano * 100 / NANO) / 100:,.2f}"


def amount(unit: Unit, value: int) -> str:
    """Write a figure of the ledger's: `$1.20`, `4,300 tokens`, `5 steps`, `12.5 seconds`."""
    if unit == "usd":
        return dollars(value)
    if unit == "seconds":
        return f"{max(value, 0) / 1000:g} seconds"
    return f"{value:,} {unit if value != 1 else unit[:-1]}"


def plain(unit: Unit, value: int) -> float | int:
    """Return a figure of the ledger's as people say it in a budget."""
    if unit == "usd":
        return value / NANO
    return value / 1000 if unit == "seconds" else value


def exceeded(short: Shortfall, interaction: Interaction) -> InteractdError:
    """The error of a budget that does not cover the next call."""
    if short.needed is None:
        return unknown_price(str(interaction.model), of=_owner(short, interaction))
    fields: Json = {
        "scope": short.scope,
        "unit": short.unit,
        "limit": plain(short.unit, short.limit),
        "spent": plain(short.unit, short.spent),
    }
    others = f", {amount(short.unit, short.held)} reserved by calls that are under way" if short.held > 0 else ""
    used = f"{amount(short.unit, short.spent)} of it spent{others}"
    if short.unit in ("usd", "tokens") and short.left > 0:
        message = (
            f"{_owner(short, interaction)} budget of {amount(short.unit, short.limit)} does not cover another call, "
            f"which may take up to {amount(short.unit, short.needed)} ({used})."
        )
    else:
        message = f"{_owner(short, interaction)} budget of {amount(short.unit, short.limit)} is used up ({used})."
    following = next_call(short, interaction)
    return BudgetExceeded(message, repair=f"{KEPT} {_go_on(short, interaction)}", budget=fields, next=following)


def cut(short: Shortfall, interaction: Interaction) -> InteractdError:
    """The error of an answer that may be no longer than the budget pays for."""
    fields: Json = {
        "scope": short.scope,
        "unit": short.unit,
        "limit": plain(short.unit, short.limit),
        "spent": plain(short.unit, short.spent),
    }
    message = (
        f"The answer was cut where {_owner(short, interaction).lower()} budget of {amount(short.unit, short.limit)} "
        f"ends ({amount(short.unit, short.spent)} was spent before it)."
    )
    following = next_call(short, interaction)
    return BudgetExceeded(message, repair=f"{KEPT} {_go_on(short, interaction)}", budget=fields, next=following)


def unknown_price(model: str, *, of: str) -> InteractdError:
    """The error of a budget in money for a model that has no price."""
    return UnknownPrice(
        f"{of} budget is in money, and nobody knows what {model} costs.",
        repair=f'Put its price into the configuration ([prices."{model}"] with input and output, in dollars for a '
        "million tokens), give a budget in tokens instead, or use a model with a price (`interactd prices MODEL`).",
        model=model,
    )


def larger(short: Shortfall) -> float | int:
    """A budget with which it can go on: at least twice as much, and room for the call."""
    wanted = max(2 * short.limit, short.spent + short.held + 2 * (short.needed or 0))
    if short.unit == "usd":
        value = wanted / NANO
        digits = 10 ** (math.floor(math.log10(value)) - 1) if value > 0 else 0.01
        return round(math.ceil(value / digits) * digits, 9)
    return math.ceil(wanted / 1000) if short.unit == "seconds" else wanted


def next_call(short: Shortfall, interaction: Interaction) -> Json:
    """The call that goes on, as tools show it."""
    session = interaction.session_id
    if short.scope == "session":
        return {"tool": "set_budget", "arguments": {"session_id": session, "budget": {short.unit: larger(short)}}}
    arguments: Json = {"session_id": session, "input": "Go on."}
    if short.scope == "interaction":
        arguments["budget"] = {short.unit: larger(short)}
    return {"tool": "send_turn", "arguments": arguments}


def _go_on(short: Shortfall, interaction: Interaction) -> str:
    following = next_call(short, interaction)
    call = _written(following)
    match short.scope:
        case "interaction" if short.key == interaction.id:
            return f"Go on with {call}."
        case "interaction":
            return f"It is the budget of {short.key}, which started this one: go on there, with a larger budget."
        case "session":
            more = json.dumps({short.unit: larger(short)})
            return (
                f"Raise it with {call} (toolset money) or `interactd budget {interaction.session_id} '{more}'`, then "
                f'send_turn(session_id="{interaction.session_id}", input="Go on.").'
            )
        case "agent":
            return (
                f"It is for all of the agent's turns of a day: raise budget.{short.unit} in its agent.yaml, or wait "
                f"for tomorrow; then {call}."
            )
        case _:
            return f"Raise day_{short.unit} under [budget] in the configuration, or wait for tomorrow; then {call}."


def _owner(short: Shortfall, interaction: Interaction) -> str:
    match short.scope:
        case "interaction":
            return "The turn's" if short.key == interaction.id else "The starting turn's"
        case "session":
            return "The session's" if short.key == interaction.session_id else "The starting session's"
        case "agent":
            return f"Agent {short.key.split(' ', 2)[-1]}'s daily"
        case _:
            return "The day's"


def _written(call: Json) -> str:
    arguments: dict[str, Any] = call["arguments"]
    return f"{call['tool']}({', '.join(f'{name}={json.dumps(value)}' for name, value in arguments.items())})"
