"""The disks of environments: made with them, mounted when first needed, given back when idle.

`<root>/<id>/disk.img` is a sparse image with an ext4 file system, mounted at `<root>/<id>/disk`, in which `ws` and
`home` are. Where that cannot be done (no root, no loop devices, no e2fsprogs), and for environments that were made
so, both are plain folders in `<root>/<id>`, and their size is watched from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import anyio

from interactd.errors import SandboxUnavailable, StorageError, StorageFull
from interactd.sandbox.disks import image, loops, shares
from interactd.sandbox.disks.quota import RESERVE, Quota
from interactd.sandbox.folder import locks

log = logging.getLogger(__name__)

IMAGE: Final = "disk.img"
DISK: Final = "disk"
PARTS: Final = ("ws", "home")
_DETACH_S: Final = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where an environment's files are now. `quota` is None for plain folders."""

    workspace: Path
    home: Path
    quota: Quota | None


@dataclass(slots=True)
class _Disk:
    """One environment's, while it is known here."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    rooms: Rooms | None = None
    held: int = -1
    """A share of the image: no other daemon takes the disk for one that nobody uses."""
    users: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    used_at: float = 0.0


class Disks:
    """All disks beneath `root`.

    Args:
        images: whether new environments get an image where that can be done.
        clock: tells the time of day.
        attend: called before something is mounted, to have somebody there who unmounts it when this process is killed.
    """

    def __init__(
        self,
        root: Path,
        *,
        images: bool = True,
        clock: Callable[[], float] = time.time,
        attend: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._attend = attend
        self._clock = clock
        self._images = images
        self._why: str | None = None if images else "images are off"
        self._tried = not images
        self._trying = asyncio.Lock()
        self._disks: dict[str, _Disk] = {}

    # -- what can be done here ---------------------------------------------------------------------------------------
    async def why_not(self) -> str | None:
        """Why new environments are plain folders; None when they get an image. Tried out once, for real."""
        async with self._trying:
            if not self._tried:
                self._attend()
                await _through(self._try_out)
        return self._why

    def _try_out(self) -> None:
        # Noted here, so that it is known to whoever closes also when nobody waits for it any more.
        self._why = self._try()
        self._tried = True

    def _try(self) -> str | None:
        if (why := cannot(self._root)) is None:
            try:
                loops.share(self._root.resolve())
            except OSError as error:
                why = f"mounts cannot be shared: {error.strerror}"
        if why is not None:
            log.info("environments are plain folders, their size is watched: %s", why)
        return why

    # -- one environment ---------------------------------------------------------------------------------------------
    async def make(self, id: str, folder: Path, disk_mb: int) -> Rooms:
        """Make an environment's empty rooms in a folder that is there.

        Raises:
            StorageFull: no room.
            OSError: otherwise.
        """
        if await self.why_not() is None:
            try:
                return await self._begin(id, folder, lambda: _make(folder, disk_mb))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                log.warning("%s gets no disk image: %s", id, error)
        return await self._begin(id, folder, lambda: (_plain(folder, make=True), -1))

    async def fork(self, id: str, folder: Path, origin: Path, disk_mb: int) -> Rooms | None:
        """Make an environment's rooms as a copy of another's image, which is held still meanwhile; None where that
        cannot be done: one of the two is no image, or the new one is to be smaller.

        Raises:
            StorageFull: no room.
            OSError: otherwise.
        """
        source = origin / IMAGE
        if await self.why_not() is not None or not source.exists() or image.size_of(source) > image.bytes_for(disk_mb):
            return None
        return await self._begin(id, folder, lambda: _copied(origin, folder, disk_mb))

    async def moved(self, id: str, folder: Path) -> None:
        """The environment's folder has another name now."""
        disk = self._disks[id]
        assert disk.rooms is not None
        disk.rooms = _rooms(folder, image=disk.rooms.quota is not None)

    @asynccontextmanager
    async def open(self, id: str, disk_mb: int) -> AsyncGenerator[Rooms]:
        """Have an environment's files at hand, mounted now if they are not, for as long as this is entered.

        Raises:
            SandboxUnavailable: they are in an image, and this user cannot mount it.
            StorageFull, StorageError: it cannot be mounted.
            FileNotFoundError: there is no such folder.
        """
        disk = self._disks.setdefault(id, _Disk())
        async with disk.lock:
            if disk.rooms is None:
                disk.rooms, disk.held = await self._attached(id, disk_mb)
            disk.users += 1
        try:
            yield disk.rooms
        finally:
            disk.users -= 1
            disk.used_at = self._clock()
            disk.left.set()

    async def keep(self, id: str) -> None:
        """Write what is in an environment's image down to the disk that holds it: what waits in memory for that is
        lost should the disk be full by then.

        Raises:
            OSError: it is full.
        """
        disk = self._disks.get(id)
        if disk is not None and disk.rooms is not None and disk.rooms.quota is not None:
            folder = disk.rooms.workspace.parent
            await _through(lambda: loops.sync(folder))

    async def keep_or_say(self, id: str) -> None:
        """As `keep`, where nothing else can be done about it."""
        try:
            await self.keep(id)
        except OSError as error:
            log.error("files of environment %s may be lost, the disk is full: %s", id, error)

    async def close(self, id: str) -> None:
        """Unmount an environment's disk, when nobody uses it any more (bounded: 10 s, then regardless)."""
        disk = self._disks.get(id)
        if disk is None:
            return
        async with disk.lock:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DETACH_S):
                    while disk.users:
                        disk.left.clear()
                        await disk.left.wait()
            rooms, disk.rooms = disk.rooms, None
            held, disk.held = disk.held, -1
            if rooms is not None and rooms.quota is not None:
                await _through(lambda: _left(held))
        if self._disks.get(id) is disk and disk.rooms is None and not disk.users:
            del self._disks[id]

    async def close_idle(self, idle_s: float, busy: Callable[[str], bool]) -> None:
        """Unmount what nobody used for a while."""
        for id, disk in list(self._disks.items()):
            if not disk.users and not disk.lock.locked() and not busy(id) and disk.used_at + idle_s <= self._clock():
                await self._close_or_say(id)

    async def aclose(self) -> None:
        """Unmount everything."""
        await asyncio.gather(*(self._close_or_say(id) for id in list(self._disks)))
        # A trial that is under way would leave its mount behind.
        async with self._trying:
            # The folder itself, where it had to become a mount, for this daemon or for a killed one; whatever is left
            # beneath goes with it.
            await _through(lambda: self.reap(whole=True))
            self._tried = not self._images

    async def _close_or_say(self, id: str) -> None:
        try:
            await self.close(id)
        except OSError as error:
            log.warning("the disk of %s could not be unmounted: %s", id, error)

    async def drop(self, id: str, folder: Path) -> None:
        """Unmount the disk in a folder that is to be removed, also where another daemon keeps it mounted for later.
        Nobody may be using it: the caller has the environment."""
        await self.close(id)
        if sys.platform.startswith("linux") and os.geteuid() == 0:
            await _through(lambda: _unmounted(folder))

    def reap(self, *, whole: bool = False) -> int:
        """Unmount and detach what killed daemons left beneath `root`; returns how many. Blocking.

        Args:
            whole: `root` too, where it had to become a mount and nothing beneath it is in use.
        """
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return 0
        root, count = self._root.resolve(), 0
        in_use = False
        for one in loops.mounts_below(root):
            if one.target == root and not whole:
                continue
            with shares.nobodys(one.target.parent / IMAGE) as free:
                if (one.target == root and in_use) or not free:
                    in_use = True
                    continue
                loops.thaw(one.target)
                try:
                    loops.unmount(one.target, 0.2)
                    count += 1
                except OSError as error:
                    log.warning("%s could not be unmounted: %s", one.target, error)
        return count + loops.release_below(root, unless=shares.in_use)

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _begin(self, id: str, folder: Path, work: Callable[[], tuple[Rooms, int]]) -> Rooms:
        disk = self._disks.setdefault(id, _Disk())
        held: list[int] = []

        def begin() -> Rooms:
            rooms, fd = work()
            held.append(fd)
            return rooms

        async with disk.lock:
            try:
                disk.rooms = await _through(begin)
            except asyncio.CancelledError:
                # It was made to its end, and nobody will hear of it.
                with anyio.CancelScope(shield=True):
                    await asyncio.to_thread(_drop, folder)
                for fd in held:
                    shares.drop(fd)
                raise
            disk.held = held[0]
            disk.used_at = self._clock()
            return disk.rooms

    async def _attached(self, id: str, disk_mb: int) -> tuple[Rooms, int]:
        folder = self._root / id
        if not (folder / IMAGE).exists():
            return _plain(folder), -1
        if (why := await self.why_not()) is not None and self._images:
            raise SandboxUnavailable(
                f"the files of environment {id} are in a disk image, and it cannot be mounted: {why}",
                repair="Start the daemon as root, as when the environment was made; or use another environment.",
            )
        try:
            return await _through(lambda: _held(folder, disk_mb))
        except OSError as error:
            kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            raise kind(
                f"the disk image of environment {id} could not be mounted: {error.strerror or error}",
                repair="Make room on the disk of interactd's data folder, then try again."
                if kind is StorageFull
                else f"Its image is {folder / IMAGE}; nothing in it was changed.",
            ) from error


def cannot(parent: Path) -> str | None:
    """Make and mount an image in a folder, and say why that is impossible; None when it worked. Blocking, 10 ms."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root may mount"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = parent / f".try-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        ours = locks.make(folder)
        held = -1
        try:
            _, held = _make(folder, 4)
            (folder / DISK / "ws" / "x").write_bytes(b"x")
            return None
        finally:
            shares.drop(held)
            _drop(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(ours)
    except OSError as error:
        return f"a disk image cannot be made or mounted: {error.strerror or error}"


async def _through(work: Callable[[], T]) -> T:
    """Do blocking work to its end, also when who waits for it is cancelled: half a mount is nobody's."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A cancel scope of anyio's cancels again and again.
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task})
        raise


def _rooms(folder: Path, *, image: bool) -> Rooms:
    inside = folder / DISK if image else folder
    quota = Quota(inside, folder / IMAGE) if image else None
    return Rooms(inside / "ws", inside / "home", quota)


def _plain(folder: Path, *, make: bool = False) -> Rooms:
    if make:
        for part in PARTS:
            (folder / part).mkdir(mode=0o700)
    return _rooms(folder, image=False)


def _make(folder: Path, disk_mb: int) -> tuple[Rooms, int]:
    held = -1
    try:
        image.make(folder / IMAGE, disk_mb)
        # Before it is mounted: what nobody holds is a dead daemon's, and anybody may unmount it.
        held = shares.share(folder / IMAGE)
        (folder / DISK).mkdir(mode=0o700)
        _mount(folder)
        (folder / DISK).chmod(0o700)
        for part in PARTS:
            (folder / DISK / part).mkdir(mode=0o700)
        with contextlib.suppress(OSError):
            (folder / DISK / "lost+found").rmdir()
    except OSError:
        shares.drop(held)
        _drop(folder)
        raise
    return _rooms(folder, image=True), held


def _copied(origin: Path, folder: Path, disk_mb: int) -> tuple[Rooms, int]:
    source = origin / IMAGE
    free = os.statvfs(folder)
    if source.stat().st_blocks * 512 > free.f_bavail * free.f_frsize - RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        with loops.frozen(origin / DISK) if os.path.ismount(origin / DISK) else contextlib.nullcontext():
            image.copy(source, folder / IMAGE)
        (folder / DISK).mkdir(mode=0o700)
        return _held(folder, disk_mb)
    except OSError:
        _drop(folder)
        raise


def _attach(folder: Path, disk_mb: int) -> Rooms:
    there = folder / IMAGE
    with shares.turn(there):
        if os.path.ismount(folder / DISK):
            return _rooms(folder, image=True)
        info = there.stat()
        held = loops.devices_over(info.st_dev, info.st_ino)
        if not held and image.damaged(there):
            image.check(there)
        if not held and image.size_of(there) < image.bytes_for(disk_mb):
            image.grow(there, disk_mb)
        (folder / DISK).mkdir(mode=0o700, exist_ok=True)
        try:
            _mount(folder)
        except OSError as error:
            if held or error.errno not in (errno.EUCLEAN, errno.EINVAL, errno.EIO):
                raise
            image.check(there, force=True)
            _mount(folder)
    return _rooms(folder, image=True)


def _held(folder: Path, disk_mb: int) -> tuple[Rooms, int]:
    fd = shares.share(folder / IMAGE)
    try:
        return _attach(folder, disk_mb), fd
    except BaseException:
        os.close(fd)
        raise


def _left(held: int) -> None:
    """Unmount, unless another daemon is using it too: then that one does so at last."""
    try:
        if shares.alone(held):
            _detach(held)
    finally:
        os.close(held)


def _mount(folder: Path) -> None:
    fd, device = loops.attach(folder / IMAGE)
    try:
        loops.mount(device, folder / DISK)
    finally:
        os.close(fd)


def _detach(held: int) -> None:
    # By what the image is, not by a name or a number from before: its folder may have been renamed, and another daemon
    # may have removed it, so that its device is another image's by now.
    info = os.fstat(held)
    for device in loops.devices_over(info.st_dev, info.st_ino):
        for target in loops.mounts_of(Path(device).stat().st_rdev):
            loops.trim(target)
            loops.unmount(target)


def _unmounted(folder: Path) -> None:
    while os.path.ismount(folder / DISK):
        loops.unmount(folder / DISK, 0.2)


def _drop(folder: Path) -> None:
    """After a failed making: nothing of it."""
    with contextlib.suppress(OSError):
        loops.unmount(folder / DISK)
    with contextlib.suppress(OSError):
        (folder / DISK).rmdir()
    (folder / IMAGE).unlink(missing_ok=True)
