"""Who has an environment, over all daemons on one data folder: a lock on its folder, and a note of who had it last.

The lock is outside of what a sandbox sees, and goes with its holder's process. Nobody is told when it is free: who
waits looks now and then, one at a time in each daemon, and in turn with those of other daemons (a lock on the note).

A daemon that stands still keeps its locks. The run that it had may be another's by then, which does not wait for it: it
keeps the turn instead, so that nobody comes between when the sleeper wakes and lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from interactd.errors import StorageError
from interactd.ids import PREFIXES
from interactd.sandbox.folder import locks

NOTE: Final = "holder"
_SIZE: Final = 128
"""Of a note: written in one piece, over the same bytes each time, so that a full disk takes it too."""
PASS_S: Final = 4.0
"""How long a runner that lost its run, and lives, has to see that and stop."""
_PAUSES_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
T = TypeVar("T")


class Claim:
    """An environment that is this daemon's, until `close`. `moved`: another may have had it since it last was."""

    def __init__(self, fd: int, *, moved: bool) -> None:
        self._fd = fd
        self.moved = moved

    def close(self) -> None:
        """Free it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


async def make(folder: Path) -> Claim:
    """Make a folder that is claimed from its beginning.

    Raises:
        BlockingIOError: somebody else has it.
        OSError: it cannot be made.
    """

    def begin() -> Claim:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Claim(locks.make(folder), moved=False)

    return await _in_thread(begin, _close)


async def alone(folder: Path) -> Claim:
    """Claim a folder that is held by others for moments only, as soon as none does.

    Raises:
        OSError: it cannot be made or opened.
    """

    def look() -> Claim | None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = locks.take(folder)
        return None if fd is None else Claim(fd, moved=False)

    while (claim := await _in_thread(look, _close)) is None:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_PAUSES_S[0])
    return claim


class Claims:
    """The claims of one daemon on the environments beneath `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own = secrets.token_hex(8)

    async def wait(self, id: str, holder: str) -> Claim:
        """Claim an environment, as soon as no other daemon has it. One that has no folder is had at once.

        Raises:
            StorageError: its lock cannot be opened.
        """
        waiter = _Waiter(self._root / id, self._own, holder)
        pauses = iter(_PAUSES_S)
        try:
            while (claim := await _in_thread(waiter.look, _close)) is None:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(next(pauses, _PAUSES_S[-1]))
            return claim
        except OSError as error:
            raise StorageError(
                f"environment {id} cannot be locked: {error.strerror or error}",
                repair="See that interactd's data folder can be read and written, then try again.",
            ) from error
        finally:
            waiter.close()

    async def holder(self, id: str) -> str | None:
        """Who has it now in another daemon, or in this one."""
        folder = self._root / id

        def look() -> str | None:
            taken = locks.taken(folder) or locks.taken(folder / NOTE)
            return (_read(folder)[1] or "another daemon") if taken else None

        return await asyncio.to_thread(look)

    async def moved(self, ids: Iterable[str]) -> set[str]:
        """Those that another daemon had since this one did."""
        asked = list(ids)
        if not asked:
            return set()
        return await asyncio.to_thread(lambda: {id for id in asked if _read(self._root / id)[0] != self._own})


class _Waiter:
    """One look after another, in threads."""

    def __init__(self, folder: Path, own: str, holder: str) -> None:
        self._folder, self._own, self._holder = folder, own, holder
        self._began = time.monotonic()
        self._turn = -1
        self._closed = False
        # Held for a few system calls that wait for nothing.
        self._looking = threading.Lock()

    def look(self) -> Claim | None:
        with self._looking:
            return None if self._closed else self._look()

    def _look(self) -> Claim | None:
        if not self._next():
            return None
        try:
            fd = locks.take(self._folder)
        except FileNotFoundError:
            # Nothing there to be kept from others; its row says what became of it.
            return Claim(-1, moved=True)
        if fd is None and self._inherits():
            fd, self._turn = self._turn, -1
        if fd is None:
            return None
        moved = _read(self._folder)[0] != self._own
        # A disk that takes no note must still be had, to make room on it.
        with contextlib.suppress(OSError):
            _write(self._folder, f"{self._own} {self._holder}")
        return Claim(fd, moved=moved)

    def _inherits(self) -> bool:
        """Whether who has it had it for this very run. Runs have one runner at a time: that one was taken for dead."""
        return (
            self._turn >= 0
            and self._holder.startswith(PREFIXES["interaction"])
            and time.monotonic() - self._began > PASS_S
            and _read(self._folder)[1] == self._holder
        )

    def _next(self) -> bool:
        """Whether it is this daemon's turn: else the one that frees it most often would always be the next."""
        if self._turn >= 0:
            return True
        try:
            # Not made here: whoever has it may be removing the folder.
            fd = os.open(self._folder / NOTE, _FLAGS)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._turn = fd
        return True

    def close(self) -> None:
        """Let others have the turn."""
        with self._looking:
            self._closed = True
            if self._turn >= 0:
                os.close(self._turn)
                self._turn = -1


def _read(folder: Path) -> tuple[str | None, str | None]:
    """The daemon and the run that had it last."""
    try:
        fd = os.open(folder / NOTE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None, None
    try:
        daemon, _, holder = os.read(fd, _SIZE).decode(errors="replace").strip().partition(" ")
    finally:
        os.close(fd)
    return daemon or None, holder or None


def _write(folder: Path, text: str) -> None:
    fd = os.open(folder / NOTE, _FLAGS | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, text.encode()[:_SIZE].ljust(_SIZE), 0)
    finally:
        os.close(fd)


def _close(claim: Claim | None) -> None:
    if claim is not None:
        claim.close()


async def _in_thread(work: Callable[[], T], undo: Callable[[T], None]) -> T:
    """Do what never waits in a thread; what it got is given back when nobody waits for it any more."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else undo(done.result()))
        raise
