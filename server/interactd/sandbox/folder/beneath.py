"""Opening what is beneath a folder, whatever the folder holds: no link is followed, no mount crossed.

Linux has openat2 for it; without it (older kernels, a filter around us, other systems) the path is walked one name at a
time, each opened as a real directory. Paths are bytes: names in a workspace are whatever the code in it made them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from interactd.errors import InvalidArgument

_SYS_OPENAT2: Final = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE: Final = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_O_PATH: Final = getattr(os, "O_PATH", 0)
_AGAIN: Final = 64
_PATH_MAX: Final = 4095
SWAPPED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What opening a folder says that became something else since it was listed."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class NotRegular(OSError):
    """There is something under the name, and it is not a plain file of one name. `kind` says what."""

    def __init__(self, kind: str) -> None:
        super().__init__(errno.EINVAL, kind)
        self.kind = kind


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_openat2_works: bool = sys.platform == "linux"


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` (relative, without `..`) beneath the directory `root`; the descriptor is not inherited.

    Raises:
        OSError: ELOOP for a link on the way, EXDEV for a mount or a way out, ENOENT, ENAMETOOLONG ...
    """
    global _openat2_works
    if len(path) > _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if _openat2_works:
        try:
            return _openat2(root, path, flags, mode)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            if error.errno == errno.ENOSYS:
                _openat2_works = False
    return _walk(root, path, flags, mode)


def _openat2(root: int, path: bytes, flags: int, mode: int) -> int:
    assert _libc is not None
    how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE)
    for _ in range(_AGAIN):
        fd = _libc.syscall(_SYS_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: something was renamed while the kernel looked, and it cannot swear to the answer.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EAGAIN, "the path is being renamed all the time")


def _walk(root: int, path: bytes, flags: int, mode: int) -> int:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    device = os.fstat(root).st_dev
    here = os.dup(root)
    try:
        for number, name in enumerate(names or [b"."]):
            last = number >= len(names) - 1
            wanted = flags if last else os.O_RDONLY | os.O_DIRECTORY
            fd = os.open(name, wanted | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
            os.close(here)
            here = fd
            found = os.fstat(here)
            if found.st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            if stat.S_ISLNK(found.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except BaseException:
        os.close(here)
        raise
    return here


def open_folder(root: int, path: bytes) -> int:
    """Open a directory beneath `root` for listing. The path may be longer than the system takes at once."""
    here = root
    try:
        while True:
            piece, path = _piece(path)
            fd = open_beneath(here, piece or b".", os.O_RDONLY | os.O_DIRECTORY)
            if here != root:
                os.close(here)
            here = fd
            if not path:
                return here
    except BaseException:
        if here != root:
            os.close(here)
        raise


def _piece(path: bytes) -> tuple[bytes, bytes]:
    if len(path) <= _PATH_MAX:
        return path, b""
    cut = path.rfind(b"/", 0, _PATH_MAX)
    return (path[:cut], path[cut + 1 :]) if cut > 0 else (path, b"")


def open_regular(root: int, path: bytes) -> tuple[int, os.stat_result]:
    """Open a plain file beneath `root` for reading, and say what was opened.

    It is looked at before it is opened: opening a device can already do something, opening a FIFO can wait.

    Raises:
        NotRegular: a folder, link, device, FIFO, socket, or a file with further names (hard links).
        OSError: as `open_beneath`.
    """
    if _O_PATH:
        look = open_beneath(root, path, _O_PATH | os.O_NOFOLLOW)
        try:
            seen = os.fstat(look)
        finally:
            os.close(look)
        _plain(seen)
    fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        _plain(found)
    except BaseException:
        os.close(fd)
        raise
    return fd, found


def _plain(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotRegular(kind_of(found.st_mode))
    if found.st_nlink > 1:
        raise NotRegular("a file with several names (hard links)")


def change_mode(folder: int, name: bytes, change: Callable[[int], int]) -> None:
    """Change the mode of what stands under `name` in an open folder. Not of what a link points to: chmod follows them.

    Raises:
        OSError: it is a link, or may not be changed.
    """
    fd = os.open(name, (_O_PATH or os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        wanted = change(stat.S_IMODE(mode))
        if _O_PATH:
            # A descriptor of this kind takes no fchmod; its name in /proc leads to what was opened and nothing else.
            Path(f"/proc/self/fd/{fd}").chmod(wanted)
        else:
            os.fchmod(fd, wanted)
    finally:
        os.close(fd)


def kind_of(mode: int) -> str:
    """Return what a mode is, for people."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "not a plain file")


def inside(path: str, base: str = "/workspace") -> bytes:
    """Turn what a caller gave as a path into one relative to the folder that stands at `base`.

    What is relative is so to /workspace. `..` is worked out on the text alone, before any file is looked at. An empty
    result is the folder itself.

    Raises:
        InvalidArgument: it leaves the folder, or cannot be a path.
    """
    given = os.fsencode(path)
    if b"\0" in given or not given.strip():
        raise InvalidArgument("path: expected a path such as notes/plan.md", field="path")
    names: list[bytes] = []
    for name in (given if given.startswith(b"/") else b"/workspace/" + given).split(b"/"):
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not names:
                raise _outside(path, base)
            names.pop()
            continue
        if len(name) > 255:
            raise InvalidArgument("path: a name may have at most 255 bytes", field="path")
        names.append(name)
    top = [os.fsencode(name) for name in base.split("/") if name]
    if names[: len(top)] != top:
        raise _outside(path, base)
    joined = b"/".join(names[len(top) :])
    if len(joined) > _PATH_MAX:
        raise InvalidArgument("path: it is longer than 4095 bytes", field="path")
    return joined


def _outside(path: str, base: str) -> InvalidArgument:
    shown = path if len(path) < 200 else path[:200] + "..."
    return InvalidArgument(
        f"path: {shown!r} is outside of {base}",
        repair=f"Give a path inside {base}; other places are seen only by code that runs in the sandbox.",
        field="path",
    )
