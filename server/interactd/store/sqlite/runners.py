"""Who works on this file: a row and a lock file for each daemon that has it open.

The kernel frees the lock when its process ends, however it ends, so that a dead runner is known at once. One that only
stands still keeps its lock, and is known by the time since its last beat.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from interactd.boottime import boot_id, boottime
from interactd.store.runners_port import Claim, Runner
from interactd.store.sqlite import connect
from interactd.store.sqlite.queries import rows, turns

T = TypeVar("T")

BEAT_SHARE: Final = 1 / 3
"""Of its lease a beat may be old before the next claim renews it."""
_LOCK_WAIT_S: Final = 2.0
_INSERT: Final = (
    "INSERT OR REPLACE INTO runners (id, version, pid, boot, started_at, beat_at, beat, lease_s)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Read(Protocol):
    async def __call__(self, run: Callable[[sqlite3.Connection], T], /) -> T: ...


class Write(Protocol):
    async def __call__(self, run: Callable[[sqlite3.Connection], T], /, *, size: int = 0) -> T: ...


class SqliteRunners:
    """See `interactd.store.runners_port.Runners`.

    Args:
        file: the database.
        read, write: run a function with a connection, in a transaction of its own.
    """

    def __init__(self, file: Path, read: Read, write: Write) -> None:
        self._file = file
        self._read = read
        self._write = write
        self._own: Runner | None = None
        self._lock = -1
        self._beat = 0.0
        """`boottime()` of the last beat that was committed."""

    @property
    def id(self) -> str | None:
        """The runner that joined."""
        return None if self._own is None else self._own.id

    async def beating(self, work: Callable[[sqlite3.Connection], T], write: Write) -> T:
        """Do `work` in a transaction, with a beat in the same one when that is due."""
        own, now = self._own, boottime()
        if own is None or now - self._beat < own.lease_s * BEAT_SHARE:
            return await write(work)

        def both(connection: sqlite3.Connection) -> T:
            put(connection, own, now)
            return work(connection)

        done = await write(both)
        self._beat = max(self._beat, now)
        return done

    async def join(self, runner: Runner) -> None:
        await self.leave()
        try:
            self._lock = await asyncio.to_thread(take_lock, self._file, runner.id)
        except OSError as error:
            raise connect.translate(error, self._file) from error
        self._own = runner
        await self.renew()
        # Now that the row is there: who looked between lock and row has to look again.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(os.utime, folder_of(self._file))
        known = frozenset(one.id for one in await self.list())
        await asyncio.to_thread(tidy, self._file, known)

    async def leave(self) -> None:
        own, self._own = self._own, None
        if own is None:
            return
        lock, self._lock = self._lock, -1
        try:
            await self._write(lambda db: remove(db, own.id))
        finally:
            await asyncio.to_thread(drop_lock, self._file, own.id, lock)

    async def renew(self) -> None:
        own, now = self._own, boottime()
        if own is not None:
            await self._write(lambda db: put(db, own, now))
            self._beat = max(self._beat, now)

    @property
    def lease_left_s(self) -> float:
        return 0.0 if self._own is None else self._beat + self._own.lease_s - boottime()

    @property
    def changed(self) -> object:
        try:
            return folder_of(self._file).stat().st_mtime_ns
        except OSError:
            return None

    async def list(self) -> list[Runner]:
        return await self._read(lambda db: listing(db, self._file, self.id))

    async def bury(self, runner_id: str) -> None:
        await self._write(lambda db: remove(db, runner_id))
        await asyncio.to_thread(tidy, self._file, frozenset(one.id for one in await self.list()))

    async def claims(self, interaction_ids: Sequence[str]) -> dict[str, Claim]:
        ids = list(interaction_ids)
        return await self._read(lambda db: claims(db, ids))

    async def take_queued(self, interaction_id: str, was: str | None) -> bool:
        own = self.id
        return await self._write(lambda db: turns.take_queued(db, interaction_id, was, own))

    async def ask_cancel(self, interaction_id: str, now: float) -> None:
        await self._write(lambda db: turns.ask_cancel(db, interaction_id, now))


def folder_of(file: Path) -> Path:
    """Where the lock files of a database's runners are."""
    return file.with_name(file.name + "-runners")


def take_lock(file: Path, runner_id: str) -> int:
    """Make the runner's lock file and lock it for as long as this process lives. Blocking.

    Raises:
        OSError: the file cannot be made.
    """
    folder = folder_of(file)
    path = folder / f"{runner_id}.lock"
    give_up = time.monotonic() + _LOCK_WAIT_S
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except FileNotFoundError:
            # The last one to leave took the folder with it.
            continue
        # Another process may be looking whether it is held, or have tidied it away in this very moment.
        if _lock(fd) and _there(path, fd):
            return fd
        os.close(fd)
        if time.monotonic() > give_up:
            raise OSError(f"{path} cannot be locked")
        time.sleep(0.01)


def drop_lock(file: Path, runner_id: str, fd: int) -> None:
    """Free the lock and remove its file. Blocking."""
    (folder_of(file) / f"{runner_id}.lock").unlink(missing_ok=True)
    os.close(fd)
    with contextlib.suppress(OSError):
        folder_of(file).rmdir()


def put(connection: sqlite3.Connection, runner: Runner, beat: float) -> None:
    """Insert the runner, or note its beat at `beat` (boottime)."""
    values = (runner.id, runner.version, runner.pid, boot_id(), runner.started_at, time.time(), beat, runner.lease_s)
    connection.execute(_INSERT, values)


def remove(connection: sqlite3.Connection, runner_id: str) -> None:
    connection.execute("DELETE FROM runners WHERE id = ?", (runner_id,))


def listing(connection: sqlite3.Connection, file: Path, own: str | None) -> list[Runner]:
    """Every runner with how long it has been silent and whether its process is gone."""
    found = connection.execute("SELECT id, version, pid, boot, started_at, beat_at, beat, lease_s FROM runners")
    here, now = boot_id(), boottime()
    runners: list[Runner] = []
    for id, version, pid, boot, started_at, beat_at, beat, lease_s in found:
        rebooted = boot != here or beat > now + 1
        gone = False if id == own else rebooted or _gone(folder_of(file) / f"{id}.lock")
        silent = lease_s if rebooted else max(0.0, now - beat)
        runners.append(Runner(id, started_at, version, pid, lease_s, beat_at, silent, gone))
    return runners


def tidy(file: Path, known: frozenset[str]) -> None:
    """Remove the lock files of runners that are gone and have no row. Blocking."""
    for path in folder_of(file).glob("*.lock"):
        if path.stem in known:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            try:
                if _lock(fd):
                    path.unlink(missing_ok=True)
            finally:
                os.close(fd)


def claims(connection: sqlite3.Connection, ids: list[str]) -> dict[str, Claim]:
    """How each of these stands that is still there."""
    found = connection.execute(
        "SELECT id, epoch, status, cancel_asked_at IS NOT NULL FROM interactions"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (rows.dump(ids),),
    )
    return {row[0]: Claim(row[1], row[2], bool(row[3])) for row in found}


def _gone(path: Path) -> bool:
    """Whether nobody holds the lock. A file that is missing tells nothing: its owner's silence has to."""
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        return _lock(fd)
    finally:
        os.close(fd)


def _there(path: Path, fd: int) -> bool:
    try:
        found, held = path.stat(), os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def _lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
