"""A folder that one process at a time has to itself.

The lock is the kernel's, on the folder: it goes along when that is renamed, is gone when that is removed, and is free
when its holder dies, however that happens. Nothing here waits for a lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE_S: Final = 2.0


def take(folder: Path) -> int | None:
    """Lock what is there under a name. Closing the descriptor that is returned frees it; None: somebody has it.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be opened; a link is not followed.
    """
    fd = os.open(folder, _FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it until now may have renamed or removed it since it was opened.
        there, held = folder.lstat(), os.fstat(fd)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
        return fd
    os.close(fd)
    return None


def make(folder: Path) -> int:
    """Make a folder, 0700, that is locked before anybody can take it for a dead process's; or lock it, if it is there.
    Blocking, for 2 s at most.

    Raises:
        BlockingIOError: somebody else has it.
        OSError: it cannot be made.
    """
    give_up = time.monotonic() + _MAKE_S
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = take(folder)
        except FileNotFoundError:
            fd = None
        if fd is not None:
            return fd
        if time.monotonic() > give_up:
            raise BlockingIOError(f"{folder.name} is held by another process")
        # Whoever cleans may have taken it, as nobody's, between the two calls.
        time.sleep(0.01)


def taken(folder: Path) -> bool:
    """Whether somebody holds it now; what is not there is held by nobody."""
    try:
        fd = os.open(folder, _FLAGS)
    except OSError:
        return False
    try:
        # A share, so that two who only look do not take each other for a holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
