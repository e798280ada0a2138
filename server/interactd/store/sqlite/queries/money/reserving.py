"""Setting aside what a call may cost, and time to work."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from interactd.errors import Fenced
from interactd.nouns import Json
from interactd.store.ledger_port import Bill, Granted, Refused, Reservation, Scope, Shortfall, Unit
from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.money.booking import book, close, end_times, open_calls, time_id
from interactd.store.sqlite.queries.money.totals import (
    Place,
    Who,
    add,
    figures,
    keys_of,
    limits_of,
    own_keys,
    places_of,
    shortfalls,
)

LONGEST_LEASE_MS: Final = 60_000
SHORTEST_LEASE_MS: Final = 1_000


def reserve(connection: sqlite3.Connection, asked: Reservation) -> Granted | Refused:
    """See `Ledger.reserve`."""
    bill = asked.bill
    places, who = _under(connection, bill, asked.budgets)
    book(connection, bill, places)
    for row in open_calls(connection, bill.interaction_id):
        close(connection, row, None, bill.now)
    needed: dict[Unit, int | None] = {"usd": asked.nano, "tokens": asked.tokens, "steps": 1}
    short = shortfalls(connection, places, needed)
    lease, late = _lease(connection, bill, places, who)
    short += late
    if short:
        return Refused(tuple(short))
    keys = [key for key, _ in places]
    add(connection, keys, held_nano=asked.nano or 0, held_tokens=asked.tokens, held_steps=1)
    connection.execute(
        "INSERT INTO ledger (id, kind, state, interaction_id, session_id, owner, day, agent, provider, model, epoch,"
        " started_at, price, reserved_nano, reserved_tokens, scopes)"
        " VALUES (?, 'call', 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            asked.id,
            bill.interaction_id,
            *who,
            rows.clean(asked.provider),
            rows.clean(asked.model),
            bill.epoch,
            bill.now,
            rows.dump_some(asked.price),
            asked.nano,
            asked.tokens,
            rows.dump(keys),
        ),
    )
    return Granted(lease)


def tick(connection: sqlite3.Connection, bill: Bill) -> Granted | Refused:
    """See `Ledger.tick`."""
    places, who = _under(connection, bill, None)
    book(connection, bill, places)
    lease, late = _lease(connection, bill, places, who)
    return Refused(tuple(late)) if late else Granted(lease)


def _under(connection: sqlite3.Connection, bill: Bill, budgets: dict[Scope, Json] | None) -> tuple[list[Place], Who]:
    """Every total that this turn's calls count in, and its session, owner, day and agent.

    Raises:
        Fenced: the turn is somebody else's by now.
    """
    id = rows.exact(bill.interaction_id)
    row = connection.execute("SELECT epoch, status FROM interactions WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", bill.interaction_id)
    if row[1] != "in_progress" or row[0] != bill.epoch:
        raise Fenced(
            f"interaction {bill.interaction_id} was claimed by a newer runner, or has ended",
            repair="Stop: nothing more may be done for it here.",
            id=bill.interaction_id,
        )
    places, who = places_of(connection, id, bill.day, budgets)
    connection.executemany("INSERT OR IGNORE INTO spent (scope, key) VALUES (?, ?)", [key for key, _ in places])
    if budgets is not None:
        # Kept with the totals, so that turns that this one starts know of them too.
        connection.executemany(
            "UPDATE spent SET budget = ?1 WHERE scope = ?2 AND key = ?3 AND budget IS NOT ?1",
            [(rows.dump_some(budgets.get(key[0])), *key) for key in own_keys(id, who)],
        )
    return places, who


def _lease(
    connection: sqlite3.Connection, bill: Bill, places: Sequence[Place], who: Who
) -> tuple[int | None, list[Shortfall]]:
    """Set aside some of the time that is left for this attempt. `None` where no budget is in seconds."""
    end_times(connection, bill.interaction_id, bill.now, but=time_id(bill), charged=True)
    id = time_id(bill)
    row = connection.execute("SELECT reserved_ms, scopes FROM ledger WHERE id = ?", (id,)).fetchone()
    keys = [key for key, _ in places]
    if row is None:
        connection.execute(
            "INSERT INTO ledger (id, kind, state, interaction_id, session_id, owner, day, agent, epoch, started_at,"
            " active_ms, sandbox_ms, scopes) VALUES (?, 'time', 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (id, bill.interaction_id, *who, bill.epoch, bill.now, bill.active_ms, bill.sandbox_ms, rows.dump(keys)),
        )
        add(connection, keys, active_ms=bill.active_ms, sandbox_ms=bill.sandbox_ms)
    else:
        add(connection, keys_of(row[1]), held_ms=-row[0])
    lefts: list[tuple[int, Shortfall]] = []
    for key, budgets in places:
        if (limit := limits_of(budgets).get("seconds")) is not None:
            spent, held = figures(connection, key, "seconds")
            lefts.append((limit - spent - held, Shortfall(*key, "seconds", limit, spent, held, 1)))
    left = min((left for left, _ in lefts), default=None)
    lease = 0
    if left is not None and left > 0:
        # Halves, so that others under the same budget find some too; what is left at last goes to whoever asks.
        lease = min(LONGEST_LEASE_MS, max(left // 2, min(left, SHORTEST_LEASE_MS)))
    add(connection, keys, held_ms=lease)
    connection.execute(
        "UPDATE ledger SET reserved_ms = ?, scopes = ?, state = 'reserved' WHERE id = ?", (lease, rows.dump(keys), id)
    )
    return (None if left is None else lease), [short for at, short in lefts if at <= 0]
