"""Weight files on disk: where one is, whether its bytes are right, and who may fetch it now.

A file under its hash's name in our own folder got there by a rename after its hash was checked. A folder given by a
user was filled by somebody else, so a file is read through once before its first use; a note of its size and time makes
later checks free.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import BinaryIO, Literal, Protocol

from interactd.errors import Conflict
from interactd.models.embedded.weights.table import Weights

BLOCK = 1 << 20
Phase = Literal["waiting", "downloading", "verifying", "source_failed", "ready"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a setup stands. `done` and `total` are bytes of the whole file; `message` is a sentence or empty."""

    phase: Phase
    done: int
    total: int
    source: str
    message: str = ""


Report = Callable[[Progress], None]


class Killable(Protocol):
    def kill(self) -> None: ...


class Cancelled(Exception):
    """Somebody asked the setup to stop. What arrived is kept."""


@dataclass(slots=True)
class Cancel:
    """A stop signal that another thread may set; it also kills the child process bound to it."""

    _event: Event = field(default_factory=Event)
    _child: Killable | None = None
    _lock: Lock = field(default_factory=Lock)

    def set(self) -> None:
        with self._lock:
            self._event.set()
            if self._child is not None:
                self._child.kill()

    def bind(self, child: Killable | None) -> None:
        with self._lock:
            self._child = child
            if child is not None and self._event.is_set():
                child.kill()

    def check(self) -> None:
        """Raises:
        Cancelled: `set` was called.
        """
        if self._event.is_set():
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until `set`."""
        self._event.wait(seconds)
        self.check()


def candidates(entry: Weights, ours: Path, extra: Path | None) -> list[Path]:
    """Return where the file may be, our own folder first."""
    places = [ours / entry.file]
    if extra is not None:
        places += [extra / entry.file, extra / entry.filename]
    return places


def find(entry: Weights, ours: Path, extra: Path | None) -> Path | None:
    """Return the first place that has a file of the right size, or None. Reads no content."""
    for place in candidates(entry, ours, extra):
        try:
            if place.stat().st_size == entry.bytes:
                return place
        except OSError:
            continue
    return None


def is_right(path: Path, entry: Weights, ours: Path, report: Report, cancel: Cancel) -> bool:
    """Say whether the file has the entry's hash; reads it only if it changed since it was last found right.

    Raises:
        OSError: it cannot be read.
        Cancelled: asked to stop.
    """
    info = path.stat()
    expected = note(info)
    places = (path.with_name(entry.sha256 + ".ok"), ours / f"{entry.sha256}.ok")
    if info.st_size != entry.bytes:
        return False
    for place in places:
        with contextlib.suppress(OSError):
            if place.read_bytes() == expected:
                return True
    if digest(path, report, cancel) != entry.sha256:
        return False
    for place in places:
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with private(place, os.O_WRONLY | os.O_TRUNC) as file:
                file.write(expected)
            break
        except OSError:
            # A read-only folder of the user's: the note goes into ours, or the next start reads the file again.
            continue
    return True


def note(info: os.stat_result) -> bytes:
    """What is kept beside a file that was found right: enough to see that it changed."""
    return f"{info.st_size} {info.st_mtime_ns}\n".encode()


def digest(path: Path, report: Report, cancel: Cancel) -> str:
    """Return the SHA-256 of a file as hex."""
    total = path.stat().st_size
    seen = 0
    pulse = Pulse(report)
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            cancel.check()
            hashed.update(block)
            seen += len(block)
            pulse(Progress("verifying", seen, total, str(path)))
    return hashed.hexdigest()


def private(path: Path, flags: int) -> BinaryIO:
    """Open a file for binary writing that only this user can read; made if it is not there, never truncated unless
    `flags` say so."""
    return open(os.open(path, flags | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "wb")


class Pulse:
    """Passes on at most ten reports a second, and always the last byte."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next or progress.done >= progress.total:
            self._next = now + 0.1
            self._report(progress)


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[], None], cancel: Cancel, timeout_s: float) -> Generator[None]:
    """Hold a lock that ends with the process, so that a killed setup never blocks the next one.

    Raises:
        Conflict: somebody else held it for the whole of `timeout_s`.
    """
    with private(path, os.O_RDWR) as file:
        deadline = time.monotonic() + timeout_s
        told = False
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise Conflict(
                    f"Another setup has been fetching the same weights for {timeout_s:.0f} s.",
                    repair="Wait for it to finish, or end it; what it fetched is kept.",
                )
            if not told:
                waiting()
                told = True
            cancel.sleep(0.2)
        yield


if os.name == "posix":
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
else:
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        except OSError:
            return False
        return True
