"""Running totals: which of them a turn's calls count in, the budgets that hold for each, and what is in them.

Budgets are checked against totals, so that a call costs the same however long its history is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from interactd.nouns import NANO, Json
from interactd.store.ledger_port import Account, Scope, Shortfall, Unit
from interactd.store.sqlite.queries import rows

_MOST_PARENTS: Final = 64

Key = tuple[Scope, str]
Place = tuple[Key, list[Json]]
"""A total, and the budgets that hold for it."""
Who = tuple[str, str, str, str | None]
"""A turn's session, owner, day and agent."""

_COLUMNS: Final[dict[Unit, tuple[str, str]]] = {
    "usd": ("nano", "held_nano"),
    "tokens": ("tokens", "held_tokens"),
    "steps": ("steps", "held_steps"),
    "seconds": ("active_ms", "held_ms"),
}
_SCALE: Final[dict[Unit, int]] = {"usd": NANO, "tokens": 1, "steps": 1, "seconds": 1000}


def places_of(
    connection: sqlite3.Connection, id: str, day: str, budgets: dict[Scope, Json] | None = None
) -> tuple[list[Place], Who]:
    """The totals of a turn: its own and those of the turns that started it, their sessions, their agents, the day.
    `budgets` are those that the turn brings; `None`: as it brought them last."""
    found: dict[Key, list[Json]] = {}
    who: Who | None = None
    current: str | None = id
    for _ in range(_MOST_PARENTS):
        row = connection.execute(
            "SELECT i.session_id, s.owner, i.agent, i.budget, s.budget, i.parent_id FROM interactions i"
            " LEFT JOIN sessions s ON s.id = i.session_id WHERE i.id = ?",
            (current,),
        ).fetchone()
        if row is None or ("interaction", current) in found:
            break
        session_id, owner, agent, mine, sessions, parent = row
        owner = owner or "local"
        who = who or (session_id, owner, day, agent)
        found[("interaction", current)] = [rows.load(mine)] if mine else []
        found.setdefault(("session", session_id), [rows.load(sessions)] if sessions else [])
        if agent:
            found.setdefault(("agent", _agent_key(day, owner, agent)), [])
        current = parent
        if current is None:
            break
    found[("day", day)] = []
    who = who or ("", "local", day, None)
    own = own_keys(id, who)
    for key, held in found.items():
        if budgets is not None and key in own:
            further = budgets.get(key[0])
        else:
            kept = connection.execute("SELECT budget FROM spent WHERE scope = ? AND key = ?", key).fetchone()
            further = rows.load(kept[0]) if kept else None
        if further and further not in held:
            held.append(further)
    return list(found.items()), who


def own_keys(id: str, who: Who) -> list[Key]:
    """The totals whose further budgets a turn brings itself."""
    _, owner, day, agent = who
    keys: list[Key] = [("interaction", id), ("day", day)]
    return [*keys, ("agent", _agent_key(day, owner, agent))] if agent else keys


def _agent_key(day: str, owner: str, agent: str) -> str:
    # The day first, so that a range of keys is a range of days.
    return f"{day} {rows.exact(owner)} {agent}"


def shortfalls(
    connection: sqlite3.Connection, places: Sequence[Place], needed: dict[Unit, int | None]
) -> list[Shortfall]:
    short: list[Shortfall] = []
    for key, budgets in places:
        for unit, limit in limits_of(budgets).items():
            if unit not in needed:
                continue
            spent, held = figures(connection, key, unit)
            asked = needed[unit]
            if asked is None or spent + held + asked > limit:
                short.append(Shortfall(*key, unit, limit, spent, held, asked))
    return short


def limits_of(budgets: Sequence[Json]) -> dict[Unit, int]:
    """The tightest limit of each unit, in the ledger's units, rounded down."""
    out: dict[Unit, int] = {}
    for budget in budgets:
        for unit, scale in _SCALE.items():
            if (value := budget.get(unit)) is not None:
                limit = int(Decimal(str(value)) * scale)
                out[unit] = min(limit, out.get(unit, limit))
    return out


def figures(connection: sqlite3.Connection, key: Key, unit: Unit) -> tuple[int, int]:
    spent, held = _COLUMNS[unit]
    row = connection.execute(f"SELECT {spent}, {held} FROM spent WHERE scope = ? AND key = ?", key).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def add(connection: sqlite3.Connection, keys: Sequence[Key], **amounts: int) -> None:
    """Add to totals; those that were removed meanwhile stay removed."""
    given = {name: amount for name, amount in amounts.items() if amount}
    if not given or not keys:
        return
    changes = ", ".join(f"{name} = {name} + ?" for name in given)
    connection.executemany(
        f"UPDATE spent SET {changes} WHERE scope = ? AND key = ?", [(*given.values(), *key) for key in keys]
    )


def keys_of(scopes: str | None) -> list[Key]:
    return [] if scopes is None else [(scope, key) for scope, key in json.loads(scopes)]


_ACCOUNT: Final = (
    "SELECT nano, unsure_nano, held_nano, unpriced, tokens, steps, active_ms, sandbox_ms FROM spent"
    " WHERE scope = ? AND key = ?"
)


def account(connection: sqlite3.Connection, key: Key, budgets: Sequence[Json] = ()) -> Account:
    """The total of one scope; empty where nothing was spent."""
    row = connection.execute(_ACCOUNT, key).fetchone()
    return Account(*key, *(row or ()), budgets=tuple(budgets)) if row else Account(*key, budgets=tuple(budgets))


def accounts(
    connection: sqlite3.Connection, interaction_ids: Sequence[str], session_ids: Sequence[str]
) -> list[Account]:
    """See `Ledger.accounts`."""
    out = [account(connection, ("interaction", rows.exact(id))) for id in interaction_ids]
    for id in session_ids:
        row = connection.execute("SELECT budget FROM sessions WHERE id = ?", (rows.exact(id),)).fetchone()
        out.append(account(connection, ("session", id), [rows.load(row[0])] if row and row[0] else ()))
    return out


def applying(connection: sqlite3.Connection, interaction_id: str, day: str) -> list[Account]:
    """See `Ledger.applying`."""
    places, _ = places_of(connection, rows.exact(interaction_id), day)
    return [account(connection, key, budgets) for key, budgets in places]
