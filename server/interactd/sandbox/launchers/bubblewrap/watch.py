"""What is observed from outside a bubblewrap sandbox: memory, processor time, disk, and what the kernel did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from interactd.sandbox.launchers.bubblewrap.cgroups import Group
from interactd.sandbox.port import Limits, Why

_LOOK_S = 0.1
_SLACK = 1 << 20


class Observer:
    """Looks at a sandbox every 100 ms while it is asked, and knows what the kernel's counters said before a command."""

    def __init__(self, limits: Limits, group: Group | None, folders: tuple[Path, ...], *, used: int) -> None:
        self._limits, self._group, self._folders = limits, group, folders
        self._memory = group is None or "memory" not in group.has
        # What was there before may stay (a command must be able to delete); only growth beyond is a fault.
        self._limit = (limits.disk_mb << 20) + _SLACK
        self._used = self._allowed = used
        self._over: Why | None = None
        self._asked = 0.0
        self.pid = 0

    def begin(self) -> tuple[int, int]:
        """See `Watch.begin`."""
        self._over = None
        self._asked = time.monotonic()
        return self._group.counters() if self._group else (0, 0)

    def cause(self, before: object) -> Why | None:
        """See `Watch.cause`."""
        if self._group is None or not isinstance(before, tuple):
            return None
        memory, pids = self._group.counters()
        if memory > before[0]:
            return "memory"
        return "pids" if pids > before[1] else None

    def over(self) -> Why | None:
        """See `Watch.over`."""
        self._asked = time.monotonic()
        return self._over

    async def run(self) -> None:
        """Look until cancelled; costs nothing while no command runs."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() - self._asked > 1:
                continue
            began = time.monotonic()
            self._over = await asyncio.to_thread(self._look)
            # A large workspace must not cost a core: at most a tenth of the time goes into looking.
            await asyncio.sleep(min(5.0, 9 * (time.monotonic() - began)))

    def _look(self) -> Why | None:
        if self._group is not None:
            spent = self._group.cpu_seconds()
            if spent is not None and spent > self._limits.cpu_s:
                return "cpu"
        if self._memory and self.pid:
            memory, spent = usage(self.pid)
            if memory > self._limits.memory_mb << 20:
                return "memory"
            if spent > self._limits.cpu_s:
                return "cpu"
        used = sum(size(folder) for folder in self._folders)
        grew = used > self._used
        self._used = used
        self._allowed = max(self._limit, min(self._allowed, used))
        return "disk" if grew and used > self._allowed else None


def usage(root: int) -> tuple[int, float]:
    """Return resident bytes and CPU seconds of a process and all below it, from /proc. Blocking, some milliseconds."""
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
    memory, spent, left = 0, 0.0, [root]
    while left:
        pid = left.pop()
        own = facts.get(pid, (0, 0.0))
        memory, spent = memory + own[0], spent + own[1]
        left += parents.get(pid, [])
    return memory, spent


def size(folder: Path) -> int:
    """Return the bytes a folder takes on disk, following no link even while somebody swaps folders for links."""
    total = 0
    try:
        for _path, _folders, files, fd in os.fwalk(folder, follow_symlinks=False):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
    except OSError:
        return total
    return total
