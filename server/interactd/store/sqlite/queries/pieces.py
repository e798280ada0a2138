"""Removing a session's rows a little at a time, so that no transaction grows with the session.

On a full disk that is the only way: what a transaction changes has to fit into the log beside the file first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from interactd.store.sqlite.queries import environments

ROWS: Final = 200
BYTES: Final = 1 << 20

Stone = tuple[str, float, str]
"""Owner, time and reason of the tombstones that turns leave."""


def remove_some(
    connection: sqlite3.Connection, session_id: str, counts: dict[str, int] | None = None, stone: Stone | None = None
) -> bool:
    """Remove some steps of the session's turns, or when there are none some turns; False when nothing was left.

    Args:
        counts: what was removed is added to it, by table.
        stone: leave tombstones of turns with this; None leaves no trace.
    """
    counts = {} if counts is None else counts
    found = connection.execute(
        "SELECT s.id, length(s.body) + coalesce(length(s.state), 0) FROM interactions i"
        " CROSS JOIN steps s ON s.interaction_id = i.id WHERE i.session_id = ? LIMIT ?",
        (session_id, ROWS),
    )
    ids: list[int] = []
    size = 0
    for id, length in found:
        ids.append(id)
        size += length
        if size > BYTES:
            break
    found.close()
    if ids:
        _steps(connection, ids, counts)
        return True
    turns = [
        row[0]
        for row in connection.execute("SELECT id FROM interactions WHERE session_id = ? LIMIT ?", (session_id, ROWS))
    ]
    if turns:
        _turns(connection, turns, counts, stone)
    return bool(turns)


def _steps(connection: sqlite3.Connection, ids: Sequence[int], counts: dict[str, int]) -> None:
    among = f"({', '.join(map(str, ids))})"
    entries = connection.execute(
        f"INSERT OR IGNORE INTO step_texts_gone (id) SELECT id FROM step_texts_docsize WHERE id IN {among}"
    ).rowcount
    # Rows that move while others go leave copies of themselves in the page: better of blanks than of words.
    connection.execute(
        "UPDATE steps SET body = printf('%*s', length(CAST(body AS BLOB)), ''),"
        f" state = printf('%*s', length(CAST(state AS BLOB)), '') WHERE id IN {among}"
    )
    connection.execute(f"DELETE FROM steps WHERE id IN {among}")
    add(counts, steps=len(ids), index_entries=entries)


def _turns(connection: sqlite3.Connection, ids: Sequence[str], counts: dict[str, int], stone: Stone | None) -> None:
    marks = ", ".join("?" * len(ids))
    kept_files = environments.drop_artifacts(connection, f"interaction_id IN ({marks})", tuple(ids))
    if stone is not None:
        connection.execute(
            "INSERT OR REPLACE INTO tombstones (id, kind, session_id, owner, created_at, deleted_at, reason)"
            f" SELECT id, 'interaction', session_id, ?, created_at, ?, ? FROM interactions WHERE id IN ({marks})",
            (*stone, *ids),
        )
    connection.execute(f"DELETE FROM interactions WHERE id IN ({marks})", tuple(ids))
    add(counts, interactions=len(ids), artifacts=kept_files)


def add(counts: dict[str, int], **more: int) -> None:
    """Add to counts; what is nothing is not named."""
    for name, count in more.items():
        if count:
            counts[name] = counts.get(name, 0) + count
