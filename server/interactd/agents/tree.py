"""The files of a folder, read once and never through a link: what is hashed is what is used.

A project's folder is hostile: its entries may be links, pipes or devices, and there may be any number of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from interactd.agents.documents.text import printable, unprintable

MAX_FILES = 5000
MAX_BYTES = 64 * 1024 * 1024
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 12
MAX_PATH = 512
_BLOCK = 1 << 20
_LEFT_OUT = frozenset({".git", ".hg", ".svn", ".DS_Store", "Thumbs.db", "__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file. `source` is its path with all links resolved; `data` is there only where it was asked for."""

    source: str
    sha256: str
    size: int
    executable: bool
    data: bytes | None = None


@dataclass(slots=True)
class Tree:
    """A folder's files by their relative path (`/` between), its inner folders, and what is wrong: (path, message)."""

    root: Path
    folders: set[str] = field(default_factory=set[str])
    files: dict[str, Entry] = field(default_factory=dict[str, Entry])
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


class _TooMuch(Exception):
    """The folder is larger than an agent's may be."""


def scan(root: Path, *, keep: Callable[[str], int | None], only: Callable[[str], bool] | None = None) -> Tree:
    """Read a folder.

    Args:
        root: the folder; it may itself be a link.
        keep: gives how many bytes a file that must be kept in memory may have at most; None: hash it only.
        only: tells for an entry at the top whether to read it (default: all but what tools leave behind).

    Returns:
        The files and faults. With more than MAX_FILES files or MAX_BYTES bytes the reading stops early.
    """
    tree = Tree(root)
    try:
        _Scan(tree, keep, only).folder("", 0)
    except _TooMuch as error:
        tree.faults.append(("", str(error)))
    return tree


class _Scan:
    def __init__(self, tree: Tree, keep: Callable[[str], int | None], only: Callable[[str], bool] | None) -> None:
        self._tree = tree
        self._keep = keep
        self._only = only
        self._seen = 0
        self._bytes = 0
        self._real = os.path.realpath(tree.root)

    def folder(self, inner: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._fault(inner, f"expected at most {MAX_DEPTH} folders inside each other")
            return
        try:
            with os.scandir(self._tree.root / inner) as found:
                entries: list[os.DirEntry[str]] = []
                for entry in found:
                    if inner or self._only is None or self._only(entry.name):
                        self._count()
                        entries.append(entry)
        except OSError as error:
            self._fault(inner, f"cannot be read: {error.strerror or error}")
            return
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.name in _LEFT_OUT or entry.name.endswith(("~", ".swp", ".pyc")):
                continue
            self._entry(entry, f"{inner}/{entry.name}" if inner else entry.name, depth)

    def _entry(self, entry: os.DirEntry[str], path: str, depth: int) -> None:
        wrong = unprintable(entry.name)
        if wrong or "\n" in entry.name or "\t" in entry.name or "\\" in entry.name or not entry.name.isprintable():
            self._fault(path, "expected a name of printable characters without backslashes")
            return
        if len(path) > MAX_PATH:
            self._fault(path, f"expected a path of at most {MAX_PATH} characters, got {len(path)}")
            return
        try:
            if entry.is_symlink():
                self._link(entry, path)
            elif entry.is_dir(follow_symlinks=False):
                self._tree.folders.add(path)
                self.folder(path, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                self._file(entry.path, path)
            else:
                self._fault(path, "expected a file or a folder, got a device, pipe or socket")
        except OSError as error:
            self._fault(path, f"cannot be read: {error.strerror or error}")

    def _link(self, entry: os.DirEntry[str], path: str) -> None:
        target = os.path.realpath(entry.path)
        if not target.startswith(self._real + os.sep):
            self._fault(path, "is a link out of the folder; put a copy here")
        elif not Path(target).is_file():
            self._fault(
                path, "expected a link to a file, got one to " + ("a folder" if Path(target).is_dir() else "nothing")
            )
        else:
            self._file(target, path)

    def _file(self, source: str, path: str) -> None:
        limit = self._keep(path)
        most = MAX_FILE_BYTES if limit is None else limit
        digest = hashlib.sha256()
        kept = bytearray() if limit is not None else None
        size = 0
        with open_regular(source) as handle:
            info = os.fstat(handle.fileno())
            if info.st_size > most:
                self._fault(path, f"expected at most {most} bytes, got {info.st_size}")
                return
            while block := handle.read(_BLOCK):
                size += len(block)
                if size > most:
                    self._fault(path, f"expected at most {most} bytes, got more")
                    return
                digest.update(block)
                if kept is not None:
                    kept += block
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise _TooMuch(f"expected at most {MAX_BYTES // 1_048_576} MB in all, got more")
        executable = bool(info.st_mode & stat.S_IXUSR)
        self._tree.files[path] = Entry(
            source, digest.hexdigest(), size, executable, None if kept is None else bytes(kept)
        )

    def _count(self) -> None:
        self._seen += 1
        if self._seen > MAX_FILES:
            raise _TooMuch(f"expected at most {MAX_FILES} files and folders, got more")

    def _fault(self, path: str, message: str) -> None:
        if len(self._tree.faults) < 100:
            self._tree.faults.append((printable(path, 200), message))


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading, not through a link, and without waiting for a pipe's other end.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return handle
