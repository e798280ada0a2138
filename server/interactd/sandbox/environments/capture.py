"""Keeping the files that a run made: which are new, which may be kept, and what was left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from interactd.nouns import Json
from interactd.sandbox.environments import mime
from interactd.sandbox.environments.contents import Contents
from interactd.sandbox.folder import beneath, trees
from interactd.sandbox.folder.names import shown

SPARSE_BYTES: Final = 16 << 20
SKIPPED: Final = frozenset(
    {b".git", b"__pycache__", b"node_modules", b".venv", b"venv", b".cache", b".ipynb_checkpoints", b".pytest_cache"}
)
LISTED: Final = 50


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """How much of one run is kept."""

    files: int = 10_000
    total_bytes: int = 2 << 30
    file_bytes: int = 512 << 20
    looked_at: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that lies in `tmp`, ready to be published."""

    part: Path
    name: str
    sha256: str
    size_bytes: int
    mime_type: str


@dataclass(slots=True)
class Captured:
    """All of a capture. `left_out` has one entry a reason: `{"reason", "count", "names" (some)}`."""

    kept: list[Kept] = field(default_factory=list[Kept])
    reasons: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def leave(self, name: bytes, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        listed = self.reasons.setdefault(reason, [])
        if len(listed) < LISTED:
            listed.append(shown(name))

    @property
    def left_out(self) -> list[Json]:
        return [
            {"reason": reason, "count": self.counts[reason], "names": names} for reason, names in self.reasons.items()
        ]


def capture(workspace: Path, contents: Contents, *, since_ns: int, limits: CaptureLimits) -> Captured:
    """Copy every file whose inode changed after `since_ns` to the contents' `tmp`. Blocking.

    The workspace may change meanwhile. A file is looked at by the descriptor that is read, reached without following
    anything, so that the worst a swap can do is that other bytes of the workspace are kept.
    """
    done = Captured()
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _capture(root, contents, since_ns, limits, done)
        contents.settle([kept.part for kept in done.kept])
    except BaseException:
        for kept in done.kept:
            kept.part.unlink(missing_ok=True)
        raise
    finally:
        os.close(root)
    return done


def _capture(root: int, contents: Contents, since_ns: int, limits: CaptureLimits, done: Captured) -> None:
    total = 0

    def into(found: trees.Found) -> bool:
        name = found.path.rpartition(b"/")[2]
        if name in SKIPPED or name.startswith(b".gone-") or _is_venv(root, found.path):
            if found.stat.st_ctime_ns > since_ns:
                done.leave(found.path, "folders of tools (caches, packages, version control) are not kept")
            return False
        return True

    for number, found in enumerate(trees.walk(root, into=into)):
        if number >= limits.looked_at:
            done.leave(found.path, f"only the first {limits.looked_at} files were looked at")
            return
        if found.problem:
            done.leave(found.path, found.problem)
            continue
        if found.kind == "directory" or found.stat.st_ctime_ns <= since_ns:
            continue
        if found.kind != "file":
            done.leave(found.path, "links are not followed" if found.kind == "link" else "no plain file")
            continue
        if len(done.kept) >= limits.files:
            done.leave(found.path, f"more than {limits.files} files")
            continue
        try:
            kept = _one(root, found.path, contents, limits, limits.total_bytes - total)
        except beneath.NotRegular as error:
            done.leave(found.path, f"it is {error.kind}")
            continue
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.filename is not None and str(error.filename).startswith(str(contents.root)):
                raise
            done.leave(found.path, f"it could not be read: {error.strerror}")
            continue
        if isinstance(kept, str):
            done.leave(found.path, kept)
            continue
        total += kept.size_bytes
        done.kept.append(kept)


def _one(root: int, path: bytes, contents: Contents, limits: CaptureLimits, room: int) -> Kept | str:
    fd, info = beneath.open_regular(root, path)
    try:
        if info.st_size > limits.file_bytes:
            return f"larger than {limits.file_bytes >> 20} MB"
        if info.st_size > room:
            return f"more than {limits.total_bytes >> 20} MB together"
        if info.st_size > SPARSE_BYTES and _data_bytes(fd, info.st_size) * 2 < info.st_size:
            return "mostly holes (a sparse file)"
        part, sha256, size, first = contents.take(fd, info.st_size)
    finally:
        os.close(fd)
    name = shown(path)
    return Kept(part, name, sha256, size, mime.guess(name, first))


def _data_bytes(fd: int, size: int) -> int:
    at = total = pieces = 0
    while at < size and pieces < 100_000:
        begin, end = trees.data_at(fd, at, size)
        total += end - begin
        at = max(end, at + 1)
        pieces += 1
    return total


def _is_venv(root: int, path: bytes) -> bool:
    try:
        os.close(beneath.open_beneath(root, path + b"/pyvenv.cfg", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError:
        return False
    return True
