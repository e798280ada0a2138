"""What waits for somebody: results that nobody read, questions that nobody answered."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Literal

from interactd.nouns import Interaction
from interactd.store.sqlite.queries import rows

UNREAD: Final = "background = 1 AND read_at IS NULL AND finished_at IS NOT NULL"
_WAITING: Final = "status IN ('in_progress', 'requires_action') AND status = 'requires_action'"
HELD: Final = (
    f"(EXISTS (SELECT 1 FROM interactions WHERE session_id = sessions.id AND {UNREAD})"
    f" OR EXISTS (SELECT 1 FROM interactions WHERE session_id = sessions.id AND {_WAITING}"
    " AND json_extract(pending, '$.due') IS NOT NULL))"
)
"""A session that is kept whatever its time: somebody has yet to see what is in it, or to answer it."""
_OPEN: Final = "status IN ('queued', 'in_progress', 'requires_action')"
# Written as the indexes are, so that they are used.
_WHERE: Final = {
    "unread": (UNREAD,),
    "waiting": (_WAITING,),
    "running": (
        "background = 1 AND status IN ('in_progress', 'requires_action') AND status = 'in_progress'",
        "background = 1 AND status = 'queued'",
    ),
    "open": ("status IN ('in_progress', 'requires_action')", "status = 'queued'"),
}
_COLUMNS: Final = ", ".join(f"i.{name.strip()}" for name in rows.INTERACTION.split(","))
LIMIT_MAX: Final = 1_000


def page(
    connection: sqlite3.Connection,
    which: Literal["unread", "waiting", "running", "open"],
    owner: str,
    session_id: str | None,
    limit: int,
    after: str | None,
) -> tuple[list[Interaction], int]:
    """Interactions of a kind, oldest first, and how many there are in all."""
    arguments: dict[str, Any] = {"owner": rows.exact(owner), "session": session_id, "after": after or ""}
    ids = " UNION ALL ".join(f"SELECT id, session_id FROM interactions WHERE {where}" for where in _WHERE[which])
    mine = (
        f"FROM ({ids}) AS one CROSS JOIN sessions s ON s.id = one.session_id"
        " WHERE s.owner = :owner AND (:session IS NULL OR one.session_id = :session)"
    )
    total: int = connection.execute(f"SELECT count(*) {mine}", arguments).fetchone()[0]
    # Ids sort by age.
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM interactions i WHERE i.id IN"
        f" (SELECT one.id {mine} AND one.id > :after ORDER BY one.id LIMIT :limit) ORDER BY i.id",
        {**arguments, "limit": max(1, min(limit, LIMIT_MAX))},
    )
    return [rows.interaction(row) for row in found], total


def due(connection: sqlite3.Connection) -> list[tuple[str, float | None]]:
    """What waits for answers, and until when."""
    return connection.execute(
        f"SELECT id, json_extract(pending, '$.due') FROM interactions WHERE {_WAITING}"
    ).fetchall()


def descendants(connection: sqlite3.Connection, id: str) -> list[Interaction]:
    """What is open of all that an interaction started."""
    found = connection.execute(
        "WITH RECURSIVE family (id) AS (SELECT id FROM interactions WHERE parent_id = ?"
        " UNION SELECT i.id FROM family f CROSS JOIN interactions i ON i.parent_id = f.id)"
        f" SELECT {_COLUMNS} FROM interactions i WHERE i.id IN (SELECT id FROM family) AND i.{_OPEN}",
        (rows.exact(id),),
    )
    return [rows.interaction(row) for row in found]


def mark_read(connection: sqlite3.Connection, id: str, now: float, grace_s: float) -> None:
    """Note when the finished result was first fetched, and keep what ran in the background for a while from then."""
    connection.execute(
        "UPDATE sessions SET expires_at = :until WHERE expires_at < :until AND id ="
        f" (SELECT session_id FROM interactions WHERE id = :id AND {UNREAD})",
        {"until": now + grace_s, "id": rows.exact(id)},
    )
    connection.execute(
        "UPDATE interactions SET read_at = ? WHERE id = ? AND read_at IS NULL AND finished_at IS NOT NULL",
        (now, rows.exact(id)),
    )
