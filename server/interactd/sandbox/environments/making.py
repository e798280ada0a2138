"""The folders of environments: made whole or not at all, forked, measured, removed.

`<root>/<id>/` holds `ws` (the workspace) and `home` (the agent's home folder), or a disk image with both (see
`sandbox/disks`), `holder` (see `claims`) and, with secrets, `ca.pem`. A folder is claimed from its beginning until its
row says that it is there, and called `.new-<id>` until it is whole. What is half-made and claimed by nobody is a dead
daemon's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interactd.errors import Conflict, InvalidArgument, StorageFull
from interactd.nouns import Json
from interactd.sandbox.disks import Disks, Rooms
from interactd.sandbox.environments import claims
from interactd.sandbox.environments import sources as putting
from interactd.sandbox.environments.body import Source
from interactd.sandbox.environments.claims import Claim
from interactd.sandbox.environments.place import close
from interactd.sandbox.environments.ways import Ways
from interactd.sandbox.folder import sweep, trees
from interactd.sandbox.launchers.bubblewrap import owner
from interactd.sandbox.port import Exit, Launcher, Limits, Output, Spec

log = logging.getLogger(__name__)
FILES_MAX: Final = 1_000_000
HALF: Final = ".new-"


class Maker:
    """Makes and removes the folders beneath `root`."""

    def __init__(self, root: Path, disks: Disks, ways: Ways, choose: Callable[[], Awaitable[Launcher]]) -> None:
        self._root = root
        self._disks = disks
        self._ways = ways
        self._choose = choose

    async def begin(self, id: str) -> Claim:
        """Make the empty folder that `make` fills, claimed until whoever closes what is returned.

        Raises:
            Conflict: somebody else is making it.
            StorageFull: no room on this disk.
        """
        try:
            return await claims.make(self.half(id))
        except BlockingIOError:
            raise Conflict(f"environment {id} is being made", repair="Wait a little, then try again.") from None
        except OSError as error:
            raise _no_room(error) from error

    def half(self, id: str) -> Path:
        """Where a folder is until it is whole."""
        return self._root / f"{HALF}{id}"

    def whole(self, id: str) -> Path:
        """Where it is then."""
        return self._root / id

    async def make(self, id: str, sources: list[Source], limits: Limits, content: Json, base: Base | None) -> None:
        """Fill the folder that `begin` made, and only then give it its name.

        Raises:
            InvalidArgument, SandboxUnavailable: a source.
            StorageFull: no room on this disk.
        """
        new = self.half(id)
        rooms: Rooms | None = None
        try:
            if base is not None:
                rooms = await self._disks.fork(id, new, self._root / base.id, limits.disk_mb)
            if rooms is None:
                rooms = await self._disks.make(id, new, limits.disk_mb)
                if base is not None:
                    forked = await asyncio.to_thread(_fork, base.rooms, rooms, limits)
                    log.info("environment %s forked by %s: %d files, %d bytes", id, *forked)
            for source in sources:
                if source.kind == "repository":
                    await self._clone(id, new, rooms, source, limits, content)
                else:
                    await putting.in_thread(rooms.workspace, source, limits)
            await asyncio.to_thread(_own, id, rooms)
            await self._disks.keep(id)
            await asyncio.to_thread(os.rename, new, self._root / id)
            await self._disks.moved(id, self._root / id)
        except OSError as error:
            if rooms is not None and rooms.quota is not None and rooms.quota.used_up():
                raise InvalidArgument(
                    f"environment.sources: they do not fit: the workspace takes {limits.disk_mb} MB",
                    repair="Name smaller folders, raise environment.limits.disk_mb, or mount them.",
                    field="environment.sources",
                ) from None
            raise _no_room(error) from error

    async def _clone(self, id: str, new: Path, rooms: Rooms, source: Source, limits: Limits, content: Json) -> None:
        launcher = await self._choose()
        network = putting.network_for(source, content.get("network"))
        way = await self._ways.open(network, {}, new)
        try:
            spec = Spec(
                id,
                rooms.workspace,
                rooms.home,
                limits=limits,
                env=way.env,
                egress=way.egress,
                quota=rooms.quota,
            )
            sandbox = await launcher.start(spec)
            try:

                async def run(argv: list[str], wall_s: float) -> AsyncIterator[Output | Exit]:
                    stream = sandbox.exec(argv, wall_s=wall_s)
                    try:
                        async for item in stream:
                            yield item
                    finally:
                        await close(stream)

                await putting.clone(source, run)
            finally:
                await sandbox.aclose()
        finally:
            await way.aclose()

    async def measure(self, id: str, disk_mb: int) -> tuple[int, int]:
        """Return bytes on disk and number of files of an environment's workspace and home.

        Raises:
            SandboxUnavailable, StorageError: they are in an image that cannot be mounted.
        """
        async with self._disks.open(id, disk_mb) as rooms:
            return await asyncio.to_thread(_measure, rooms)

    async def remove(self, id: str) -> None:
        """Remove an environment's folder, half-made or whole, which the caller has claimed."""
        for folder in (self.half(id), self.whole(id)):
            await self._disks.drop(id, folder)
            await asyncio.to_thread(self._remove, folder.name)

    async def remove_stray(self, name: str) -> None:
        """Remove what else lies among the folders of environments, and nobody has claimed."""
        await self._disks.drop(name, self._root / name)
        await asyncio.to_thread(self._remove, name)

    def _remove(self, name: str) -> None:
        """What is in it goes first, from within: beside it, it could be taken for what a dead daemon left."""
        try:
            folder = os.open(self._root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            (self._root / name).unlink(missing_ok=True)
            return
        try:
            for inside in os.listdir(folder):  # noqa: PTH208
                trees.remove(folder, os.fsencode(inside))
        finally:
            os.close(folder)
        (self._root / name).rmdir()

    def names(self) -> set[str]:
        """Return what lies among the folders of environments. Blocking."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return set(os.listdir(self._root))  # noqa: PTH208


@dataclass(frozen=True, slots=True)
class Base:
    """The environment that a fork is made of, held for it: nothing runs in it."""

    id: str
    rooms: Rooms


def _measure(rooms: Rooms) -> tuple[int, int]:
    size = files = 0
    for part in (rooms.workspace, rooms.home):
        try:
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            found = sweep.measure(fd)
        finally:
            os.close(fd)
        size, files = size + found[0], files + (found[1] if part == rooms.workspace else 0)
    return size, files


def _own(id: str, rooms: Rooms) -> None:
    """Give the files to the user that the sandbox will run as. Later it would look as if the run had changed them."""
    if os.getuid() == 0:
        for part in (rooms.workspace, rooms.home):
            # In an image a file's other names are in the image too.
            owner.give(part, owner.uid_for(id), linked=rooms.quota is not None)


def _fork(original: Rooms, new: Rooms, limits: Limits) -> tuple[str, int, int]:
    methods: set[str] = set()
    files = size = 0
    for old, made in ((original.workspace, new.workspace), (original.home, new.home)):
        source = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
        target = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        try:
            done = trees.copy(source, target, max_bytes=limits.disk_mb << 20, max_files=FILES_MAX)
        except ValueError as error:
            raise InvalidArgument(
                f"environment.from_environment: {error}",
                repair="Raise environment.limits.disk_mb, or delete files in the one that is forked.",
                field="environment.from_environment",
            ) from None
        finally:
            os.close(source)
            os.close(target)
        files, size = files + done.files, size + done.bytes
        if done.files:
            methods.add(done.method)
    return "reflink" if methods == {"reflink"} else "copy", files, size


def _no_room(error: OSError) -> StorageFull:
    return StorageFull(
        f"the environment could not be made: {error.strerror or error}",
        repair="Make room on the disk of interactd's data folder, or use smaller sources.",
    )
