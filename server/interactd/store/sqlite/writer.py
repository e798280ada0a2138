"""The one writer: a thread that takes jobs from a queue and commits what is waiting together.

A commit costs the same for one job as for fifty, so that everybody who waits shares it. Each job of a batch is in a
savepoint of its own: one that fails takes nothing with it. A caller's future is resolved after the COMMIT only.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from interactd.errors import Overloaded, StorageError
from interactd.store.sqlite.connect import identity, is_busy, removed, translate

log = logging.getLogger(__name__)
T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""What a job does. It must depend on nothing but its own arguments and the database: after a batch that could not be
committed as a whole, its jobs are run again one by one."""

BATCH: Final = 128
WAITING_JOBS: Final = 16_384
WAITING_BYTES: Final = 128 << 20
LOCK_WAIT_S: Final = 60.0
"""How long a batch waits for another program's lock before its jobs fail."""
QUIET_S: Final = 0.02
"""The queue has to be empty this long before chores are done."""
CHORE_RETRY_S: Final = 5.0


@dataclass(slots=True)
class Chore:
    """Work for idle times, in pieces short enough that a turn can wait for one.

    `run` returns whether there is more to do. `bare` chores begin their own transactions.
    """

    run: Work[bool]
    bare: bool = False
    after_s: float = QUIET_S


@dataclass(slots=True)
class _Job:
    run: Work[Any]
    future: asyncio.Future[Any] | None
    durable: bool
    bare: bool
    size: int
    value: Any = None
    error: Exception | None = None


class _TransactionLost(Exception):
    """The whole transaction is gone, not only the job that ran."""


class Writer:
    """Runs jobs in order on its own thread and connection, from `start` to `aclose`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, chores: Sequence[Chore], wrote: Callable[[], None]):
        self.path = path
        self._connection = connection
        self._chores = chores
        self._wrote = wrote
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._counts = threading.Lock()
        self._waiting = 0
        self._bytes = 0
        self._closing = False
        self._full_sync = False
        self._identity = identity(path)
        self._thread = threading.Thread(target=self._run, name="interactd-store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether jobs are waiting: what can be put off should be."""
        return not self._jobs.empty()

    async def submit(
        self, run: Work[T], *, size: int = 0, durable: bool = False, bare: bool = False, intake: bool = False
    ) -> T:
        """Run `run` in a transaction and return what it returned, once that is committed.

        A job that was submitted is carried out, also when the task that waits for it is cancelled.

        Args:
            run: the work; an error that it raises undoes this job alone and is raised here.
            size: about how many bytes the job holds while it waits.
            durable: the commit must survive power loss, not only the process.
            bare: run it outside of any transaction (VACUUM, checkpoints).
            intake: new work from outside, which is refused first when too much is waiting.

        Raises:
            Overloaded: too much is waiting; nothing was done.
            StorageFull, StorageError: the database.
        """
        room = 1 if intake else 4
        with self._counts:
            if self._closing:
                raise StorageError("the store is closed", repair="Make the call again: the daemon is restarting.")
            if self._waiting >= WAITING_JOBS * room or (self._waiting and self._bytes + size > WAITING_BYTES * room):
                raise Overloaded(
                    f"{self._waiting} writes are waiting for the disk; this one was not started",
                    repair="Make the same call again in a few seconds, and fewer at once.",
                )
            self._waiting += 1
            self._bytes += size
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            # Under the lock, so that no job can slip in behind the one that ends the thread.
            self._jobs.put(_Job(run, future, durable, bare, size))
        return await future

    async def aclose(self, timeout_s: float = 30.0) -> None:
        """Carry out what was submitted and end the thread. Its connection is closed with it."""
        with self._counts:
            if not self._closing:
                self._closing = True
                self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)

    # -- on the thread ---------------------------------------------------------------------------------------
    def _run(self) -> None:
        due: list[Chore] = list(self._chores)
        since = time.monotonic()
        held_back = 0.0
        try:
            while True:
                wait = None
                if due:
                    wait = max(since + due[0].after_s, held_back) - time.monotonic()
                try:
                    first = self._jobs.get(timeout=max(wait, 0.0)) if wait is not None else self._jobs.get()
                except queue.Empty:
                    if not self._chore(due[0]):
                        due.pop(0)
                    elif due[0].bare:
                        held_back = time.monotonic() + CHORE_RETRY_S
                    continue
                if not self._take(first):
                    return
                due = list(self._chores)
                since = time.monotonic()
        finally:
            self._connection.close()

    def _take(self, job: _Job | None) -> bool:
        """Run `job` and what waits behind it, in batches; False when told to end."""
        batch: list[_Job] = []
        while job is not None and not job.bare:
            batch.append(job)
            if len(batch) == BATCH:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        if batch:
            self._batch(batch)
            self._answer(batch)
        if job is None:
            return False
        if job.bare:
            self._bare(job)
            self._answer([job])
        return True

    def _batch(self, jobs: list[_Job]) -> None:
        try:
            self._begin(any(job.durable for job in jobs))
            for job in jobs:
                self._one(job, savepoint=len(jobs) > 1)
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except (sqlite3.Error, _TransactionLost) as error:
            self._rollback()
            if len(jobs) == 1:
                cause = error.__cause__ if isinstance(error, _TransactionLost) else error
                jobs[0].error = translate(cause if isinstance(cause, Exception) else error, self.path)
                return
            # One of them broke the transaction for all. Alone, only that one fails.
            for job in jobs:
                job.value = job.error = None
                self._batch([job])
            return
        self._wrote()

    def _one(self, job: _Job, *, savepoint: bool) -> None:
        execute = self._connection.execute
        if savepoint:
            execute("SAVEPOINT job")
        try:
            job.value = job.run(self._connection)
        except Exception as error:
            if not self._connection.in_transaction or isinstance(error, (sqlite3.OperationalError, MemoryError)):
                raise _TransactionLost from error
            if savepoint:
                execute("ROLLBACK TO job")
            else:
                execute("ROLLBACK")
            job.error = translate(error, self.path) if isinstance(error, sqlite3.Error) else error
        if savepoint:
            execute("RELEASE job")

    def _bare(self, job: _Job) -> None:
        try:
            self._sync(full=job.durable)
            job.value = job.run(self._connection)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whoever waits for the job gets it
            self._rollback()
            job.error = translate(error, self.path) if isinstance(error, sqlite3.Error) else error
        self._wrote()

    def _begin(self, durable: bool) -> None:
        # A file that was unlinked takes every commit and keeps none.
        if identity(self.path) != self._identity:
            raise _TransactionLost from removed(self.path)
        self._sync(full=durable)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline or self._closing:
                    raise

    def _sync(self, *, full: bool) -> None:
        if full != self._full_sync:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full_sync = full

    def _rollback(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.warning("rolling back failed: %s", error)

    def _chore(self, chore: Chore) -> bool:
        job = _Job(chore.run, None, False, chore.bare, 0)
        if chore.bare:
            self._bare(job)
        else:
            self._batch([job])
        if job.error is not None:
            log.warning("housekeeping of the store failed: %s", job.error)
            return False
        return bool(job.value)

    def _answer(self, jobs: list[_Job]) -> None:
        with self._counts:
            self._waiting -= len(jobs)
            self._bytes -= sum(job.size for job in jobs)
        asked = [job for job in jobs if job.future is not None]
        if asked and asked[0].future is not None:
            try:
                asked[0].future.get_loop().call_soon_threadsafe(_resolve, asked)
            except RuntimeError:
                log.debug("the event loop ended before %d writes were answered", len(asked))


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.value)
