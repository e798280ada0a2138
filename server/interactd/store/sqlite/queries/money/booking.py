"""A reservation's end: settled, released, or at its worst; and the time that an attempt worked.

What a line holds in the totals stands on the line itself (`scopes`) until it is settled: its turn's parents may be
gone by then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from interactd.store.ledger_port import Bill, Outcome
from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.money.totals import Place, add, keys_of


def book(connection: sqlite3.Connection, bill: Bill, places: Sequence[Place] | None = None) -> None:
    """Write down what a run has to book; what is booked already stays as it is."""
    if bill.call is not None:
        for row in open_calls(connection, bill.interaction_id, bill.call.id):
            close(connection, row, bill.call, bill.now)
    id = time_id(bill)
    row = connection.execute(
        "SELECT active_ms, sandbox_ms, reserved_ms, scopes FROM ledger WHERE id = ? AND state = 'reserved'", (id,)
    ).fetchone()
    if row is None:
        return
    active, sandbox = max(0, bill.active_ms - row[0]), max(0, bill.sandbox_ms - row[1])
    used = min(active, row[2])
    held = keys_of(row[3])
    add(connection, held, held_ms=-used)
    add(
        connection,
        held if places is None else [key for key, _ in places],
        active_ms=active,
        sandbox_ms=sandbox,
    )
    connection.execute(
        "UPDATE ledger SET active_ms = active_ms + ?, sandbox_ms = sandbox_ms + ?, reserved_ms = reserved_ms - ?,"
        " ended_at = ? WHERE id = ?",
        (active, sandbox, used, bill.now, id),
    )
    if bill.leaving:
        end_times(connection, bill.interaction_id, bill.now, charged=False)


def end(connection: sqlite3.Connection, interaction_id: str, bill: Bill | None, now: float) -> None:
    """Book what a runner that leaves has to book, and leave nothing of it open."""
    if bill is not None:
        book(connection, bill)
    finish(connection, interaction_id, now, known=bill is not None)


def finish(connection: sqlite3.Connection, interaction_id: str, now: float, *, known: bool) -> None:
    """Leave nothing of an interaction open: its runner has left. `known`: it has said all it had to book."""
    for row in open_calls(connection, interaction_id):
        close(connection, row, None, now)
    end_times(connection, interaction_id, now, charged=not known)


def open_calls(connection: sqlite3.Connection, interaction_id: str, id: str | None = None) -> list[Any]:
    return connection.execute(
        "SELECT id, reserved_nano, reserved_tokens, scopes FROM ledger"
        " WHERE interaction_id = ?1 AND state = 'reserved' AND kind = 'call' AND (?2 IS NULL OR id = ?2)",
        (rows.exact(interaction_id), id),
    ).fetchall()


def close(connection: sqlite3.Connection, row: Any, outcome: Outcome | None, now: float) -> None:
    """Settle a reservation; without an outcome at its worst."""
    id, held_nano, held_tokens, scopes = row
    if outcome is None:
        outcome = Outcome(id, "unknown", None, held_nano, held_tokens)
    made = outcome.state != "released"
    nano = outcome.nano if held_nano is not None else None
    keys = keys_of(scopes)
    add(connection, keys, held_nano=-(held_nano or 0), held_tokens=-held_tokens, held_steps=-1)
    if made:
        add(
            connection,
            keys,
            nano=nano or 0,
            tokens=outcome.tokens,
            steps=1,
            unsure_nano=(nano or 0) if outcome.state == "unknown" else 0,
            unpriced=int(nano is None),
        )
    connection.execute(
        "UPDATE ledger SET state = ?, ended_at = ?, usage = ?, cost_nano = ?, tokens = ?, scopes = NULL WHERE id = ?",
        (
            outcome.state,
            now,
            rows.usage_text(outcome.usage),
            (nano if made else 0),
            outcome.tokens if made else 0,
            id,
        ),
    )


def end_times(
    connection: sqlite3.Connection, interaction_id: str, now: float, *, but: str | None = None, charged: bool
) -> None:
    """Close attempts' lines. `charged`: a runner that died may have worked for all the time set aside for it."""
    found = connection.execute(
        "SELECT id, reserved_ms, scopes FROM ledger WHERE interaction_id = ? AND state = 'reserved' AND kind = 'time'",
        (rows.exact(interaction_id),),
    ).fetchall()
    for id, held, scopes in found:
        if id == but:
            continue
        worked = held if charged else 0
        add(connection, keys_of(scopes), held_ms=-held, active_ms=worked)
        connection.execute(
            "UPDATE ledger SET state = ?, active_ms = active_ms + ?, reserved_ms = 0, ended_at = ?, scopes = NULL"
            " WHERE id = ?",
            ("unknown" if worked else "settled", worked, now, id),
        )


def time_id(bill: Bill) -> str:
    return f"{bill.interaction_id}.{bill.epoch}"
