"""What is observed from outside a bubblewrap sandbox: memory, processor time, disk, and what the kernel did."""

# ruff: noqa: PTH115, PTH116 - done for every descriptor, many times a second

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from interactd.sandbox.folder import sweep
from interactd.sandbox.launchers.bubblewrap.cgroups import Group
from interactd.sandbox.port import Limits, Quota, Why

_HOT_S, _COLD_S = 0.02, 0.5
_LOOK_HOT_S, _LOOK_COLD_S = 0.1, 2.0
_STAYS_HOT_S = 2.0
_SLACK = 1 << 20
_UNSEEN = 1 << 60
_FEW_FILES, _PER_FILE = 16_384, 16_384


class Observer:
    """Watches one sandbox while a command runs in it, closely while something happens and now and then otherwise.

    A look at the whole workspace costs milliseconds, so between two of them only the file system's free space is read,
    and a look is taken early when that shrank by a good part of what the sandbox may still write.
    """

    def __init__(
        self,
        limits: Limits,
        group: Group | None,
        folders: tuple[Path, ...],
        *,
        used: int,
        quota: Quota | None = None,
        own_tmp: bool = False,
    ) -> None:
        """
        Args:
            used: bytes in the folders before.
            own_tmp: whether /tmp and /dev/shm are the sandbox's own, and in memory.
        """
        self._own_tmp = own_tmp
        self._limits, self._group, self._folders, self._quota = limits, group, folders, quota
        self._memory = group is None or "memory" not in group.has
        # What was there before may stay (a command must be able to delete); only growth beyond is a fault.
        self._limit = (limits.disk_mb << 20) + _SLACK
        self._used = used
        self._allowed = used if used < _UNSEEN else 0
        self._spent = 0.0
        self._commands = 0
        self._active = asyncio.Event()
        self._hot_until = 0.0
        self.pid = 0

    def begin(self) -> tuple[int, int]:
        """See `Watch.begin`."""
        self._commands += 1
        self._hot_until = time.monotonic() + _STAYS_HOT_S
        self._active.set()
        return self._group.counters() if self._group else (0, 0)

    def end(self) -> None:
        """See `Watch.end`."""
        self._commands -= 1
        if self._commands <= 0:
            self._active.clear()

    def cause(self, before: object) -> Why | None:
        """See `Watch.cause`."""
        if self._group is not None and isinstance(before, tuple):
            memory, pids = self._group.counters()
            if memory > before[0]:
                return "memory"
            if pids > before[1]:
                return "pids"
        return "disk" if self._quota is not None and self._quota.used_up() else None

    async def run(self, stop: Callable[[Why], None]) -> None:
        """Watch until cancelled, and say what is over its limit. Costs nothing while no command runs."""
        free, next_look = _free(self._folders[0]), 0.0
        while True:
            await self._active.wait()
            hot = time.monotonic() < self._hot_until
            await asyncio.sleep(_HOT_S if hot else _COLD_S)
            if self._quota is not None and self._quota.trouble():
                stop("disk")
            shrank, began = free - _free(self._folders[0]), time.monotonic()
            if began < next_look and shrank < max(_SLACK, (self._limit - self._used) // 4):
                continue
            over = await asyncio.to_thread(self._look)
            free, took = _free(self._folders[0]), time.monotonic() - began
            # A large workspace must not cost a core: at most a tenth of the time goes into looking.
            next_look = time.monotonic() + max(_LOOK_HOT_S if hot else _LOOK_COLD_S, 9 * took)
            await asyncio.sleep(took)
            if over is not None:
                stop(over)

    def _look(self) -> Why | None:
        spent = self._group.cpu_seconds() if self._group is not None else None
        memory = used = 0
        if self._quota is None:
            used = sum(size(folder) for folder in self._folders)
        if self.pid and (self._memory or spent is None or self._quota is None):
            pids, memory, watched = usage(self.pid)
            spent = watched if spent is None else spent
            unnamed, hidden = nameless(pids, {_device(folder) for folder in self._folders})
            used += 0 if self._quota is not None else unnamed
            memory += hidden + (in_memory(self.pid) if self._memory and self._own_tmp else 0)
        grew = used > self._used
        if grew or (spent or 0.0) > self._spent + 0.01:
            self._hot_until = time.monotonic() + _STAYS_HOT_S
        self._used, self._spent = used, spent or 0.0
        self._allowed = max(self._limit, min(self._allowed, used))
        if used > self._allowed and (grew or used >= _UNSEEN):
            return "disk"
        if self._memory and memory > self._limits.memory_mb << 20:
            return "memory"
        return "cpu" if self._spent > self._limits.cpu_s else None


def _free(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bfree * found.f_frsize


def _device(folder: Path) -> int:
    try:
        return folder.stat().st_dev
    except OSError:
        return -1


def nameless(pids: list[int], devices: set[int]) -> tuple[int, int]:
    """Return what these processes hold open that has no name any more: bytes on these disks, and bytes in memory."""
    on_disk: dict[tuple[int, int], int] = {}
    in_memory: dict[tuple[int, int], int] = {}
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            try:
                link = os.readlink(f"{folder}/{name}")
                if not link.endswith(" (deleted)"):
                    continue
                found = os.stat(f"{folder}/{name}")
            except OSError:
                continue
            if found.st_dev in devices:
                on_disk[found.st_dev, found.st_ino] = found.st_blocks * 512
            elif link.startswith("/memfd:"):
                in_memory[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(on_disk.values()), sum(in_memory.values())


def in_memory(first: int) -> int:
    """Return the bytes that files in a sandbox's memory file systems take; one without content takes about 1 KB."""
    total = 0
    for place in ("tmp", "dev/shm"):
        try:
            found = os.statvfs(f"/proc/{first}/root/{place}")
        except OSError:
            continue
        total += (found.f_blocks - found.f_bfree) * found.f_frsize + (found.f_files - found.f_ffree) * 1024
    return total


def usage(root: int) -> tuple[list[int], int, float]:
    """Return a process and all below it, their resident bytes and CPU seconds, from /proc. Blocking, milliseconds."""
    parents: dict[int, list[int]] = {}
    facts: dict[int, tuple[int, float]] = {}
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for name in [path.name for path in Path("/proc").iterdir()]:
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(words[1]), []).append(int(name))
            facts[int(name)] = (int(words[21]) * page, sum(map(int, words[11:15])) / ticks)
    memory, spent, left, pids = 0, 0.0, [root], list[int]()
    while left:
        pid = left.pop()
        pids.append(pid)
        own = facts.get(pid, (0, 0.0))
        memory, spent = memory + own[0], spent + own[1]
        left += parents.get(pid, [])
    return pids, memory, spent


def size(folder: Path) -> int:
    """Return the bytes a folder takes on disk, following no link even while somebody swaps folders for links.

    Many files count as 16 KB each at least, as many as an image has room for: names without content use up the
    disk's inodes. A tree that cannot be looked at as a whole counts as more than any limit.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        used, files, whole = sweep.weigh(fd)
        return max(used, files * _PER_FILE if files > _FEW_FILES else 0) if whole else _UNSEEN
    except OSError:
        return 0
    finally:
        os.close(fd)
