"""Environments and artifacts: rows in and out as plain JSON."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from interactd.nouns import Json
from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.housekeeping import rewrite_due

COLUMNS: Final = (
    "id",
    "owner",
    "status",
    "created_at",
    "last_used_at",
    "expires_at",
    "forked_from",
    "size_bytes",
    "file_count",
)
_SELECT: Final = ", ".join((*COLUMNS, "body"))
_MARKS: Final = ", ".join("?" * (len(COLUMNS) + 1))
ARTIFACT: Final = ("id", "name", "sha256", "size_bytes", "mime_type", "created_at")
PAGE_MAX: Final = 10_000


def values(row: Json) -> tuple[Any, ...]:
    """Return the column values of an environment's row."""
    plain = [rows.exact(value) if isinstance(value := row.get(name), str) else value for name in COLUMNS]
    return (*plain, rows.dump_some(row.get("body")))


def _row(found: Sequence[Any]) -> Json:
    return {**dict(zip(COLUMNS, found, strict=False)), "body": rows.load(found[-1]) or {}}


def put(connection: sqlite3.Connection, row: tuple[Any, ...], unless: tuple[str, ...]) -> bool:
    """Insert or replace, unless what is there has one of the statuses."""
    if unless:
        there = connection.execute("SELECT status FROM environments WHERE id = ?", (row[0],)).fetchone()
        if there is not None and there[0] in unless:
            return False
    connection.execute(f"INSERT OR REPLACE INTO environments ({_SELECT}) VALUES ({_MARKS})", row)
    if row[COLUMNS.index("status")] == "deleted":
        # What its body held may still lie in the unused parts of pages.
        rewrite_due(connection)
    return True


def get(connection: sqlite3.Connection, id: str) -> Json | None:
    """The row of an environment, whatever its status."""
    found = connection.execute(f"SELECT {_SELECT} FROM environments WHERE id = ?", (rows.exact(id),)).fetchone()
    return None if found is None else _row(found)


def page(
    connection: sqlite3.Connection,
    owner: str | None,
    statuses: tuple[str, ...],
    expired_at: float | None,
    limit: int,
    after: str | None,
) -> list[Json]:
    """Rows, last used first."""
    where = [f"status IN ({', '.join('?' * len(statuses))})"]
    given: list[Any] = list(statuses)
    if owner is not None:
        where.append("owner = ?")
        given.append(rows.exact(owner))
    if expired_at is not None:
        where.append("expires_at <= ?")
        given.append(expired_at)
    if after is not None:
        where.append("(last_used_at, id) < (SELECT last_used_at, id FROM environments WHERE id = ?)")
        given.append(rows.exact(after))
    found = connection.execute(
        f"SELECT {_SELECT} FROM environments WHERE {' AND '.join(where)} ORDER BY last_used_at DESC, id DESC LIMIT ?",
        (*given, max(0, min(limit, PAGE_MAX))),
    )
    return [_row(one) for one in found]


def forget(connection: sqlite3.Connection, id: str) -> None:
    """Remove a row without a trace."""
    connection.execute("DELETE FROM environments WHERE id = ?", (rows.exact(id),))


def artifact_values(artifacts: Sequence[Json]) -> list[tuple[Any, ...]]:
    """Return the column values of artifacts' rows."""
    return [tuple(rows.exact(v) if isinstance(v := one[name], str) else v for name in ARTIFACT) for one in artifacts]


def put_artifacts(
    connection: sqlite3.Connection,
    interaction_id: str,
    environment_id: str,
    artifacts: list[tuple[Any, ...]],
    left_out: str,
    now: float,
) -> None:
    """Tie kept files to an interaction that is (still) there."""
    id = rows.exact(interaction_id)
    if connection.execute("SELECT 1 FROM interactions WHERE id = ?", (id,)).fetchone() is None:
        raise rows.missing(connection, "interaction", interaction_id)
    connection.executemany(
        "INSERT OR IGNORE INTO contents_gone (sha256) SELECT sha256 FROM artifacts"
        " WHERE interaction_id = ? AND name = ? AND sha256 <> ?",
        [(id, one[1], one[2]) for one in artifacts],
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO artifacts (interaction_id, {', '.join(ARTIFACT)}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(id, *one) for one in artifacts],
    )
    connection.execute(
        "INSERT OR REPLACE INTO captures (interaction_id, environment_id, captured_at, left_out) VALUES (?, ?, ?, ?)",
        (id, rows.exact(environment_id), now, left_out),
    )


def artifacts(connection: sqlite3.Connection, interaction_id: str) -> tuple[list[Json], list[Json]]:
    """The kept files of an interaction by name, and what was left out."""
    id = rows.exact(interaction_id)
    found = connection.execute(
        f"SELECT {', '.join(ARTIFACT)} FROM artifacts WHERE interaction_id = ? ORDER BY name", (id,)
    ).fetchall()
    note = connection.execute("SELECT left_out FROM captures WHERE interaction_id = ?", (id,)).fetchone()
    return [dict(zip(ARTIFACT, one, strict=True)) for one in found], rows.load(note[0]) if note else []


def drop_artifacts(connection: sqlite3.Connection, where: str, given: tuple[str, ...]) -> int:
    """Remove the artifact rows of some interactions; their contents are noted as perhaps lost."""
    connection.execute(
        f"INSERT OR IGNORE INTO contents_gone (sha256) SELECT sha256 FROM artifacts WHERE {where}", given
    )
    connection.execute(f"DELETE FROM captures WHERE {where}", given)
    return connection.execute(f"DELETE FROM artifacts WHERE {where}", given).rowcount


def drop_old_artifacts(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove a few artifact rows older than a time; their contents are noted as perhaps lost."""
    found = connection.execute("SELECT id, sha256 FROM artifacts WHERE created_at <= ? LIMIT ?", (before, limit))
    old = found.fetchall()
    connection.executemany("INSERT OR IGNORE INTO contents_gone (sha256) VALUES (?)", [(row[1],) for row in old])
    connection.executemany("DELETE FROM artifacts WHERE id = ?", [(row[0],) for row in old])
    return len(old)


def kept_contents(connection: sqlite3.Connection) -> set[str]:
    """Every sha256 that some row refers to."""
    return {row[0] for row in connection.execute("SELECT DISTINCT sha256 FROM artifacts")}


def lost_contents(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Noted contents that no row refers to."""
    found = connection.execute(
        "SELECT sha256 FROM contents_gone g WHERE NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.sha256 = g.sha256)"
        " LIMIT ?",
        (limit,),
    )
    return [row[0] for row in found]


def forget_contents(connection: sqlite3.Connection, gone: list[tuple[str]]) -> None:
    """Drop the notes, and those of contents that are in use again."""
    connection.executemany("DELETE FROM contents_gone WHERE sha256 = ?", gone)
    connection.execute("DELETE FROM contents_gone WHERE sha256 IN (SELECT sha256 FROM artifacts)")
