"""Whether other daemons use the same folder: what is half-made in it is theirs then, and not a dead one's."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: one daemon a user, and no sandbox
    fcntl = None


class Presence:
    """A lock that every daemon using the folder shares, from `enter` to `leave` or its end."""

    def __init__(self, file: Path) -> None:
        """`file` is made and stays; it must not lie in what is tidied."""
        self._path = file
        self._fd = -1

    def enter(self) -> bool:
        """Become one of those who use the folder; True when there is nobody else, who waits until `stay`. Blocking.

        Raises:
            OSError: the folder cannot be written.
        """
        if fcntl is None:
            return True
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            return False
        return True

    def stay(self) -> None:
        """What only one may do is done: others may come."""
        if fcntl is not None and self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be none of them any more. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
