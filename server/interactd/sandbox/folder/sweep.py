"""Looking at everything in a tree that hostile code made, however deep, wide and hidden it is: to measure it, or give
it to somebody. The memory that takes does not grow with the tree's depth times its width."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Final

from interactd.sandbox.folder import beneath

_WINDOW: Final = 1024
"""Bytes of path after which a folder's own descriptor takes the place of the path to it."""
_WINDOWS: Final = 100
MOST: Final = 4_000_000
"""More things than this are not looked at: code that moves folders about could make it go on for ever."""
Entry = os.DirEntry[str]


def sweep(root: int, see: Callable[[int, Entry], None]) -> bool:
    """Call `see` with the open folder and the entry for everything beneath `root`; returns whether it saw all of it."""
    return _Sweep(see).look(root, 0)


class _Sweep:
    def __init__(self, see: Callable[[int, Entry], None]) -> None:
        self._see = see
        self._left = MOST

    def look(self, root: int, level: int) -> bool:
        whole, left = True, [b""]
        while left:
            where = left.pop()
            try:
                fd = beneath.open_folder(root, where) if where else os.dup(root)
            except PermissionError:
                whole = self._closed(root, where, level) and whole
                continue
            except OSError as error:
                whole = whole and error.errno in beneath.SWAPPED
                continue
            try:
                if len(where) > _WINDOW:
                    whole = level < _WINDOWS and self.look(fd, level + 1) and whole
                    continue
                with os.scandir(fd) as entries:
                    for entry in entries:
                        self._left -= 1
                        if self._left < 0:
                            return False
                        self._see(fd, entry)
                        if entry.is_dir(follow_symlinks=False):
                            name = os.fsencode(entry.name)
                            left.append(where + b"/" + name if where else name)
            finally:
                os.close(fd)
        return whole

    def _closed(self, root: int, where: bytes, level: int) -> bool:
        """Look into a folder that code which runs as us closed, even to itself, and leave it as it was."""
        parent, _, name = where.rpartition(b"/")
        modes: list[int] = []

        def open_up(mode: int) -> int:
            modes.append(mode)
            return mode | 0o700

        try:
            above = beneath.open_folder(root, parent)
        except OSError as error:
            return error.errno in beneath.SWAPPED
        try:
            beneath.change_mode(above, name, open_up)
            fd = beneath.open_folder(above, name)
            try:
                return level < _WINDOWS and self.look(fd, level + 1)
            finally:
                os.close(fd)
                beneath.change_mode(above, name, lambda _mode: modes[0])
        except OSError as error:
            return error.errno in beneath.SWAPPED
        finally:
            os.close(above)


def measure(root: int) -> tuple[int, int]:
    """Return the bytes that a tree takes on the disk, and how many files are in it."""
    size, files, _whole = weigh(root)
    return size, files


def weigh(root: int) -> tuple[int, int, bool]:
    """As `measure`, and whether all of it could be looked at."""
    size = files = 0

    def see(_folder: int, entry: Entry) -> None:
        nonlocal size, files
        with contextlib.suppress(OSError):
            info = entry.stat(follow_symlinks=False)
            size += info.st_blocks * 512
            files += not stat.S_ISDIR(info.st_mode)

    whole = sweep(root, see)
    return size, files, whole


def give(root: int, uid: int, gid: int, *, linked: bool = False) -> None:
    """Make a tree belong to somebody, but (unless `linked`) for files with further names, which may not be this
    tree's alone. The folder itself comes last: if it is theirs, all of it is.

    What belongs to them already is not touched: a change would show as a change of the file.

    Raises:
        OSError: the folder itself cannot be changed.
    """

    def see(folder: int, entry: Entry) -> None:
        with contextlib.suppress(OSError):
            info = entry.stat(follow_symlinks=False)
            shared = not linked and stat.S_ISREG(info.st_mode) and info.st_nlink > 1
            if not shared and (info.st_uid, info.st_gid) != (uid, gid):
                os.chown(entry.name, uid, gid, dir_fd=folder, follow_symlinks=False)

    sweep(root, see)
    os.fchown(root, uid, gid)
