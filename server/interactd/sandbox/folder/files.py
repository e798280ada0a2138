"""What the file tools do to a workspace from outside: read, write, list, delete one thing at a time.

All of it is blocking and short: callers run it on a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import Final, TypeVar

from interactd.errors import InvalidArgument, NotFound, SandboxFailed
from interactd.nouns import Json
from interactd.sandbox.folder import beneath, trees
from interactd.sandbox.folder.names import meant, shown

T = TypeVar("T")
READ_MAX: Final = 16 << 20
LIST_MAX: Final = 100_000


class Folder:
    """One folder of the host that stands at `base` in the sandbox."""

    def __init__(self, path: os.PathLike[str], base: str = "/workspace", *, read_only: bool = False) -> None:
        self.base = base
        self.read_only = read_only
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset` on."""
        if offset < 0 or limit < 0:
            raise InvalidArgument("offset and limit cannot be negative", field="offset")

        def run(where: bytes) -> bytes:
            fd, _ = beneath.open_regular(self.fd, where)
            try:
                return os.pread(fd, min(limit, READ_MAX), offset)
            finally:
                os.close(fd)

        return self._existing(path, run)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file: it is there as before or as it should be, never in between. Folders are made."""
        where = self._writable(path)
        if not where:
            raise InvalidArgument(f"path: {path!r} is the workspace itself", field="path")

        def run(where: bytes) -> None:
            parent, _, name = where.rpartition(b"/")
            folder = self._make_folders(parent)
            try:
                self._write(folder, name, data)
            finally:
                os.close(folder)

        self._told(path, run, where)

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it."""
        self._told(path, lambda where: os.close(self._make_folders(where)), self._writable(path))

    def delete(self, path: str) -> None:
        """Remove a file, a link (not what it points to) or a whole folder."""
        if not self._writable(path):
            raise InvalidArgument(f"path: {path!r} is the workspace itself", field="path")

        def run(where: bytes) -> None:
            parent, _, name = where.rpartition(b"/")
            folder = beneath.open_folder(self.fd, parent)
            try:
                if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=folder)
                    return
                # Out of the way first, so that it is gone for everybody at once.
                aside = b".gone-" + secrets.token_hex(8).encode()
                os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=self.fd)
                trees.remove(self.fd, aside)
            finally:
                os.close(folder)

        self._existing(path, run)

    def list(self, path: str, *, recursive: bool, limit: int) -> list[Json]:
        """Return what is in a folder, or the one file that is named."""

        def run(where: bytes) -> list[Json]:
            out: list[Json] = []
            try:
                for found in trees.walk(self.fd, where, into=lambda _: recursive):
                    if len(out) >= max(0, min(limit, LIST_MAX)):
                        break
                    if not found.problem:
                        out.append(self._entry(found))
            except NotADirectoryError:
                parent, _, name = where.rpartition(b"/")
                folder = beneath.open_folder(self.fd, parent)
                try:
                    out = [self._entry(trees.Found(where, os.stat(name, dir_fd=folder, follow_symlinks=False)))]
                finally:
                    os.close(folder)
            return out

        return self._existing(path, run)

    def _entry(self, found: trees.Found) -> Json:
        return {
            "path": f"{self.base}/{shown(found.path)}".removeprefix("/workspace/"),
            "type": found.kind,
            "size_bytes": found.stat.st_size if found.kind == "file" else 0,
            "modified": found.stat.st_mtime,
        }

    # -- inside ------------------------------------------------------------------------------------------------------
    def _writable(self, path: str) -> bytes:
        if self.read_only:
            raise InvalidArgument(
                f"{path!r} is read-only: {self.base} was mounted into the workspace",
                repair="Copy what you want to change to another folder of /workspace.",
                field="path",
            )
        return beneath.inside(path, self.base)

    def _existing(self, path: str, run: Callable[[bytes], T]) -> T:
        """Run on the path as it is spelled; if nothing is there, on the one that `list` showed that way."""
        where = beneath.inside(path, self.base)
        try:
            return self._told(path, run, where)
        except NotFound:
            other = meant(os.fsdecode(where)) if b"\\" in where else where
            if other == where or b".." in other.split(b"/") or b"\0" in other:
                raise
            return self._told(path, run, other)

    def _told(self, path: str, run: Callable[[bytes], T], where: bytes) -> T:
        try:
            return run(where)
        except beneath.NotRegular as error:
            raise InvalidArgument(
                f"path: {path!r} is {error.kind}",
                repair="List a folder; copy a file with several names (cp) and use the copy."
                if "folder" in error.kind or "names" in error.kind
                else "Only plain files can be used this way.",
                field="path",
            ) from None
        except NotADirectoryError:
            raise InvalidArgument(f"path: {path!r} goes through something that is not a folder", field="path") from None
        except FileNotFoundError:
            raise NotFound(
                f"there is no {path!r} in {self.base}",
                repair="List the folder to see what is there.",
                kind="file",
                id=path,
            ) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise InvalidArgument(
                    f"path: {path!r} goes through a link", repair="Name the place it points to.", field="path"
                ) from None
            if error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL, errno.EEXIST):
                raise InvalidArgument(f"path: {path!r}: {error.strerror}", field="path") from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise InvalidArgument(
                    f"path: {path!r} may not be opened ({error.strerror})",
                    repair="Change its mode with chmod in the sandbox.",
                    field="path",
                ) from None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InvalidArgument(
                    f"path: {path!r} does not fit: the workspace is full",
                    repair="Delete files that are not needed any more.",
                    field="path",
                ) from None
            raise SandboxFailed(f"{path!r}: {error.strerror}") from error

    def _make_folders(self, where: bytes) -> int:
        here = os.dup(self.fd)
        done = b""
        for name in where.split(b"/") if where else []:
            done = done + b"/" + name if done else name
            try:
                try:
                    below = beneath.open_folder(self.fd, done)
                except FileNotFoundError:
                    os.mkdir(name, 0o755, dir_fd=here)
                    below = beneath.open_folder(self.fd, done)
                    self._own(below)
            except BaseException:
                os.close(here)
                raise
            os.close(here)
            here = below
        return here

    def _own(self, fd: int) -> None:
        """Give what this process made to whom the folder belongs (a root server runs each sandbox as another user)."""
        owner = os.fstat(self.fd)
        if owner.st_uid != os.geteuid():
            os.fchown(fd, owner.st_uid, owner.st_gid)

    def _write(self, folder: int, name: bytes, data: bytes) -> None:
        mode = 0o644
        try:
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISREG(there.st_mode):
                raise beneath.NotRegular(beneath.kind_of(there.st_mode))
            mode = stat.S_IMODE(there.st_mode) & 0o777 | 0o600
        part = b".interactd-" + secrets.token_hex(8).encode() + b".part"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
                self._own(fd)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
            raise
