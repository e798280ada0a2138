"""Deleting sessions, and leaving nothing of them in the file.

The rows of a small session go in one transaction; a large one is first taken out of use, then emptied in pieces, then
gone. What is left after that is housekeeping, in pieces: entries of the full-text index, old words in its segments
(FTS5 drops them only when segments are merged; its `secure-delete` option would do it at once, but makes an index that
SQLite before 3.42 cannot read), and copies of rows in the unused parts of pages, which SQLite leaves behind when it
balances its trees, `secure_delete` or not. Only a VACUUM removes those.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from interactd.errors import Conflict
from interactd.ids import new_id
from interactd.nouns import Json
from interactd.store.port import Receipt
from interactd.store.sqlite.queries import inbox, leftovers, pieces, requests, rows, sessions
from interactd.store.sqlite.queries.housekeeping import DUE, set_due
from interactd.store.sqlite.queries.money import folding

ENTRIES_PIECE: Final = 100
PAGES_PIECE: Final = 200
LARGE_STEPS: Final = 400
LARGE_BYTES: Final = 1 << 20
"""A session with more steps or characters than this is emptied in pieces before it is deleted."""
_UNDER_WAY: Final = "store.removing"

Hook = Callable[[sqlite3.Connection, str, float], dict[str, int]]
HOOKS: Final[list[Hook]] = [folding.drop, requests.drop]
"""What else refers to a session and goes with it: one function for each set of tables. It is called with the session's
id and the time while the session and its interactions are still there, in the transaction that takes them out of use,
and returns what it removed, by table, for the receipt."""


def delete(connection: sqlite3.Connection, id: str, now: float, *, reason: str = "deleted") -> Receipt:
    """Remove the session's rows, but for what forks of it still need; leave tombstones."""
    before = sessions.receipt(connection, id)
    if before is not None:
        return before
    row = _there(connection, id)
    under_way = _begun(connection).get(id) or _take_out(connection, id, now, reason)
    counts: dict[str, int] = under_way["removed"]
    now = under_way["now"]
    stone = (row[1], now, under_way["reason"])
    while pieces.remove_some(connection, id, counts, stone):
        pass
    _orphan_keys(connection, id)
    connection.execute("DELETE FROM sessions WHERE id = ?", (id,))
    named = {"sessions": 1, "interactions": 0, "steps": 0, "index_entries": 0}
    receipt = Receipt(new_id("receipt"), id, now, {**named, **counts}, under_way["kept"])
    connection.execute(
        "INSERT INTO tombstones (id, kind, session_id, owner, created_at, deleted_at, reason, receipt)"
        " VALUES (?, 'session', ?, ?, ?, ?, ?, ?)",
        (id, id, row[1], row[0], now, under_way["reason"], rows.dump(dataclasses.asdict(receipt))),
    )
    _forget(connection, id)
    set_due(connection, "entries")
    return receipt


def is_large(connection: sqlite3.Connection, id: str) -> bool:
    """Whether its rows are better removed in pieces."""
    if id in _begun(connection):
        return True
    found = connection.execute(
        "SELECT length(s.body) + coalesce(length(s.state), 0) FROM interactions i"
        " CROSS JOIN steps s ON s.interaction_id = i.id WHERE i.session_id = ? LIMIT ?",
        (rows.exact(id), LARGE_STEPS + 1),
    )
    count = size = 0
    for (length,) in found:
        count, size = count + 1, size + length
        if count > LARGE_STEPS or size > LARGE_BYTES:
            return True
    return False


def begin(connection: sqlite3.Connection, id: str, now: float, reason: str) -> None:
    """Take a large session out of use: from now on it answers that it expired, whatever happens to this process."""
    if sessions.receipt(connection, id) is None and id not in _begun(connection):
        _there(connection, id)
        _take_out(connection, id, now, reason)
        connection.execute("UPDATE sessions SET expires_at = 0 WHERE id = ?", (id,))


def piece(connection: sqlite3.Connection, id: str) -> bool:
    """Empty a session that was taken out of use a little more; returns whether there is more."""
    under_way = _begun(connection)
    row = connection.execute("SELECT owner FROM sessions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is None or id not in under_way:
        return False
    mine = under_way[id]
    more = pieces.remove_some(connection, id, mine["removed"], (row[0], mine["now"], mine["reason"]))
    _note(connection, under_way)
    return more


def resume(connection: sqlite3.Connection) -> bool:
    """Go on with a deletion that a crash cut short; returns whether there is more of any."""
    for id, mine in _begun(connection).items():
        if connection.execute("SELECT 1 FROM sessions WHERE id = ?", (id,)).fetchone() is None:
            _forget(connection, id)
        elif not piece(connection, id):
            delete(connection, id, mine["now"], reason=mine["reason"])
        return True
    return False


def expired(connection: sqlite3.Connection, now: float, limit: int) -> list[str]:
    """Sessions whose time is over and in which nothing runs or is queued."""
    found = connection.execute(
        "SELECT id FROM sessions WHERE expires_at <= ?"
        " AND NOT EXISTS (SELECT 1 FROM interactions WHERE session_id = sessions.id"
        " AND status IN ('in_progress', 'requires_action') AND status = 'in_progress')"
        " AND NOT EXISTS (SELECT 1 FROM interactions WHERE session_id = sessions.id AND status = 'queued')"
        f" AND NOT {inbox.HELD} ORDER BY expires_at LIMIT ?",
        (now, max(0, min(limit, 10_000))),
    )
    return [row[0] for row in found]


def sweep_one(connection: sqlite3.Connection, id: str, now: float) -> Receipt | None:
    """Delete one that `expired` named, unless a turn has given it more time since."""
    return delete(connection, id, now, reason="expired") if is_over(connection, id, now) else None


def is_over(connection: sqlite3.Connection, id: str, now: float) -> bool:
    """Whether a session that `expired` named still is."""
    row = connection.execute(
        "SELECT 1 FROM sessions WHERE id = ? AND expires_at <= ? AND NOT EXISTS"
        " (SELECT 1 FROM interactions WHERE session_id = sessions.id AND status IN ('queued', 'in_progress'))"
        f" AND NOT {inbox.HELD}",
        (id, now),
    ).fetchone()
    return row is not None


def forget_keys(connection: sqlite3.Connection, now: float) -> None:
    """Drop idempotency keys older than 24 hours."""
    connection.execute("DELETE FROM idempotency_keys WHERE created_at <= ?", (now - sessions.KEY_LIFE_S,))


def _there(connection: sqlite3.Connection, id: str) -> tuple[float, str]:
    """When the session was made and whose it is.

    Raises:
        NotFound, Deleted, Expired: it is not there.
        Conflict: an interaction of it runs.
    """
    row = connection.execute("SELECT created_at, owner FROM sessions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is None:
        raise rows.missing(connection, "session", id)
    running = connection.execute(
        "SELECT id FROM interactions WHERE session_id = ?"
        " AND status IN ('in_progress', 'requires_action') AND status = 'in_progress'",
        (id,),
    ).fetchone()
    if running is not None:
        raise Conflict(
            f"interaction {running[0]} of session {id} is running",
            repair=f"cancel_interaction {running[0]}, then delete the session.",
            interaction_id=running[0],
            status="in_progress",
        )
    return row[0], row[1]


def _take_out(connection: sqlite3.Connection, id: str, now: float, reason: str) -> Json:
    """Hand over what forks need, let the hooks take theirs, and note what only this session used."""
    leftovers.note(connection, id)
    kept = _hand_over(connection, id, now)
    removed: dict[str, int] = {}
    for hook in HOOKS:
        pieces.add(removed, **hook(connection, id, now))
    mine: Json = {"now": now, "reason": reason, "removed": removed, "kept": kept}
    _note(connection, {**_begun(connection), id: mine})
    return mine


def _begun(connection: sqlite3.Connection) -> dict[str, Json]:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_UNDER_WAY,)).fetchone()
    return {} if row is None else rows.load(row[0])


def _note(connection: sqlite3.Connection, under_way: dict[str, Json]) -> None:
    values = (_UNDER_WAY, rows.dump(under_way))
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", values)


def _forget(connection: sqlite3.Connection, id: str) -> None:
    left = {other: mine for other, mine in _begun(connection).items() if other != id}
    if left:
        _note(connection, left)
    else:
        connection.execute("DELETE FROM settings WHERE name = ?", (_UNDER_WAY,))


def _hand_over(connection: sqlite3.Connection, id: str, now: float) -> dict[str, Any]:
    """Give the interactions that forks' paths run through to the oldest such fork."""
    branches = connection.execute(
        "SELECT c.session_id, i.id FROM interactions c INDEXED BY interactions_that_cross"
        " CROSS JOIN interactions i ON i.id = c.previous_interaction_id"
        " WHERE c.crosses = 1 AND c.session_id <> ? AND i.session_id = ?",
        (id, id),
    ).fetchall()
    heads = connection.execute(
        "SELECT s.id, i.id FROM sessions s INDEXED BY sessions_forked CROSS JOIN interactions i ON i.id = s.head"
        " WHERE s.forked_at IS NOT NULL AND s.id <> ? AND i.session_id = ?",
        (id, id),
    ).fetchall()
    # Ids sort by age.
    anchors: list[tuple[str, str]] = sorted({*branches, *heads})
    moved = 0
    for heir, anchor in anchors:
        current: str | None = anchor
        below: str | None = None
        while current is not None:
            node = connection.execute(
                "SELECT session_id, previous_interaction_id FROM interactions WHERE id = ?", (current,)
            ).fetchone()
            if node is None:
                break
            if node[0] != id:
                if below is not None and node[0] != heir:
                    connection.execute("UPDATE interactions SET crosses = 1 WHERE id = ?", (below,))
                break
            # What still waited there has lost its session; left open it could block its heir.
            connection.execute(
                "UPDATE interactions SET status = 'cancelled', finished_at = ?, epoch = epoch + 1, pending = NULL"
                " WHERE id = ? AND status IN ('queued', 'requires_action')",
                (now, current),
            )
            connection.execute("UPDATE interactions SET session_id = ? WHERE id = ?", (heir, current))
            moved += 1
            below, current = current, node[1]
    return {"interactions": moved, "sessions": sorted({heir for heir, _ in anchors})} if moved else {}


def _orphan_keys(connection: sqlite3.Connection, id: str) -> None:
    """Keep that these keys were used, so that a repeated call starts nothing; not what they were."""
    found = connection.execute("SELECT owner, key FROM idempotency_keys WHERE session_id = ?", (id,)).fetchall()
    for owner, key in found:
        connection.execute(
            "UPDATE idempotency_keys SET key = ? WHERE owner = ? AND key = ?", (sessions.orphan(key), owner, key)
        )


# -- housekeeping --------------------------------------------------------------------------------------------
def clear_piece(connection: sqlite3.Connection) -> bool:
    """Take a few entries of removed steps out of the index, or merge a few of its pages; False when that is done."""
    stage = due(connection)
    if stage == "entries":
        gone = connection.execute("SELECT id FROM step_texts_gone LIMIT ?", (ENTRIES_PIECE,)).fetchall()
        if gone:
            connection.executemany("DELETE FROM step_texts WHERE rowid = ?", gone)
            connection.executemany("DELETE FROM step_texts_gone WHERE id = ?", gone)
        else:
            set_due(connection, "merge")
        return True
    if stage in ("merge", "merging"):
        changes = connection.total_changes
        # A negative number starts the merge of everything into one segment, positive ones go on with it.
        pages = -PAGES_PIECE if stage == "merge" else PAGES_PIECE
        connection.execute("INSERT INTO step_texts (step_texts, rank) VALUES ('merge', ?)", (pages,))
        if stage == "merge":
            set_due(connection, "merging")
        elif connection.total_changes - changes < 2:
            set_due(connection, "vacuum")
        return True
    return False


def due(connection: sqlite3.Connection) -> str | None:
    """The stage of the housekeeping: entries, merge, merging, vacuum, truncate; `None` when there is nothing to do."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (DUE,)).fetchone()
    return None if row is None else rows.load(row[0])


def vacuumed(connection: sqlite3.Connection) -> None:
    """Note that only the log is left, which still has what the file had before."""
    set_due(connection, "truncate")


def truncated(connection: sqlite3.Connection) -> None:
    """Note that nothing is left to do."""
    connection.execute("DELETE FROM settings WHERE name = ?", (DUE,))
