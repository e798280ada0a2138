"""What is kept for how long, how much it takes, and what deleted sessions leave outside."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from interactd.errors import StorageFull
from interactd.nouns import Json
from interactd.store.port import Receipt
from interactd.store.retention_port import Trimmed
from interactd.store.sqlite import connect
from interactd.store.sqlite.queries import environments, leftovers, removal, rows, sessions
from interactd.store.sqlite.spare import BYTES, Spare
from interactd.store.sqlite.upkeep import Upkeep
from interactd.store.sqlite.writer import Work

T = TypeVar("T")
P = ParamSpec("P")
_TABLES: Final = ("sessions", "interactions", "steps", "artifacts", "environments", "idempotency_keys", "tombstones")
_DAY: Final = 86_400.0


class Read(Protocol):
    """The store's readers."""

    async def __call__(
        self, run: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


class Write(Protocol):
    """The store's writer."""

    async def __call__(self, run: Work[T], *, size: int = 0, durable: bool = False, bare: bool = False) -> T: ...


class SqliteRetention:
    """See `interactd.store.retention_port.Retention`."""

    def __init__(
        self, file: Path, read: Read, write: Write, upkeep: Upkeep, spare: Spare, clear: Callable[[], Awaitable[None]]
    ) -> None:
        self._file = file
        self._read = read
        self._write = write
        self._upkeep = upkeep
        self._spare = spare
        self._clear = clear

    async def receipt(self, session_id: str) -> Receipt | None:
        return await self._read(receipt, session_id)

    async def leftovers(self) -> dict[str, Json]:
        return await self._read(leftovers.unused)

    async def settle(self, session_id: str, removed: dict[str, int]) -> None:
        await self._write(lambda db: leftovers.settle(db, session_id, removed))
        await self._clear()

    async def amend(self, session_id: str, removed: dict[str, int]) -> None:
        await self._write(lambda db: leftovers.amend(db, session_id, removed))

    async def pinned_agents(self) -> set[str]:
        return await self._read(leftovers.pinned)

    async def trim(
        self, *, keys_before: float, tombstones_before: float, artifacts_before: float = 0, limit: int = 500
    ) -> Trimmed:
        def some(db: sqlite3.Connection, table: str, where: str, before: float) -> int:
            rowids = "(owner, key)" if table == "idempotency_keys" else "id"
            names = rowids.strip("()")
            return db.execute(
                f"DELETE FROM {table} WHERE {rowids} IN (SELECT {names} FROM {table} WHERE {where} LIMIT ?)",
                (before, limit),
            ).rowcount

        def trim(db: sqlite3.Connection) -> Trimmed:
            gone = "status IN ('deleted', 'expired') AND last_used_at <= ?"
            return Trimmed(
                keys=some(db, "idempotency_keys", "created_at <= ?", keys_before),
                tombstones=some(db, "tombstones", "deleted_at <= ?", tombstones_before)
                + some(db, "environments", gone, tombstones_before),
                artifacts=environments.drop_old_artifacts(db, artifacts_before, limit),
            )

        return await self._write(trim)

    async def sizes(self) -> Json:
        def look(db: sqlite3.Connection) -> Json:
            counts = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES}
            return {"rows": counts, "free_bytes": unused_bytes(db), "pending": removal.due(db)}

        wal = self._file.with_name(self._file.name + "-wal")
        return {
            "bytes": _bytes(self._file),
            "wal_bytes": _bytes(wal),
            "disk_free_bytes": connect.free_bytes(self._file),
            "spare_bytes": BYTES if self._spare.held else 0,
            **await self._read(look),
        }

    async def expiring(self, now: float, owner: str) -> Json:
        return await self._read(_expiring, now, rows.exact(owner))

    async def vacuum(self) -> Json:
        before, began = _bytes(self._file), time.monotonic()
        need, free = connect.room_for_vacuum(self._file), connect.free_bytes(self._file)
        if free < need:
            raise StorageFull(
                f"rewriting the database takes {need:,} bytes for a while, and {free:,} are free on its disk;"
                " nothing was changed",
                repair="Free some space on that disk first; `interactd data` shows what takes how much.",
                path=str(self._file),
                free_bytes=free,
                needed_bytes=need,
            )
        await self._upkeep.vacuum(self._write)
        return {
            "before_bytes": before,
            "after_bytes": _bytes(self._file),
            "seconds": round(time.monotonic() - began, 3),
        }


def receipt(connection: sqlite3.Connection, session_id: str) -> Receipt | None:
    """The receipt of a deleted session, with whether anything of it may still be there."""
    found = sessions.receipt(connection, session_id)
    if found is not None:
        files = connection.execute(
            "SELECT 1 FROM contents_gone g WHERE NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.sha256 = g.sha256)"
        ).fetchone()
        noted = session_id in leftovers.read(connection)
        found.pending = removal.due(connection) is not None or files is not None or noted
    return found


def unused_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file holds nothing."""
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages * connection.execute("PRAGMA page_size").fetchone()[0]


def _expiring(connection: sqlite3.Connection, now: float, owner: str) -> Json:
    def of(table: str, where: str) -> Json:
        row: Any = connection.execute(
            f"SELECT sum(expires_at <= :now), sum(expires_at > :now AND expires_at <= :now + {_DAY}),"
            f" sum(expires_at > :now + {_DAY} AND expires_at <= :now + {7 * _DAY}),"
            f" sum(expires_at > :now + {7 * _DAY}), sum(expires_at IS NULL)"
            f" FROM {table} WHERE owner = :owner {where}",
            {"now": now, "owner": owner},
        ).fetchone()
        return dict(zip(("overdue", "day", "week", "later", "never"), (each or 0 for each in row), strict=True))

    soon = connection.execute(
        "SELECT id, title, expires_at FROM sessions WHERE owner = ? AND expires_at > ? ORDER BY expires_at LIMIT 5",
        (owner, now),
    ).fetchall()
    return {
        "sessions": of("sessions", ""),
        "environments": of("environments", "AND status = 'active'"),
        "next": [{"session_id": row[0], "title": row[1], "expires_at": row[2]} for row in soon],
    }


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
