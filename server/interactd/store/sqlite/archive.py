"""Exports and imports of a SQLite store: reads in a snapshot of their own, writes through the one writer."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from interactd.nouns import Json
from interactd.store.archive_port import (
    CompareKind,
    Found,
    Journal,
    Last,
    PutKind,
    RecordKind,
    Snapshot,
    digest_of_steps,
)
from interactd.store.sqlite.connect import connect, translate
from interactd.store.sqlite.queries import archive as codec
from interactd.store.sqlite.queries import arrival, rows, withhold
from interactd.store.sqlite.writer import Work

T = TypeVar("T")
BUSY_S: Final = 30.0
_VOLATILE: Final[dict[str, frozenset[str]]] = {
    "sessions": frozenset({"expires_at", "ttl_s"}),
    "interactions": frozenset({"read_at", "session_id"}),
    "environments": frozenset({"last_used_at", "expires_at", "size_bytes", "file_count"}),
}
"""What changes without the thing itself being another."""


class Write(Protocol):
    """The store's writer."""

    async def __call__(self, run: Work[T], *, size: int = 0, durable: bool = False) -> T: ...


class SqliteArchive:
    """See `interactd.store.archive_port.Archive`."""

    def __init__(self, file: Path, write: Write) -> None:
        self._file = file
        self._write = write

    @property
    def folder(self) -> Path:
        return self._file.parent

    @contextmanager
    def snapshot(self, owner: str, sessions: Sequence[str] | None) -> Generator[Snapshot]:
        with self._reading() as connection:
            yield _Snapshot(connection, rows.exact(owner), sessions)

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        """A connection of its own, so that a long export takes none of the readers' threads."""
        try:
            connection = connect(self._file, busy_s=BUSY_S, read_only=True)
        except sqlite3.Error as error:
            raise translate(error, self._file) from error
        try:
            connection.execute("BEGIN")
            yield connection
        except sqlite3.Error as error:
            raise translate(error, self._file) from error
        finally:
            connection.close()

    def checker(self, owner: str) -> Callable[[RecordKind, Json], None]:
        with self._reading() as connection:
            known = {kind: codec.columns(connection, kind) for kind in cast("list[RecordKind]", list(codec.LEFT_OUT))}

        def check(kind: RecordKind, record: Json) -> None:
            codec.check(kind, known[kind], record)

        return check

    async def compare(self, kind: CompareKind, records: Sequence[tuple[Json, bytes | None]]) -> Found:
        # Through the writer's thread it would hold up turns; a thread of its own costs less than it takes.
        import asyncio

        return await asyncio.to_thread(self._compare, kind, records)

    def _compare(self, kind: RecordKind, records: Sequence[tuple[Json, bytes | None]]) -> Found:
        found = Found()
        with self._reading() as connection:
            known = codec.columns(connection, kind)
            for given, digest in records:
                _compare_one(connection, kind, known, given, digest, found)
        return found

    # -- writing -----------------------------------------------------------------------------------------------------
    async def begin(self, journal: Journal) -> None:
        await self._write(lambda db: arrival.begin(db, journal), durable=True)

    async def put(self, journal: Journal, kind: PutKind, records: Sequence[Json]) -> None:
        def insert(db: sqlite3.Connection) -> None:
            arrival.check(db, journal)
            arrival.insert(db, kind, records)

        await self._write(insert, size=sum(map(_size, records)))

    async def finish(self, journal: Journal, last: Last, owner: str) -> None:
        def insert(db: sqlite3.Connection) -> None:
            arrival.check(db, journal)
            arrival.finish(db, last, rows.exact(owner))

        await self._write(insert, size=sum(map(_size, last.sessions)), durable=True)

    async def undo(self, journal_id: str | None = None, *, living: Collection[str] = ()) -> bool:
        alive = frozenset(living)
        there = await self._write(lambda db: arrival.condemn(db, journal_id, alive))
        while await self._write(arrival.undo_piece):
            pass
        return there


class _Snapshot:
    """One read transaction."""

    def __init__(self, connection: sqlite3.Connection, owner: str, sessions: Sequence[str] | None) -> None:
        self._db = connection
        self._owner = owner
        self._all = sessions is None
        if sessions is None:
            found = connection.execute("SELECT id FROM sessions WHERE owner = ? ORDER BY id", (owner,))
            self._sessions: list[str] = [row[0] for row in found]
        else:
            self._sessions = sorted(set(sessions))
        self._chosen = set(self._sessions)
        self._inherited = self._heirs()

    def _heirs(self) -> dict[str, list[str]]:
        """Turns of sessions that are not chosen, on the paths of those that are: by the oldest heir, in order."""
        taken: set[str] = set()
        out: dict[str, list[str]] = {}
        for id in self._sessions:
            starts = self._db.execute(
                "SELECT c.previous_interaction_id FROM interactions c WHERE c.session_id = ? AND c.crosses = 1"
                " UNION SELECT head FROM sessions WHERE id = ?",
                (id, id),
            ).fetchall()
            for (start,) in starts:
                current: str | None = start
                while current is not None and current not in taken:
                    node = self._db.execute(
                        "SELECT session_id, previous_interaction_id FROM interactions WHERE id = ?", (current,)
                    ).fetchone()
                    if node is None or node[0] in self._chosen:
                        break
                    taken.add(current)
                    out.setdefault(id, []).append(current)
                    current = node[1]
        return {id: sorted(mine) for id, mine in out.items()}

    def _turns(self) -> Iterator[tuple[str, str]]:
        """(session, interaction) in the order of the archive."""
        for id in self._sessions:
            own = self._db.execute("SELECT id FROM interactions WHERE session_id = ? ORDER BY id", (id,))
            for turn in heapq.merge((row[0] for row in own), self._inherited.get(id, ())):
                yield id, turn

    def records(self, kind: RecordKind) -> Iterator[Json]:
        of = codec.columns(self._db, kind)
        names = ", ".join(column.name for column in of)
        if kind == "sessions":
            for id in self._sessions:
                for row in self._db.execute(f"SELECT {names} FROM sessions WHERE id = ?", (id,)):
                    yield _without_values(codec.record(of, row), "environment")
        elif kind == "environments":
            for id in self._environments():
                for row in self._db.execute(f"SELECT {names} FROM environments WHERE id = ?", (id,)):
                    found = codec.record(of, row)
                    yield {**found, "body": withhold.environment(found["body"])} if "body" in found else found
        elif kind == "interactions":
            for session_id, id in self._turns():
                for row in self._db.execute(f"SELECT {names} FROM interactions WHERE id = ?", (id,)):
                    found = {**codec.record(of, row), "session_id": session_id}
                    note: Any = found.get("pending")
                    yield {**found, "pending": _without_values(note, "environment")} if note else found
        elif kind == "ledger":
            yield from self._ledger(of, names)
        elif kind == "spent":
            yield from self._spent(of, names)
        elif kind == "triggers":
            if self._all:
                query = f"SELECT {names} FROM triggers WHERE owner = ? ORDER BY id"
                for row in self._db.execute(query, (self._owner,)):
                    found = codec.record(of, row)
                    yield {**found, "work": _without_values(found["work"], "environment")}
        else:
            order = {"steps": "seq", "artifacts": "name", "captures": "interaction_id", "requests": "id"}[kind]
            query = f"SELECT {names} FROM {kind} WHERE interaction_id = ? ORDER BY {order}"
            for _, id in self._turns():
                for row in self._db.execute(query, (id,)):
                    yield codec.record(of, row)

    def _ledger(self, of: Sequence[codec.Column], names: str) -> Iterator[Json]:
        """Session by session, since that is what the ledger has an index of."""
        query = f"SELECT {names} FROM ledger WHERE session_id = ?"
        for id in self._sessions:
            mine = [codec.record(of, row) for row in self._db.execute(query, (id,))]
            inherited = set(self._inherited.get(id, ()))
            homes = {self._home(turn) for turn in inherited}
            for home in homes - {id}:
                theirs = (codec.record(of, row) for row in self._db.execute(query, (home,)))
                mine += [{**one, "session_id": id} for one in theirs if one["interaction_id"] in inherited]
            yield from sorted(mine, key=lambda one: (one["interaction_id"], one["id"]))

    def _home(self, turn: str) -> str:
        return self._db.execute("SELECT session_id FROM interactions WHERE id = ?", (turn,)).fetchone()[0]

    def _spent(self, of: Sequence[codec.Column], names: str) -> Iterator[Json]:
        query = f"SELECT {names} FROM spent WHERE scope = ? AND key = ?"
        keys = [("session", id) for id in self._sessions]
        for key in (*keys, *(("interaction", turn) for _, turn in self._turns())):
            for row in self._db.execute(query, key):
                yield codec.record(of, row)

    def left_out(self) -> dict[str, list[Json]]:
        if not self._all:
            return {}
        found = self._db.execute(
            "SELECT id, kind, name, subscribed_events FROM webhooks WHERE owner = ? AND interaction_id IS NULL"
            " ORDER BY id",
            (self._owner,),
        )
        webhooks: list[Json] = [
            {"id": id, "kind": kind, "name": name, "subscribed_events": rows.load(events)}
            for id, kind, name, events in found
        ]
        return {"webhooks": webhooks} if webhooks else {}

    def _environments(self) -> list[str]:
        wanted: set[str] = set()
        for id in self._sessions:
            row = self._db.execute("SELECT environment FROM sessions WHERE id = ?", (id,)).fetchone()
            where: Any = rows.load(row[0]) if row else None
            if isinstance(where, dict):
                where = cast("Json", where).get("from_environment")
            if isinstance(where, str):
                wanted.add(where)
        for _, turn in self._turns():
            row = self._db.execute("SELECT environment_id FROM interactions WHERE id = ?", (turn,)).fetchone()
            if row and row[0]:
                wanted.add(row[0])
        there = self._db.execute(
            "SELECT id FROM environments WHERE owner = ? AND status = 'active' ORDER BY id", (self._owner,)
        )
        return [row[0] for row in there if self._all or row[0] in wanted]

    def agents(self) -> list[str]:
        hashes: set[str] = set()
        for id in self._sessions:
            row = self._db.execute("SELECT agent_pins FROM sessions WHERE id = ?", (id,)).fetchone()
            hashes |= set(rows.texts(row[0] if row else None).values())
        for _, turn in self._turns():
            row = self._db.execute("SELECT agent_hash FROM interactions WHERE id = ?", (turn,)).fetchone()
            if row and row[0]:
                hashes.add(row[0])
        return sorted(hashes)

    def contents(self) -> Iterator[tuple[str, int]]:
        sizes: dict[str, int] = {}
        for _, turn in self._turns():
            found = self._db.execute("SELECT sha256, size_bytes FROM artifacts WHERE interaction_id = ?", (turn,))
            sizes.update(found.fetchall())
        yield from sorted(sizes.items())


def _compare_one(
    connection: sqlite3.Connection,
    kind: RecordKind,
    known: Sequence[codec.Column],
    given: Json,
    digest: bytes | None,
    found: Found,
) -> None:
    id: str = given["id"]
    if kind == "triggers":
        if connection.execute("SELECT 1 FROM triggers WHERE id = ?", (id,)).fetchone() is not None:
            found.same.add(id)
        return
    names = ", ".join(column.name for column in known)
    row = connection.execute(f"SELECT {names} FROM {kind} WHERE id = ?", (id,)).fetchone()
    if kind == "environments":
        status = connection.execute("SELECT status FROM environments WHERE id = ?", (id,)).fetchone()
        if status is not None and status[0] != "active":
            found.gone[id] = "expired" if status[0] in ("expired", "expiring") else "deleted"
            return
    if row is None:
        stone = connection.execute("SELECT reason FROM tombstones WHERE id = ?", (id,)).fetchone()
        if stone is not None:
            found.gone[id] = stone[0]
        return
    here = codec.record(known, row)
    if kind == "environments":
        here["body"] = withhold.environment(here.get("body") or {})
    elif kind == "sessions":
        here = _without_values(here, "environment")
    for name in sorted({*here, *given} - _VOLATILE[kind]):
        if here.get(name) != given.get(name):
            found.different[id] = name
            return
    if kind == "interactions":
        if digest is not None and digest != _steps_here(connection, id):
            found.different[id] = "steps"
            return
        if here["session_id"] != given["session_id"]:
            found.moved[id] = here["session_id"]
    found.same.add(id)


def _steps_here(connection: sqlite3.Connection, id: str) -> bytes:
    of = codec.columns(connection, "steps")
    names = ", ".join(column.name for column in of)
    digest = digest_of_steps()
    for row in connection.execute(f"SELECT {names} FROM steps WHERE interaction_id = ? ORDER BY seq", (id,)):
        digest.update(rows.dump(codec.record(of, row)).encode() + b"\n")
    return digest.digest()


def _without_values(found: Json, name: str) -> Json:
    inner: Any = found.get(name)
    return {**found, name: withhold.asked(cast("Json", inner))} if isinstance(inner, dict) else found


def _size(record: Json) -> int:
    """About how many bytes a record holds: only its large parts count."""
    body: Any = record.get("body")
    return 600 + (len(str(body)) if body else 0)
