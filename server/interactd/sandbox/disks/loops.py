"""Loop devices and mounts by system calls: no program is started for them, so that they cost milliseconds.

All of it blocks and needs CAP_SYS_ADMIN. A device is made with autoclear: it goes with its last user, be that a mount
or, after a kill between the two, this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CTL_GET_FREE, _CONFIGURE, _CLR_FD, _GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C01, 0x4C05
_AUTOCLEAR: Final = 4
_INFO: Final = "=QQQQQIIII64s64s32sQQ"
_FREEZE, _THAW, _TRIM = 0xC0045877, 0xC0045878, 0xC0185879
_NOSUID, _NODEV, _NOATIME = 0x2, 0x4, 0x400
_BIND, _SHARED = 0x1000, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_OPTIONS: Final = b"errors=remount-ro,data_err=abort,noinit_itable"
_TRIES: Final = 64
_BUSY_S: Final = 2.0

_libc = ctypes.CDLL(None, use_errno=True)


def attach(image: Path) -> tuple[int, str]:
    """Return an open descriptor of a loop device over a file, and the device's path.

    A device that is over that very file already (one that a process somewhere still holds) is used again: two of them
    over one file system would destroy it.

    Raises:
        OSError: no device can be had.
    """
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        info = os.fstat(backing)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "the image is no plain file")
        for device in devices_over(info.st_dev, info.st_ino):
            with contextlib.suppress(OSError):
                return os.open(device, os.O_RDWR | os.O_CLOEXEC), device
        return _configure(backing)
    finally:
        os.close(backing)


def _configure(backing: int) -> tuple[int, str]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            info = struct.pack(_INFO, 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0)
            try:
                fcntl.ioctl(fd, _CONFIGURE, struct.pack("=II", backing, 0) + info + bytes(64))
                return fd, device
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # another process was faster
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "every loop device was taken while it was opened")


def devices_over(device: int, inode: int) -> list[str]:
    """Return the loop devices whose backing file is this one."""
    found: list[str] = []
    for entry in Path("/sys/block").glob("loop*/loop"):
        path = f"/dev/{entry.parent.name}"
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = fcntl.ioctl(fd, _GET_STATUS64, bytes(struct.calcsize(_INFO)))
            finally:
                os.close(fd)
            if struct.unpack_from("=QQ", data) == (device, inode):
                found.append(path)
    return found


def mount(device: str, target: Path) -> None:
    """Mount an ext4 file system, nosuid and nodev.

    Raises:
        OSError: it cannot be; EUCLEAN, EINVAL or EIO where it is damaged.
    """
    flags = ctypes.c_ulong(_NOSUID | _NODEV | _NOATIME)
    if _libc.mount(device.encode(), os.fsencode(target), b"ext4", flags, _OPTIONS) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def share(folder: Path) -> None:
    """See to it that what is unmounted beneath a folder is so in every mount namespace that was copied meanwhile.

    Systemd has the whole tree so; elsewhere the folder becomes a mount of its own.

    Raises:
        OSError: it cannot be.
    """
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best, shared = -1, False
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.partition(" - ")[0].split()
        target = _plain(words[4])
        if words[2] == number and folder.is_relative_to(target) and len(target) >= best:
            best, shared = len(target), any(word.startswith("shared:") for word in words[6:])
    if shared:
        return
    path = os.fsencode(folder)
    for flags in (_BIND, _SHARED):
        if _libc.mount(path, path, None, ctypes.c_ulong(flags), None) < 0:
            number_ = ctypes.get_errno()
            raise OSError(number_, os.strerror(number_), str(folder))


def unmount(target: Path, patience_s: float = _BUSY_S) -> None:
    """Unmount, waiting a moment for whoever still has something open in it, then without waiting.

    Raises:
        OSError: it cannot be; what is not mounted is fine.
    """
    deadline = time.monotonic() + patience_s
    while _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW) < 0:
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):
            return
        if number != errno.EBUSY:
            raise OSError(number, os.strerror(number), str(target))
        if time.monotonic() > deadline:
            if _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW | _MNT_DETACH) < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(target))
            return
        time.sleep(0.01)


@contextlib.contextmanager
def frozen(folder: Path) -> Generator[None]:
    """Hold still a mounted file system, with everything on its device."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FREEZE, 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # thawed already, by a daemon that took this one for dead
                fcntl.ioctl(fd, _THAW, 0)
    finally:
        os.close(fd)


def thaw(folder: Path) -> None:
    """Undo what a killed process froze; fine when nothing is frozen."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _THAW, 0)
        finally:
            os.close(fd)


def sync(folder: Path) -> None:
    """Write the file system that a folder is on down to the disk that holds its image. Blocking.

    Raises:
        OSError: that disk is full, or broken.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def trim(folder: Path) -> None:
    """Give room that is free inside back to the disk that holds the image. Best effort: not every disk can."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _libc.syncfs(fd)  # what was deleted is free once that is on the disk
            fcntl.ioctl(fd, _TRIM, struct.pack("=QQQ", 0, (1 << 64) - 1, 0))
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of the mount table."""

    target: Path
    device: str


def mounts_below(root: Path) -> list[Mounted]:
    """Return what is mounted beneath a folder, and on it, innermost first."""
    found: list[Mounted] = []
    inside = f"{root}/"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words, _, more = line.partition(" - ")
        target = _plain(words.split()[4])
        if target == str(root) or target.startswith(inside):
            found.append(Mounted(Path(target), _plain(more.split()[1])))
    return sorted(found, key=lambda one: len(one.target.parts), reverse=True)


def mounts_of(device: int) -> list[Path]:
    """Return where the file system with this number is mounted, whatever its folder is called by now."""
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [Path(_plain(words[4])) for words in map(str.split, lines) if words[2] == number]


def _plain(word: str) -> str:
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(octal, plain)
    return word


def release_below(root: Path, unless: Callable[[Path], bool]) -> int:
    """Detach every loop device whose backing file is (or was) beneath a folder, unless that is said to be in use;
    returns how many."""
    count = 0
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = entry.read_text().rstrip("\n")
            if not backing.startswith(f"{root}/") or unless(Path(backing)):
                continue
            fd = os.open(f"/dev/{entry.parent.parent.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _CLR_FD)
                count += 1
            finally:
                os.close(fd)
    return count
