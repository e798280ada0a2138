"""The lock that makes a process the user's daemon. Held for life; the kernel gives it back whatever kills us."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from interactd.paths import Paths


class Lock:
    """Only one process has it. Never released by hand: what the holder leaves half done must not be seen."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def acquire(cls, paths: Paths) -> Lock | None:
        """Return the lock, or None when another process has it. Waits 0.2 s at most.

        Raises:
            OSError: the file cannot be made.
        """
        give_up = time.monotonic() + 0.2
        while True:
            fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            lock = cls(paths.lock, fd)
            # A file that was removed between opening and locking is a lock that nobody else will ever meet.
            if _take(fd) and lock.still_ours():
                return lock
            os.close(fd)
            if time.monotonic() > give_up:
                return None
            time.sleep(0.02)  # somebody may only be asking whether it is held

    def still_ours(self) -> bool:
        """False when the file we hold is no longer the one at the path: another daemon could get another lock."""
        try:
            there, held = self._path.stat(), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def held(paths: Paths) -> bool:
    """Say whether some process is the daemon now."""
    try:
        fd = os.open(paths.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _take(fd)
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
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
