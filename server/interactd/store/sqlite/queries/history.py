"""Reading back: one interaction, its steps, and the path that leads to a head."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from interactd.errors import NotFound
from interactd.nouns import Interaction, Json, Step
from interactd.store.port import Turn
from interactd.store.sqlite.queries import rows

_ONE: Final = f"SELECT {rows.INTERACTION} FROM interactions WHERE id = ?"
_STEPS: Final = f"SELECT {rows.STEP} FROM steps WHERE interaction_id = ? AND seq > ? ORDER BY seq LIMIT ?"
# By their first steps, which are numbered as they come in: created_at and id follow the clock, and clocks go back.
_OPEN: Final = (
    f"SELECT {rows.INTERACTION} FROM"
    " (SELECT * FROM interactions WHERE {0} status IN ('in_progress', 'requires_action') {1}"
    " UNION ALL SELECT * FROM interactions WHERE {0} status = 'queued') AS open"
    " ORDER BY (SELECT s.id FROM steps s WHERE s.interaction_id = open.id ORDER BY s.seq LIMIT 1), created_at, id"
)
INTEGER_MAX: Final = (1 << 63) - 1


def get(connection: sqlite3.Connection, id: str) -> Interaction:
    row = connection.execute(_ONE, (rows.exact(id),)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    return rows.interaction(row)


def steps(connection: sqlite3.Connection, id: str, after: int = -1, limit: int | None = None) -> list[Step]:
    """Steps with a seq above `after`, in order."""
    most = INTEGER_MAX if limit is None else max(0, min(limit, INTEGER_MAX))
    found = connection.execute(_STEPS, (rows.exact(id), min(after, INTEGER_MAX), most)).fetchall()
    if (
        not found
        and connection.execute("SELECT 1 FROM interactions WHERE id = ?", (rows.exact(id),)).fetchone() is None
    ):
        raise rows.missing(connection, "interaction", id)
    return [rows.step(row) for row in found]


def pending(connection: sqlite3.Connection, id: str) -> Json | None:
    row = connection.execute("SELECT pending FROM interactions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    return rows.load(row[0])


def active(connection: sqlite3.Connection, session_id: str) -> list[Interaction]:
    """Open interactions of one session, oldest first."""
    id = rows.exact(session_id)
    return [rows.interaction(row) for row in connection.execute(_OPEN.format("session_id = ? AND", ""), (id, id))]


def unfinished(connection: sqlite3.Connection) -> list[Interaction]:
    """Running and queued interactions of all sessions, oldest first."""
    # Both conditions: the first lets SQLite use the partial index.
    return [rows.interaction(row) for row in connection.execute(_OPEN.format("", "AND status = 'in_progress'"))]


def count_unread(connection: sqlite3.Connection, owner: str) -> int:
    return connection.execute(
        "SELECT count(*) FROM interactions i INDEXED BY interactions_unread"
        " CROSS JOIN sessions s ON s.id = i.session_id"
        " WHERE i.background = 1 AND i.read_at IS NULL AND i.finished_at IS NOT NULL AND s.owner = ?",
        (rows.exact(owner),),
    ).fetchone()[0]


def path(connection: sqlite3.Connection, head: str, limit: int, before: str | None, with_steps: bool) -> list[Turn]:
    """Up to `limit` turns that end at `head`, or at the one before `before`; oldest first."""
    get(connection, head)
    current: str | None = rows.exact(head)
    if before is not None:
        if not contains(connection, head, before):
            raise NotFound(
                f"interaction {before} is not on the path to {head}",
                repair="get_session shows the interactions of a session.",
                kind="interaction",
                id=before,
            )
        current = get(connection, before).previous_interaction_id
    found: list[Interaction] = []
    while current is not None and len(found) < limit:
        found.append(get(connection, current))
        current = found[-1].previous_interaction_id
    return [Turn(one, steps(connection, one.id) if with_steps else []) for one in reversed(found)]


def contains(connection: sqlite3.Connection, head: str, id: str) -> bool:
    """Whether `id` is on the path that ends at `head`: O(log n) by the skip ancestors."""
    wanted = rows.exact(id)
    row = connection.execute("SELECT depth FROM interactions WHERE id = ?", (wanted,)).fetchone()
    if row is None:
        return False
    depth: int = row[0]
    current: str | None = rows.exact(head)
    while current is not None and current != wanted:
        node: tuple[Any, ...] | None = connection.execute(
            "SELECT depth, previous_interaction_id, skip_id, skip_depth FROM interactions WHERE id = ?", (current,)
        ).fetchone()
        if node is None or node[0] <= depth:
            return False
        current = node[2] if node[3] >= depth else node[1]
    return current == wanted
