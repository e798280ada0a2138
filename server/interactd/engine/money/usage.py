"""What was spent, for people: by day, model, agent or session; what budgets have left; what a model costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast, get_args

from interactd.engine.checks.terms import check_budget
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.engine.money import hosted
from interactd.engine.money.money import shown, tightest
from interactd.errors import InteractdError, InvalidArgument
from interactd.models import known
from interactd.nouns import NANO, Caller, Json
from interactd.store.ledger_port import By

LONGEST_S: Final = 100 * 366 * 86_400.0
MANY: Final = 200
_SUMS: Final = (
    *("calls", "nano", "unsure_nano", "unpriced", "input", "output", "thought", "cached", "tokens"),
    *("active_ms", "sandbox_ms"),
)


async def usage(core: Core, by: str, since_s: float | None, limit: int, caller: Caller) -> Json:
    """See `Engine.usage`."""
    if by not in get_args(By):
        raise InvalidArgument(f"by: expected one of {', '.join(get_args(By))}, got {by!r:.40}", field="by")
    if since_s is not None and not 0 < since_s <= LONGEST_S:
        raise InvalidArgument("since_s: expected seconds, more than 0 and at most 100 years", field="since_s")
    money = core.money
    since = None if since_s is None else core.clock() - since_s
    since_day = None if since is None else money.day(since)
    lines = await money.ledger.report(cast("By", by), since=since, since_day=since_day, owner=caller.owner)
    # Time belongs to no model: the whole is added up by day.
    whole = (
        await money.ledger.report("day", since=since, since_day=since_day, owner=caller.owner)
        if by == "model"
        else lines
    )
    total: Json = {name: sum(line[name] for line in whole) for name in _SUMS}
    kept = await money.ledger.stored(owner=caller.owner)
    return {
        "by": by,
        "since": since_day,
        "lines": [_line(line) for line in lines[:limit]],
        "more": max(0, len(lines) - limit),
        "total": _line(total),
        "today": await today(core),
        "stored_bytes": kept,
        "hosted": hosted.estimate(
            total["active_ms"] / 1000, total["sandbox_ms"] / 1000, sum(kept.values()), money.settings.hosted
        ),
    }


async def today(core: Core) -> Json:
    """What the machine spent today, and the day's budget: `{"day", "usd", ..., "budget"?, "left"?}`."""
    day = core.money.day()
    spent = shown(await core.money.ledger.day(day))
    limits = tightest([core.money.settings.day])
    out: Json = {"day": day, **spent}
    if limits:
        out["budget"] = limits
        out["left"] = {unit: max(0, limit - (spent[unit] or 0)) for unit, limit in limits.items()}
    return out


async def set_budget(core: Core, session_id: str, budget: Any, caller: Caller) -> Json:
    """See `Engine.set_budget`."""
    clean = check_budget(budget)
    session = await core.session(session_id, caller)
    await core.money.ledger.set_budget(session.id, clean)
    return {"session_id": session.id, **(await costs(core, (), (session.id,), caller))[session.id]}


async def costs(
    core: Core, interaction_ids: Sequence[str], session_ids: Sequence[str], caller: Caller
) -> dict[str, Json]:
    """See `Engine.costs`."""
    if len(interaction_ids) + len(session_ids) > 1_000:
        raise InvalidArgument("interaction_ids, session_ids: at most 1,000 at once", field="interaction_ids")
    turns = [(await core.interaction(id, caller))[0].id for id in interaction_ids]
    sessions = [(await core.any_session(await core.session_id(id), caller)).id for id in session_ids]
    out: dict[str, Json] = {}
    for account in await core.money.ledger.accounts(turns, sessions):
        limits = tightest(account.budgets)
        one = shown(account)
        if limits:
            one["budget"] = limits
            one["left"] = {unit: max(0, round(limit - (one[unit] or 0), 9)) for unit, limit in limits.items()}
        out[account.key] = one
    return out


async def price(core: Core, model: str, caller: Caller) -> Json:
    """See `Engine.price`."""
    check_text("model", model, max_bytes=500, empty=False)
    try:
        found = await core.catalog.resolve(model, connection=caller.connection)
        provider, name, base_url = found.provider, found.name, found.base_url
    except InteractdError:
        # A price can be looked up without a key, and without a server that runs.
        head, slash, rest = model.partition("/")
        provider, name = (head.lower(), rest) if slash else (known.family(model) or "", model)
        base_url = core.money.settings.addresses.get(provider)
        if not provider or not name:
            raise
    listed = await core.money.settings.prices.of(provider, name, base_url)
    label = f"{provider}/{name}"
    if listed is None:
        return {
            "model": label,
            "price": None,
            "repair": f'Nobody knows what it costs. Put it into the configuration: [prices."{label}"] with input and '
            "output, in dollars for a million tokens.",
        }
    return {"model": label, "price": listed.as_dict()}


def _line(line: Json) -> Json:
    nano = line["nano"]
    out: Json = {name: line[name] for name in ("key", "title") if name in line}
    out |= {name: line[name] for name in ("calls", "tokens", "input", "output", "thought", "cached")}
    out["usd"] = None if line["unpriced"] and not nano else nano / NANO
    if line["unsure_nano"]:
        out["unsure_usd"] = line["unsure_nano"] / NANO
    if line["unpriced"]:
        out["unpriced_calls"] = line["unpriced"]
    out["active_s"], out["sandbox_s"] = line["active_ms"] / 1000, line["sandbox_ms"] / 1000
    return out
