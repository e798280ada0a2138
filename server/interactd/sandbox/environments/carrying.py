"""Kept contents and workspaces on their way into an archive and out of one (see `sandbox.carrying_port`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import stat
import tarfile
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from interactd.errors import Conflict, InvalidArgument
from interactd.nouns import Json
from interactd.sandbox.carrying_port import Go, Unsafe
from interactd.sandbox.disks import Disks, Rooms
from interactd.sandbox.environments import body as bodies
from interactd.sandbox.environments.claims import Claim
from interactd.sandbox.environments.keeping import Artifacts
from interactd.sandbox.environments.making import Maker
from interactd.sandbox.environments.place import Place
from interactd.sandbox.folder import beneath, locks, trees
from interactd.sandbox.launchers.bubblewrap import owner

T = TypeVar("T")
Hold = Callable[[str, str, float], AbstractAsyncContextManager[Place]]
_CHUNK: Final = 1 << 20
_PARTS: Final = ("ws", "home")
NAMES_MAX: Final = 1_000_000
PACK_WAIT_S: Final = 30.0
_LOOK_S: Final = 0.5


class FileCarrier:
    """The carrier of one data folder.

    Args:
        hold: takes an environment for itself, as `Places.hold`.
    """

    def __init__(self, kept: Artifacts, disks: Disks, maker: Maker, hold: Hold) -> None:
        self._kept = kept
        self._disks = disks
        self._maker = maker
        self._hold = hold
        self._loop: asyncio.AbstractEventLoop | None = None
        self._claims: dict[str, Claim] = {}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "attach comes first"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # -- contents --------------------------------------------------------------------------------------------
    def content(self, sha256: str) -> Path:
        return self._kept.contents.path(sha256)

    def take(self, source: IO[bytes], go: Go) -> tuple[Path, str]:
        self._kept.contents.tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._kept.contents.tmp / secrets.token_hex(16)
        digest = hashlib.sha256()
        out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while data := source.read(_CHUNK):
                go()
                digest.update(data)
                left = memoryview(data)
                while left:
                    left = left[os.write(out, left) :]
            os.fsync(out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(out)
        return part, digest.hexdigest()

    async def place(self, part: Path, sha256: str) -> None:
        async with self._kept.changing():
            await asyncio.to_thread(self._kept.contents.publish, part, sha256)

    # -- workspaces ------------------------------------------------------------------------------------------
    def pack(self, environment_id: str, limits: Json, out: IO[bytes], go: Go) -> int:
        held = self._held(environment_id, go)
        try:
            opening = self._disks.open(environment_id, bodies.limits_from(limits).disk_mb)
            rooms = self._await(_entered(opening))
            try:
                return _pack_all(rooms, out, go)
            finally:
                self._await(_left(opening))
        finally:
            self._await(_left(held))

    def _held(self, id: str, go: Go) -> AbstractAsyncContextManager[Place]:
        """Have an environment, so that nothing runs in it while it is read. Asked for in pieces: `go` may stop it."""
        give_up = time.monotonic() + PACK_WAIT_S
        while True:
            go()
            held = self._hold(id, "an export", _LOOK_S)
            try:
                self._await(_entered(held))
            except Conflict:
                if time.monotonic() > give_up:
                    raise
            else:
                return held

    def unpack(self, environment_id: str, limits: Json, source: IO[bytes] | None, *, most_bytes: int, go: Go) -> None:
        try:
            bodies.read({"limits": limits}, None, ())
        except InvalidArgument as error:
            raise Unsafe(error.message) from None
        aside = self._maker.half(environment_id)
        disk_mb = bodies.limits_from(limits).disk_mb
        rooms: Rooms | None = None
        self._claims[environment_id] = self._await(self._begun(environment_id))
        try:
            rooms = self._await(self._disks.make(environment_id, aside, disk_mb))
            if source is not None:
                _unpack_into(rooms, source, min(most_bytes, disk_mb << 20), go)
            if os.getuid() == 0:
                for part in (rooms.workspace, rooms.home):
                    owner.give(part, owner.uid_for(environment_id), linked=rooms.quota is not None)
        except BaseException as error:
            full = (
                isinstance(error, OSError) and rooms is not None and rooms.quota is not None and rooms.quota.used_up()
            )
            self.discard(environment_id)
            if full:
                raise Unsafe(f"its files do not fit into the {disk_mb} MB of its limits") from None
            raise

    def settle(self, environment_id: str) -> None:
        whole = self._maker.whole(environment_id)
        self._maker.half(environment_id).rename(whole)
        self._await(self._disks.moved(environment_id, whole))

    def discard(self, environment_id: str) -> None:
        if environment_id in self._claims:
            try:
                self._await(self._maker.remove(environment_id))
            finally:
                self.release(environment_id)

    def release(self, environment_id: str) -> None:
        claim = self._claims.pop(environment_id, None)
        if claim is not None:
            claim.close()

    async def _begun(self, id: str) -> Claim:
        """Claim an empty folder. What lies there under either name is a dead daemon's, or somebody is at it."""
        with contextlib.ExitStack() as claims:
            claims.enter_context(contextlib.closing(await self._maker.begin(id)))
            with contextlib.suppress(FileNotFoundError):
                fd = await asyncio.to_thread(locks.take, self._maker.whole(id))
                if fd is None:
                    raise Conflict(
                        f"environment {id} is being made or removed", repair="Wait a little, then try again."
                    )
                claims.callback(os.close, fd)
            await self._maker.remove(id)
        return await self._maker.begin(id)


async def _entered(opening: AbstractAsyncContextManager[T]) -> T:
    return await opening.__aenter__()


async def _left(opening: AbstractAsyncContextManager[Any]) -> None:
    await opening.__aexit__(None, None, None)


def _pack_all(rooms: Rooms, out: IO[bytes], go: Go) -> int:
    files = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for part, folder in zip(_PARTS, (rooms.workspace, rooms.home), strict=True):
            root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for found in trees.walk(root):
                    go()
                    files += _pack_one(archive, root, part, found)
            finally:
                os.close(root)
    return files


def _unpack_into(rooms: Rooms, source: IO[bytes], most_bytes: int, go: Go) -> None:
    roots = {
        part: os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part, folder in zip(_PARTS, (rooms.workspace, rooms.home), strict=True)
    }
    try:
        _unpack_all(source, roots, most_bytes, go)
    finally:
        for fd in roots.values():
            os.close(fd)


def _pack_one(archive: tarfile.TarFile, root: int, part: str, found: trees.Found) -> int:
    # Names are whatever code in the sandbox made them: tar keeps bytes that are no UTF-8 as surrogates.
    info = tarfile.TarInfo(f"{part}/{os.fsdecode(found.path)}")
    info.mode = stat.S_IMODE(found.stat.st_mode) & 0o777
    if found.kind == "directory":
        info.type, info.mtime = tarfile.DIRTYPE, 0
        archive.addfile(info)
    elif found.kind == "link":
        info.type, info.mode, info.mtime = tarfile.SYMTYPE, 0o777, 0
        info.linkname = os.fsdecode(_link(root, found.path))
        archive.addfile(info)
    elif found.kind == "file":
        try:
            fd = beneath.open_beneath(root, found.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return 0  # It went, or became something else, since it was listed.
        with os.fdopen(fd, "rb") as file:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):
                return 0
            info.size, info.mtime = now.st_size, int(now.st_mtime)
            archive.addfile(info, _Exactly(file, now.st_size))
        return 1
    return 0


class _Exactly:
    """A file that gives so many bytes, zeros where it became shorter while it was read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted).ljust(wanted, b"\0")
        self._left -= wanted
        return data


def _link(root: int, path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    fd = beneath.open_folder(root, parent)
    try:
        return os.readlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _unpack_all(source: IO[bytes], roots: dict[str, int], most_bytes: int, go: Go) -> None:
    count = size = 0
    folders: list[tuple[int, bytes, int]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|", format=tarfile.PAX_FORMAT) as archive:
            for info in archive:
                go()
                count, size = count + 1, size + max(info.size, 0)
                if count > NAMES_MAX or size > most_bytes:
                    raise Unsafe(f"it has more than {NAMES_MAX:,} entries or {most_bytes:,} bytes")
                _unpack_one(archive, info, roots, folders)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, Unsafe):
            raise
        raise Unsafe(f"it is no tar: {error}") from None
    for fd, path, mode in reversed(folders):
        folder = beneath.open_folder(fd, path)
        try:
            os.fchmod(folder, mode | 0o700)
        finally:
            os.close(folder)


def _unpack_one(
    archive: tarfile.TarFile, info: tarfile.TarInfo, roots: dict[str, int], folders: list[tuple[int, bytes, int]]
) -> None:
    part, _, rest = info.name.partition("/")
    path = os.fsencode(rest)
    names = path.split(b"/")
    if part not in roots or not all(names) or b".." in names or b"." in names or b"\0" in path:
        raise Unsafe(f"{info.name[:200]!r} leaves the folder")
    parent, _, name = path.rpartition(b"/")
    try:
        fd = beneath.open_folder(roots[part], parent)
    except OSError as error:
        raise Unsafe(f"{info.name[:200]!r} lies in no folder: {error.strerror}") from None
    try:
        if info.isdir():
            os.mkdir(name, 0o700, dir_fd=fd)
            folders.append((roots[part], path, info.mode & 0o777))
        elif info.issym():
            os.symlink(os.fsencode(info.linkname), name, dir_fd=fd)
        elif info.isreg() and not info.issparse():
            _unpack_file(archive, info, fd, name)
        else:
            raise Unsafe(f"{info.name[:200]!r} is neither a file, a folder nor a link")
    except FileExistsError:
        raise Unsafe(f"{info.name[:200]!r} is there twice") from None
    finally:
        os.close(fd)


def _unpack_file(archive: tarfile.TarFile, info: tarfile.TarInfo, folder: int, name: bytes) -> None:
    source = archive.extractfile(info)
    if source is None:
        raise Unsafe(f"{info.name[:200]!r} has no content")
    out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        while data := source.read(_CHUNK):
            left = memoryview(data)
            while left:
                left = left[os.write(out, left) :]
        os.fchmod(out, info.mode & 0o777)
        os.utime(out, (info.mtime, info.mtime))
    finally:
        os.close(out)
