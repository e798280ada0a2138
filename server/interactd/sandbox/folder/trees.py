"""Whole trees: walking, copying and removing them, at any depth, with a handful of descriptors."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from interactd.sandbox.folder import beneath

_FICLONE: Final = 0x40049409
_CHUNK: Final = 1 << 20
DEPTH: Final = 200
"""Folders nested deeper than this are not listed, copied or captured. They are measured, and can be removed."""
LONGEST: Final = 3800


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in a tree. `problem` says why a folder could not be looked into."""

    path: bytes
    stat: os.stat_result
    problem: str | None = None

    @property
    def kind(self) -> str:
        """file, directory, link or other."""
        mode = self.stat.st_mode
        if stat.S_ISREG(mode):
            return "file"
        return "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"


def walk(root: int, start: bytes = b"", *, into: Callable[[Found], bool] = lambda _: True) -> Iterator[Found]:
    """Yield everything beneath `start`, folders before what is in them, names in order; links are not followed.

    Args:
        root: the folder's descriptor.
        start: a folder in it; empty is the folder itself.
        into: whether to look into a directory. What it declines is still yielded.
    """
    # In two parts, so that the folders of one folder share its path: there may be very many, and it very long.
    left: deque[tuple[bytes, bytes]] = deque([(start, b"")])
    while left:
        above, name = left.popleft()
        where = above + b"/" + name if above and name else above or name
        try:
            fd = beneath.open_folder(root, where)
        except OSError as error:
            if where == start:
                raise
            if error.errno in beneath.SWAPPED:
                continue  # It was swapped for something else since it was listed.
            try:
                info = _look(root, where)
            except OSError:
                continue
            yield Found(where, info, f"it cannot be opened: {error.strerror}")
            continue
        try:
            with os.scandir(fd) as entries:
                names = sorted(os.fsencode(entry.name) for entry in entries)
            for name in names:
                path = where + b"/" + name if where else name
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                found = Found(path, info)
                if found.kind != "directory":
                    yield found
                elif path.count(b"/") >= DEPTH or len(path) > LONGEST:
                    yield Found(path, info, "it is nested too deep")
                else:
                    yield found
                    if into(found):
                        left.append((where, name))
        finally:
            os.close(fd)


def _look(root: int, path: bytes) -> os.stat_result:
    parent, _, name = path.rpartition(b"/")
    fd = beneath.open_folder(root, parent)
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)


def remove(parent: int, name: bytes) -> None:
    """Remove whatever stands under `name` in `parent`, of any depth; missing is fine.

    Sub-folders are moved up beside their parent before they are emptied, so neither depth nor length matters.

    Raises:
        OSError: something in it cannot be removed.
    """
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    left = [name]
    while left:
        here = left[-1]
        fd = _open_to_empty(parent, here)
        try:
            with os.scandir(fd) as entries:
                inside = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
            for entry, is_folder in inside:
                if not is_folder:
                    os.unlink(entry, dir_fd=fd)
                    continue
                aside = b".gone-" + secrets.token_hex(8).encode()
                try:
                    os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=parent)
                except PermissionError:
                    beneath.change_mode(fd, entry, lambda _mode: 0o700)
                    os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=parent)
                left.append(aside)
        finally:
            os.close(fd)
        if left[-1] is here:
            os.rmdir(here, dir_fd=parent)
            left.pop()


def _open_to_empty(parent: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        beneath.change_mode(parent, name, lambda _mode: 0o700)
        fd = os.open(name, flags, dir_fd=parent)
    if os.fstat(fd).st_uid == os.geteuid():
        os.fchmod(fd, 0o700)
    return fd


@dataclass(slots=True)
class Copied:
    """What a copy did. `method` is reflink when every byte was shared copy-on-write."""

    files: int = 0
    bytes: int = 0
    cloned: int = 0
    left_out: int = 0

    @property
    def method(self) -> str:
        return "reflink" if self.files and self.cloned == self.files else "copy"


def copy(
    source: int,
    target: int,
    *,
    max_bytes: int,
    max_files: int,
    owner: tuple[int, int] | None = None,
    link_ok: Callable[[bytes, bytes], bool] = lambda _path, _to: True,
    writable: bool = False,
) -> Copied:
    """Copy a tree into a folder, over what is there: plain files (shared copy-on-write where the file system can),
    folders, and links as they are; everything else is left out and counted. Holes stay holes.

    Args:
        owner: uid and gid for what is made; None leaves it to the process.
        link_ok: whether to make a link, given its path and where it points.
        writable: whether their owner may write the copies of files that are read-only.

    Raises:
        ValueError: more bytes or files than allowed.
        OSError: reading or writing failed.
    """
    done = Copied()
    for found in walk(source):
        parent, _, name = found.path.rpartition(b"/")
        fd = beneath.open_folder(target, parent)
        try:
            if found.kind == "directory":
                _make_folder(fd, name)
                mode = stat.S_IMODE(found.stat.st_mode) & 0o777 | 0o700
                beneath.change_mode(fd, name, partial(_mode, mode))
            elif found.kind == "file":
                if done.bytes + found.stat.st_blocks * 512 > max_bytes or done.files >= max_files:
                    raise ValueError(f"it has more than {max_bytes} bytes or {max_files} files")
                _copy_file(source, found, fd, name, done, owner, 0o600 if writable else 0)
                continue
            elif found.kind == "link":
                to = _read_link(source, found.path)
                if not link_ok(found.path, to):
                    done.left_out += 1
                    continue
                _clear(fd, name)
                os.symlink(to, name, dir_fd=fd)
            else:
                done.left_out += 1
                continue
            if owner is not None:
                os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)
    return done


def _mode(mode: int, _old: int) -> int:
    return mode


def _make_folder(parent: int, name: bytes) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)


def _clear(parent: int, name: bytes) -> None:
    """Make room for a file: what another source put there goes."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        remove(parent, name)


def _read_link(root: int, path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    fd = beneath.open_folder(root, parent)
    try:
        return os.readlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _copy_file(
    root: int, found: Found, folder: int, name: bytes, done: Copied, owner: tuple[int, int] | None, mode: int
) -> None:
    look = beneath.open_beneath(root, found.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        info = os.fstat(look)
        if not stat.S_ISREG(info.st_mode):
            done.left_out += 1
            return
        _clear(folder, name)
        out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            done.cloned += copy_bytes(look, out, info.st_size)
            if owner is not None:
                os.fchown(out, *owner)
            os.fchmod(out, stat.S_IMODE(info.st_mode) & 0o777 | mode)
            os.utime(out, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(out)
        done.files += 1
        done.bytes += info.st_blocks * 512
    finally:
        os.close(look)


def copy_bytes(source: int, target: int, size: int) -> bool:
    """Copy an open file into an empty one, sharing its blocks where the file system can; holes stay holes.

    Returns whether the blocks are shared.

    Raises:
        OSError: reading or writing failed.
    """
    if _clone(source, target):
        return True
    _copy_data(source, target, size)
    return False


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_data(source: int, target: int, size: int) -> None:
    at = 0
    while at < size:
        begin, end = data_at(source, at, size)
        if begin >= size:
            break
        os.lseek(source, begin, os.SEEK_SET)
        os.lseek(target, begin, os.SEEK_SET)
        left = end - begin
        while left > 0:
            try:
                moved = os.sendfile(target, source, None, min(left, _CHUNK * 64))
            except (OSError, AttributeError):
                data = os.read(source, min(left, _CHUNK))
                moved = os.write(target, data)
                os.lseek(source, moved - len(data), os.SEEK_CUR)
            if moved == 0:
                break
            left -= moved
        at = end
    os.ftruncate(target, size)


def data_at(fd: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next piece of real data from `at` on begins and ends; both are `size` when there is none."""
    try:
        begin = os.lseek(fd, at, os.SEEK_DATA)
        return begin, min(os.lseek(fd, begin, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        return at, size
    except AttributeError:
        return at, size
