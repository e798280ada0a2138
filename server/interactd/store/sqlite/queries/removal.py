"""Deleting sessions, and leaving nothing of them in the file.

The rows go in one transaction. What is left then is housekeeping, in pieces: entries of the full-text index, old words
in its segments (FTS5 drops them only when segments are merged; its `secure-delete` option would do it at once, but
makes an index that SQLite before 3.42 cannot read), and copies of rows in the unused parts of pages, which SQLite
leaves behind when it balances its trees, `secure_delete` or not. Only a VACUUM removes those.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any, Final

from interactd.errors import Conflict
from interactd.ids import new_id
from interactd.store.port import Receipt
from interactd.store.sqlite.queries import environments, inbox, rows, sessions

ENTRIES_PIECE: Final = 100
PAGES_PIECE: Final = 200
_DUE: Final = "store.removal_due"


def delete(connection: sqlite3.Connection, id: str, now: float, *, reason: str = "deleted") -> Receipt:
    """Remove the session's rows, but for what forks of it still need; leave tombstones."""
    before = sessions.receipt(connection, id)
    if before is not None:
        return before
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
    kept = _hand_over(connection, id, now)
    receipt = Receipt(new_id("receipt"), id, now, _remove(connection, id, row[1], now, reason), kept)
    connection.execute(
        "INSERT INTO tombstones (id, kind, session_id, owner, created_at, deleted_at, reason, receipt)"
        " VALUES (?, 'session', ?, ?, ?, ?, ?, ?)",
        (id, id, row[1], row[0], now, reason, rows.dump(dataclasses.asdict(receipt))),
    )
    _set_due(connection, "entries")
    return receipt


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
    row = connection.execute(
        "SELECT 1 FROM sessions WHERE id = ? AND expires_at <= ? AND NOT EXISTS"
        " (SELECT 1 FROM interactions WHERE session_id = sessions.id AND status IN ('queued', 'in_progress'))"
        f" AND NOT {inbox.HELD}",
        (id, now),
    ).fetchone()
    return delete(connection, id, now, reason="expired") if row else None


def forget_keys(connection: sqlite3.Connection, now: float) -> None:
    """Drop idempotency keys older than 24 hours."""
    connection.execute("DELETE FROM idempotency_keys WHERE created_at <= ?", (now - sessions.KEY_LIFE_S,))


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


def _remove(connection: sqlite3.Connection, id: str, owner: str, now: float, reason: str) -> dict[str, int]:
    execute = connection.execute
    mine = "interaction_id IN (SELECT id FROM interactions WHERE session_id = ?)"
    entries = execute(
        f"INSERT INTO step_texts_gone (id) SELECT id FROM steps WHERE {mine}"
        " AND EXISTS (SELECT 1 FROM step_texts_docsize d WHERE d.id = steps.id)",
        (id,),
    ).rowcount
    # Rows that move while others go leave copies of themselves in the page: better of blanks than of words.
    execute(
        "UPDATE steps SET body = printf('%*s', length(CAST(body AS BLOB)), ''),"
        f" state = printf('%*s', length(CAST(state AS BLOB)), '') WHERE {mine}",
        (id,),
    )
    steps = execute(f"DELETE FROM steps WHERE {mine}", (id,)).rowcount
    kept_files = environments.drop_artifacts(connection, id)
    execute(
        "INSERT INTO tombstones (id, kind, session_id, owner, created_at, deleted_at, reason)"
        " SELECT id, 'interaction', session_id, ?, created_at, ?, ? FROM interactions WHERE session_id = ?",
        (owner, now, reason, id),
    )
    interactions = execute("DELETE FROM interactions WHERE session_id = ?", (id,)).rowcount
    _orphan_keys(connection, id)
    execute("DELETE FROM sessions WHERE id = ?", (id,))
    return {
        "sessions": 1,
        "interactions": interactions,
        "steps": steps,
        "index_entries": entries,
        **({"artifacts": kept_files} if kept_files else {}),
    }


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
            _set_due(connection, "merge")
        return True
    if stage in ("merge", "merging"):
        changes = connection.total_changes
        # A negative number starts the merge of everything into one segment, positive ones go on with it.
        pages = -PAGES_PIECE if stage == "merge" else PAGES_PIECE
        connection.execute("INSERT INTO step_texts (step_texts, rank) VALUES ('merge', ?)", (pages,))
        if stage == "merge":
            _set_due(connection, "merging")
        elif connection.total_changes - changes < 2:
            _set_due(connection, "vacuum")
        return True
    return False


def due(connection: sqlite3.Connection) -> str | None:
    """The stage of the housekeeping: entries, merge, merging, vacuum; `None` when there is nothing to do."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_DUE,)).fetchone()
    return None if row is None else rows.load(row[0])


def vacuumed(connection: sqlite3.Connection) -> None:
    """Note that nothing is left to do."""
    connection.execute("DELETE FROM settings WHERE name = ?", (_DUE,))


def _set_due(connection: sqlite3.Connection, stage: str) -> None:
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (_DUE, rows.dump(stage)))
