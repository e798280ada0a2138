"""The Store of one user's machine: a SQLite file, written by one thread, read by a few."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from interactd.errors import InvalidArgument, NotFound, StorageError, StorageFull
from interactd.nouns import TERMINAL, Interaction, Json, Session, Status, Step, Usage
from interactd.store.ledger_port import Bill
from interactd.store.port import IdempotencyKey, Page, Receipt, Started, Turn
from interactd.store.sqlite import connect, deleting, opening, retention
from interactd.store.sqlite.archive import SqliteArchive
from interactd.store.sqlite.checkpoints import Checkpointer
from interactd.store.sqlite.ledger import SqliteLedger
from interactd.store.sqlite.queries import (
    environments,
    history,
    inbox,
    removal,
    requests,
    rows,
    search,
    sessions,
    turns,
)
from interactd.store.sqlite.queries.money import booking
from interactd.store.sqlite.queries.schedules import hooks
from interactd.store.sqlite.readers import Readers
from interactd.store.sqlite.retention import SqliteRetention
from interactd.store.sqlite.runners import SqliteRunners
from interactd.store.sqlite.schedules import SqliteSchedules
from interactd.store.sqlite.spare import Spare
from interactd.store.sqlite.upkeep import Upkeep
from interactd.store.sqlite.writer import Work, Writer

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")


class SqliteStore:
    """See `interactd.store.port.Store` for what each method promises."""

    def __init__(self, path: Path) -> None:
        self.file = path
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._checkpoints: Checkpointer | None = None
        self.ledger = SqliteLedger(self._read, self._write)
        self.runners = SqliteRunners(path, self._read, self._write)
        self.schedules = SqliteSchedules(self._read, self._write, self._clear)
        """Triggers and webhooks: a port of its own over the same file."""
        self.upkeep = Upkeep(path, lambda: self._writer is not None and self._writer.busy)
        self.spare = Spare(path)
        self.archive = SqliteArchive(path, self._write)
        self.retention = SqliteRetention(path, self._read, self._write, self.upkeep, self.spare, self._clear)

    async def open(self) -> None:
        if self._writer is not None:
            return
        connection = await asyncio.to_thread(opening.prepared, self.file, self.spare.take)
        checkpoints = Checkpointer(self.file)
        self._writer = Writer(self.file, connection, self.upkeep.chores, checkpoints.wrote)
        self._readers = Readers(self.file)
        self._checkpoints = checkpoints
        checkpoints.start()
        self._writer.start()

    async def aclose(self) -> None:
        """Finish what was submitted, then close. May be called twice."""
        writer, readers, checkpoints = self._writer, self._readers, self._checkpoints
        self._writer = self._readers = self._checkpoints = None
        if readers is not None:
            await readers.aclose()
        if checkpoints is not None:
            await asyncio.to_thread(checkpoints.close)
        if writer is not None:
            # Last: closing the last connection moves the WAL into the file.
            await writer.aclose()

    # -- finding ---------------------------------------------------------------------------------------------
    async def find(self, kind: Literal["session", "interaction", "environment"], prefix: str) -> str:
        return await self._read(sessions.find, kind, prefix)

    # -- sessions --------------------------------------------------------------------------------------------
    async def create_session(self, session: Session, key: IdempotencyKey | None = None) -> Started:
        values = rows.session_values(session)
        return await self._write(
            lambda db: sessions.insert(db, "create_session", values, key), size=_size(values), intake=True
        )

    async def get_session(self, session_id: str) -> Session:
        return await self._read(sessions.get, session_id, time.time())

    async def list_sessions(
        self,
        *,
        owner: str = "local",
        state: Literal["active", "expired", "all"] = "active",
        labels: dict[str, str] | None = None,
        unread: bool = False,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        return await self._read(
            sessions.page,
            owner=owner,
            state=state,
            labels=labels,
            unread=unread,
            limit=limit,
            cursor=cursor,
            now=time.time(),
        )

    async def fork_session(self, session: Session, key: IdempotencyKey | None = None) -> Started:
        values = rows.session_values(session)
        return await self._write(lambda db: sessions.fork(db, values, key), size=_size(values), intake=True)

    async def set_approvals(self, session_id: str, approvals: Json | None) -> None:
        await self._write(lambda db: sessions.set_approvals(db, session_id, approvals))

    async def set_expiry(self, session_id: str, ttl_s: float | None, expires_at: float | None) -> None:
        await self._write(lambda db: sessions.set_expiry(db, session_id, ttl_s, expires_at))

    async def delete_session(self, session_id: str, now: float) -> Receipt:
        receipt = await deleting.delete(self._read, self._write, self.file, session_id, now)
        await self._clear()
        return await self._read(retention.receipt, session_id) or receipt

    async def sweep(self, now: float, *, limit: int = 100) -> list[Receipt]:
        await self._write(lambda db: removal.forget_keys(db, now))
        receipts: list[Receipt] = []
        for id in await self._read(removal.expired, now, limit):
            # One transaction each, so that turns come in between.
            with contextlib.suppress(NotFound):
                receipt = await deleting.sweep_one(self._read, self._write, self.file, id, now)
                if receipt is not None:
                    receipts.append(receipt)
        if receipts:
            await self._clear()
        return receipts

    async def _clear(self) -> None:
        try:
            await self.upkeep.clear(self._open_writer())
        except (StorageFull, StorageError) as error:
            # The rows are gone and the receipt is true; what is left to do is on record, and tried again when idle.
            log.warning("cleaning up after a delete is put off: %s", error)

    async def recall(self, key: IdempotencyKey) -> str | None:
        return await self._read(sessions.recall, key, time.time())

    # -- interactions ----------------------------------------------------------------------------------------
    async def accept(
        self,
        interaction: Interaction,
        steps: Sequence[Step],
        *,
        expires_at: float | None,
        key: IdempotencyKey | None = None,
        pending: Json | None = None,
        durable: bool = False,
        at_head: bool = False,
    ) -> Started:
        if interaction.status not in ("in_progress", "queued"):
            raise InvalidArgument(f"a turn cannot be accepted as {interaction.status}", field="status")
        interaction.runner = self.runners.id
        tail = turns.tail_values(interaction, pending)
        values, size = rows.step_values(steps, interaction.created_at)
        return await self.runners.beating(
            lambda db: turns.accept(db, interaction, tail, values, expires_at, key, at_head),
            functools.partial(self._write, size=size + _size(tail), durable=durable, intake=True),
        )

    async def claim(
        self, interaction_id: str, *, from_status: Sequence[Status], now: float, epoch: int | None = None
    ) -> Interaction | None:
        statuses, runner = tuple(from_status), self.runners.id
        return await self.runners.beating(
            lambda db: turns.claim(db, interaction_id, statuses, now, epoch, runner), self._write
        )

    async def answer(
        self,
        waits: Interaction,
        seen: int,
        steps: Sequence[Step],
        *,
        pending: Json,
        goes_on: bool,
        now: float,
        key: IdempotencyKey | None = None,
    ) -> tuple[Interaction, list[Step]] | None:
        values, size = rows.step_values(steps, now)
        note, runner = rows.dump(pending), self.runners.id
        taken = await self.runners.beating(
            lambda db: turns.answer(db, waits, seen, values, note, key, now, runner, goes_on),
            functools.partial(self._write, size=size, durable=True),
        )
        return None if taken is None else (taken, turns.steps_as_kept(steps, seen, values))

    async def append(
        self,
        interaction_id: str,
        epoch: int,
        steps: Sequence[Step],
        *,
        pending: Json | None = None,
        durable: bool = False,
        bill: Bill | None = None,
        key: IdempotencyKey | None = None,
    ) -> list[Step]:
        now = time.time()
        values, size = rows.step_values(steps, now)
        note = None if pending is None else rows.dump(pending)

        def append(db: sqlite3.Connection) -> int:
            first = turns.append(db, interaction_id, epoch, values, note, key, now)
            if bill is not None:
                booking.book(db, bill)
            return first

        first = await self._write(append, size=size, durable=durable)
        return turns.steps_as_kept(steps, first, values)

    async def requeue(
        self, interaction_id: str, epoch: int, *, pending: Json | None, bill: Bill | None = None
    ) -> Interaction:
        note = None if pending is None else rows.dump(pending)

        def requeue(db: sqlite3.Connection) -> Interaction:
            waiting = turns.requeue(db, interaction_id, epoch, note)
            booking.end(db, interaction_id, bill, time.time())
            return waiting

        return await self._write(requeue)

    async def settle(
        self,
        interaction_id: str,
        epoch: int | None,
        status: Status,
        *,
        steps: Sequence[Step] = (),
        usage: Usage | None = None,
        error: Json | None = None,
        finish_reason: str | None = None,
        model: str | None = None,
        now: float,
        bill: Bill | None = None,
    ) -> Interaction:
        if status not in TERMINAL and status != "requires_action":
            raise InvalidArgument(f"an interaction cannot be settled as {status}", field="status")
        values, size = rows.step_values(steps, now)
        outcome = (None if error is None else rows.dump(error), rows.clean(finish_reason), rows.clean(model))

        def settle(db: sqlite3.Connection) -> tuple[Interaction, bool]:
            settled = turns.settle(db, interaction_id, epoch, status, values, usage, outcome, now)
            booking.end(db, interaction_id, bill, now)
            return hooks.with_news(db, settled, now)

        # After a power loss, what was stopped or paid for must not be open again.
        durable = status == "cancelled" or (bill is not None and bill.paid)
        settled, news = await self._write(settle, size=size, durable=durable)
        if news:
            self.schedules.changed()
        return settled

    async def place(
        self, interaction_id: str, epoch: int, *, environment_id: str, isolation: Json | None = None
    ) -> None:
        levels = None if isolation is None else rows.dump(isolation)
        await self._write(lambda db: turns.place(db, interaction_id, epoch, environment_id, levels))

    async def get_interaction(self, interaction_id: str) -> Interaction:
        return await self._read(history.get, interaction_id)

    async def get_steps(self, interaction_id: str, *, after: int = -1, limit: int | None = None) -> list[Step]:
        return await self._read(history.steps, interaction_id, after, limit)

    async def pending(self, interaction_id: str) -> Json | None:
        return await self._read(history.pending, interaction_id)

    async def active(self, session_id: str) -> list[Interaction]:
        return await self._read(history.active, session_id)

    async def unfinished(self) -> list[Interaction]:
        return await self._read(history.unfinished)

    async def mark_read(self, interaction_id: str, now: float, *, grace_s: float = 0.0) -> None:
        await self._write(lambda db: inbox.mark_read(db, interaction_id, now, grace_s))

    async def list_interactions(
        self,
        which: Literal["unread", "waiting", "running", "open"],
        *,
        owner: str = "local",
        session_id: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> tuple[list[Interaction], int]:
        return await self._read(inbox.page, which, owner, session_id, limit, after)

    async def due(self) -> list[tuple[str, float | None]]:
        return await self._read(inbox.due)

    async def descendants(self, interaction_id: str) -> list[Interaction]:
        return await self._read(inbox.descendants, interaction_id)

    async def count_unread(self, *, owner: str = "local") -> int:
        return await self._read(history.count_unread, owner)

    # -- history ---------------------------------------------------------------------------------------------
    async def path(self, head: str, *, limit: int, before: str | None = None, with_steps: bool = True) -> list[Turn]:
        return await self._read(history.path, head, limit, before, with_steps)

    async def contains(self, head: str, interaction_id: str) -> bool:
        return await self._read(history.contains, head, interaction_id)

    async def search(
        self,
        query: str,
        *,
        owner: str = "local",
        session_id: str | None = None,
        types: Sequence[str] | None = None,
        limit: int = 10,
        cursor: str | None = None,
    ) -> Page:
        newest: int | None = await self._read(search.newest_unindexed)
        try:
            while newest is not None and await self._write(functools.partial(search.index_towards, id=newest)):
                pass
        except (StorageFull, StorageError) as error:
            log.warning("searching without the newest steps, which cannot be indexed: %s", error)
        return await self._read(
            search.find,
            query=query,
            owner=owner,
            session_id=session_id,
            types=None if types is None else tuple(types),
            limit=limit,
            cursor=cursor,
        )

    # -- environments and artifacts --------------------------------------------------------------------------
    async def put_environment(self, row: Json, *, unless: Sequence[str] = ()) -> bool:
        values, refused = environments.values(row), tuple(unless)
        return await self._write(lambda db: environments.put(db, values, refused), size=_size(values))

    async def get_environment(self, environment_id: str) -> Json | None:
        return await self._read(environments.get, environment_id)

    async def list_environments(
        self,
        *,
        owner: str | None = None,
        statuses: Sequence[str] = ("active",),
        expired_at: float | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Json]:
        return await self._read(environments.page, owner, tuple(statuses), expired_at, limit, after)

    async def forget_environment(self, environment_id: str) -> None:
        await self._write(lambda db: environments.forget(db, environment_id))

    async def put_artifacts(
        self, interaction_id: str, environment_id: str, artifacts: Sequence[Json], left_out: Sequence[Json], now: float
    ) -> None:
        values = environments.artifact_values(artifacts)
        note = rows.dump(list(left_out))
        await self._write(
            lambda db: environments.put_artifacts(db, interaction_id, environment_id, values, note, now),
            size=len(note) + 400 * len(values),
        )

    async def list_artifacts(self, interaction_id: str) -> tuple[list[Json], list[Json]]:
        return await self._read(environments.artifacts, interaction_id)

    async def add_requests(self, interaction_id: str, entries: Sequence[Json]) -> None:
        text = rows.dump(list(entries))
        await self._write(lambda db: requests.add(db, interaction_id, text), size=len(text))

    async def list_requests(self, interaction_id: str) -> list[Json]:
        return await self._read(requests.listed, interaction_id)

    async def kept_contents(self) -> set[str]:
        return await self._read(environments.kept_contents)

    async def lost_contents(self, *, limit: int = 1000) -> list[str]:
        return await self._read(environments.lost_contents, limit)

    async def forget_contents(self, sha256: Sequence[str]) -> None:
        gone = [(one,) for one in sha256]
        await self._write(lambda db: environments.forget_contents(db, gone))

    # -- health ----------------------------------------------------------------------------------------------
    async def stats(self) -> Json:
        def count(db: sqlite3.Connection) -> Json:
            tables = ("sessions", "interactions", "steps")
            return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables} | {
                "schema": db.execute("PRAGMA user_version").fetchone()[0]
            }

        counts = await self._read(count)
        wal = self.file.with_name(self.file.name + "-wal")
        return {
            "path": str(self.file),
            "bytes": connect.bytes_of(self.file),
            "wal_bytes": connect.bytes_of(wal),
            "free_bytes": connect.free_bytes(self.file),
            **counts,
            "sqlite": sqlite3.sqlite_version,
        }

    async def check(self) -> None:
        if not self.spare.has_room(afresh=True):
            raise connect.full(self.file)
        await self.put_setting("store.checked_at", time.time())

    # -- small settings --------------------------------------------------------------------------------------
    async def get_setting(self, name: str) -> Any:
        def get(db: sqlite3.Connection) -> Any:
            row = db.execute("SELECT value FROM settings WHERE name = ?", (rows.exact(name),)).fetchone()
            return None if row is None else rows.load(row[0])

        return await self._read(get)

    async def put_setting(self, name: str, value: Any) -> None:
        values = (rows.exact(name), rows.dump(value))
        await self._write(
            lambda db: db.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", values) and None,
            size=len(values[1]),
        )

    # -- inside ----------------------------------------------------------------------------------------------
    async def _read(self, run: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._readers is None:
            raise _not_open()
        return await self._readers.read(lambda db: run(db, *args, **kwargs))

    async def _write(
        self, run: Work[T], *, size: int = 0, durable: bool = False, intake: bool = False, bare: bool = False
    ) -> T:
        writer = self._open_writer()
        if intake and not self.spare.has_room():
            raise connect.full(self.file)
        try:
            return await writer.submit(run, size=size, durable=durable, intake=intake, bare=bare)
        except StorageFull:
            # What was accepted is finished, and what is there can be deleted: that is what the spare room is for.
            if intake or not await asyncio.to_thread(self.spare.release):
                raise
            return await writer.submit(run, size=size, durable=durable, bare=bare)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise _not_open()
        return self._writer


def _not_open() -> StorageError:
    return StorageError("the store is not open", repair="Make the call again: the daemon is starting or stopping.")


def _size(values: Sequence[Any]) -> int:
    """About how many bytes a job holds with these column values."""
    return 500 + sum(len(value) for value in values if isinstance(value, str))
