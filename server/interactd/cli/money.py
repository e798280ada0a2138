"""`interactd usage | budget | prices`: what was spent, what a session may spend, what a model costs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from interactd import paths
from interactd.cli.client import connected
from interactd.cli.durations import parse_ttl, span
from interactd.cli.main import print_json
from interactd.cli.sessions import table
from interactd.cli.words import safe
from interactd.config import amounts
from interactd.errors import InvalidArgument


def usage(args: argparse.Namespace) -> int:
    """Print what was spent, a line for each day, model, agent or session."""
    since = None if args.since is None else parse_ttl(args.since, "--since") or None
    with connected(paths.find()) as client:
        found = client.call("usage", by=args.by, since_s=since, limit=args.limit)
    if args.json:
        print_json(found)
        return 0
    lines: list[dict[str, Any]] = found["lines"]
    if not lines:
        print("Nothing was spent" + (f" since {found['since']}." if found["since"] else "."))
    else:
        table((args.by, "cost", "tokens", "calls", "work", "sandbox", "title"), [_row(line, args.by) for line in lines])
        if found["more"]:
            print(f"{found['more']} more: interactd usage --by {args.by} -n 1000")
    print(f"total: {usd(found['total'])}, {found['total']['tokens']:,} tokens in {found['total']['calls']:,} calls")
    today = found["today"]
    print(f"today: {usd(today)}{left(today)}")
    kept = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in found["stored_bytes"].items())
    print(f"stored: {kept}")
    hosted = found["hosted"]
    whole = hosted["sessions_usd"] + hosted["sandboxes_usd"]
    print(
        f"hosted: the time alone about ${whole:.2f}, storage about ${hosted['storage_usd_a_month']:.2f} a month "
        f"(assumed prices, {hosted['as_of']}; see docs/money.md)"
    )
    return 0


def budget(args: argparse.Namespace) -> int:
    """Show or set what a session's turns together may cost."""
    with connected(paths.find()) as client:
        if args.amount is None:
            session = client.call("get_session", session_id=args.id, limit=1)["session"]
            made = client.call("costs", session_ids=[session["id"]])[session["id"]]
            made = {"session_id": session["id"], **made}
        else:
            made = client.call("set_budget", session_id=args.id, budget=_amount(args.amount))
    if args.json:
        print_json(made)
        return 0
    limits = made.get("budget")
    print(f"{made['session_id']}: {usd(made)} spent, {made['tokens']:,} tokens{left(made)}")
    if not limits:
        print(f"no budget; set one: interactd budget {made['session_id']} '$2'")
    return 0


def prices(args: argparse.Namespace) -> int:
    """Print what a model costs, from where that is known, and as of when."""
    with connected(paths.find()) as client:
        found = [client.call("price", model=name) for name in args.models]
    if args.json:
        print_json(found if len(found) > 1 else found[0])
        return 0 if all(one["price"] for one in found) else 1
    for one in found:
        print(safe(one["model"]))
        if one["price"] is None:
            print(f"  unknown. {safe(one['repair'])}")
            continue
        price = one["price"]
        print(f"  {_rates(price['usd_per_million'])} a million tokens")
        for tier in price.get("tiers", []):
            above = tier.pop("above_input_tokens")
            print(f"  above {above:,} input tokens: {_rates(tier)}")
        if price.get("usd_per_call"):
            print(f"  ${price['usd_per_call']:g} a call")
        as_of = f", as of {price['date']}" if price.get("date") else ""
        listed = f" (listed as {price['listed_as']})" if price.get("listed_as") else ""
        print(f"  from {price['source']}{as_of}{listed}")
    return 0 if all(one["price"] for one in found) else 1


def usd(cost: dict[str, Any]) -> str:
    """Write what something cost; what nobody knows is not called zero."""
    if cost.get("usd") is None:
        return "cost unknown"
    said = f"${cost['usd']:,.4f}" if 0 < cost["usd"] < 1 else f"${cost['usd']:,.2f}"
    if cost.get("unsure_usd"):
        said = f"at most {said}"
    return said + (f" and {cost['unpriced_calls']} calls of unknown cost" if cost.get("unpriced_calls") else "")


def left(cost: dict[str, Any]) -> str:
    """Write what is left of its budget, as the end of a line."""
    limits: dict[str, Any] = cost.get("budget") or {}
    parts = [
        f"${cost['left'][unit]:,.4f} of ${limit:,.2f} left"
        if unit == "usd"
        else f"{cost['left'][unit]:,g} of {limit:,g} {unit} left"
        for unit, limit in limits.items()
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _row(line: dict[str, Any], by: str) -> tuple[str, ...]:
    key = line["key"] or {"session": "(deleted)", "agent": "(models)"}.get(by, "-")
    return (
        str(key),
        usd(line),
        f"{line['tokens']:,}",
        f"{line['calls']:,}",
        span(line["active_s"]),
        span(line["sandbox_s"]),
        line.get("title") or "",
    )


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} ${value:g}" for name, value in rates.items())


def _amount(text: str) -> Any:
    if text.strip().lower() in {"none", "unlimited", "off"}:
        return None
    try:
        return json.loads(text) if text.lstrip().startswith("{") else amounts.budget(text)
    except ValueError as error:
        raise InvalidArgument(f"budget: {error}", field="budget") from None
