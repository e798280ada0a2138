"""The full-text index: filled behind the turns' backs, brought up to date before a search."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, Final

from interactd.errors import InvalidArgument
from interactd.store.port import Hit, Page
from interactd.store.sqlite import text
from interactd.store.sqlite.queries import rows

PIECE_STEPS: Final = 64
PIECE_CHARACTERS: Final = 200_000
PAGE_MAX: Final = 200
_MARK: Final = "store.indexed_steps"

_INHERITED: Final = (
    "WITH RECURSIVE inherited (id) AS (SELECT forked_at FROM sessions WHERE id = ? AND forked_at IS NOT NULL"
    " UNION ALL SELECT i.previous_interaction_id FROM inherited JOIN interactions i ON i.id = inherited.id"
    " WHERE i.previous_interaction_id IS NOT NULL) "
)


def index_piece(connection: sqlite3.Connection) -> bool:
    """Index the next few steps; returns whether there are more."""
    mark = _indexed(connection)
    # Bodies are read one by one: sixty-four of a megabyte each would be held at once otherwise.
    steps = connection.execute("SELECT id, body FROM steps WHERE id > ? ORDER BY id LIMIT ?", (mark, PIECE_STEPS))
    entries: list[tuple[int, str]] = []
    seen = characters = 0
    for id, body in steps:
        seen, mark = seen + 1, id
        words = text.of_step(json.loads(body))
        if words:
            entries.append((id, words))
            characters += len(words)
            if characters > PIECE_CHARACTERS:
                break
    if not seen:
        return False
    steps.close()
    connection.executemany("INSERT INTO step_texts (rowid, text) VALUES (?, ?)", entries)
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (_MARK, str(mark)))
    return True


def newest_unindexed(connection: sqlite3.Connection) -> int | None:
    """The newest step, if the index does not know it yet."""
    newest: int | None = connection.execute("SELECT max(id) FROM steps").fetchone()[0]
    return newest if newest is not None and newest > _indexed(connection) else None


def index_towards(connection: sqlite3.Connection, id: int) -> bool:
    """Index the next few steps; returns whether step `id` is still ahead."""
    return index_piece(connection) and _indexed(connection) < id


def find(
    connection: sqlite3.Connection,
    query: str,
    *,
    owner: str,
    session_id: str | None,
    types: Sequence[str] | None,
    limit: int,
    cursor: str | None,
) -> Page:
    """Steps that match, best first. A forked session's hits include the turns it was forked from."""
    now = time.time()
    title: str | None = None
    if session_id is not None:
        row = connection.execute("SELECT title FROM sessions WHERE id = ?", (rows.exact(session_id),)).fetchone()
        if row is None:
            raise rows.missing(connection, "session", session_id)
        title = row[0]
    limit, offset = max(1, min(limit, PAGE_MAX)), _offset(cursor)
    expression = text.match(query)
    if expression is None:
        return Page([])
    with_clause, where, arguments = "", "", list[Any]()
    if session_id is not None:
        with_clause = _INHERITED
        arguments.append(rows.exact(session_id))
    arguments += [expression, rows.exact(owner), now]
    if session_id is not None:
        where += " AND (i.session_id = ? OR i.id IN inherited)"
        arguments.append(rows.exact(session_id))
    if types is not None:
        where += f" AND s.type IN ({', '.join('?' * len(types))})"
        arguments += [rows.clean(type) for type in types]
    found = connection.execute(
        f"{with_clause}SELECT i.session_id, s.interaction_id, s.seq, s.type, s.created_at,"
        " snippet(step_texts, 0, '[', ']', '…', 32), rank, o.title"
        # CROSS keeps the index outermost, so that it sorts by rank itself and only shown rows get a snippet.
        " FROM step_texts CROSS JOIN steps s ON s.id = step_texts.rowid"
        " CROSS JOIN interactions i ON i.id = s.interaction_id CROSS JOIN sessions o ON o.id = i.session_id"
        " WHERE step_texts MATCH ? AND o.owner = ? AND (o.expires_at IS NULL OR o.expires_at > ?)"
        f"{where} ORDER BY rank LIMIT ? OFFSET ?",
        (*arguments, limit + 1, offset),
    ).fetchall()
    hits = [
        Hit(
            session_id=session_id or row[0],
            interaction_id=row[1],
            seq=row[2],
            type=row[3],
            created_at=row[4],
            snippet=text.show(row[5]),
            score=-row[6],
            session_title=title if session_id else row[7],
        )
        for row in found[:limit]
    ]
    return Page(hits, str(offset + limit) if len(found) > limit else None)


def _indexed(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_MARK,)).fetchone()
    return 0 if row is None else int(row[0])


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidArgument(
            "cursor: not one that search_history gave",
            repair="Pass the cursor of the last page as it was, or none for the first page.",
            field="cursor",
        )
    return int(cursor)
