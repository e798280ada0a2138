"""Which daemons use a disk image, told by locks on it that go with their processes.

Each that has it mounted, or is about to, has a share of its `flock`. A lock of another kind says whose turn it is to
mount it: two at once would each put a device over it, and that destroys what is in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

_OPEN: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_TURN_S: Final = 120.0
"""Longer than a check of a damaged image takes."""


def share(image: Path) -> int:
    """Take a share. It goes with the descriptor that is returned, or with this process. Blocking while somebody
    unmounts it."""
    fd = os.open(image, os.O_RDONLY | _OPEN)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def drop(fd: int) -> None:
    """Give a share up; -1 is none."""
    if fd >= 0:
        os.close(fd)


def alone(fd: int) -> bool:
    """Whether nobody else has a share; then nobody gets one until this descriptor is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def nobodys(image: Path) -> Generator[bool]:
    """Whether no daemon that lives has this image mounted, nor can come to have it meanwhile."""
    try:
        fd = os.open(image, os.O_RDONLY | _OPEN)
    except OSError:
        yield True
        return
    try:
        yield alone(fd)
    finally:
        os.close(fd)


def in_use(image: Path) -> bool:
    """Whether a daemon that lives has a share."""
    with nobodys(image) as free:
        return not free


@contextlib.contextmanager
def turn(image: Path) -> Generator[None]:
    """Be the only one who looks whether an image is mounted, and mounts it. Blocking.

    Raises:
        OSError: another process took too long.
    """
    fd = os.open(image, os.O_RDWR | _OPEN)
    try:
        _wait(fd)
        yield
    finally:
        os.close(fd)


def _wait(fd: int) -> None:
    # Of this descriptor, not of the process: those are lost when any descriptor of the file is closed.
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    give_up = time.monotonic() + _TURN_S
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return
        if time.monotonic() > give_up:
            raise OSError(errno.ETIMEDOUT, "another daemon is mounting it for too long")
        time.sleep(0.01)
