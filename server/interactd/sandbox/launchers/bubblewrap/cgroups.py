"""Control groups for sandboxes, version 1 or 2, wherever this process may make them; honest where it may not.

A group is made per sandbox and removed with it. Names carry the daemon's pid and start time, so that a later daemon
can tell a dead one's groups and remove them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from interactd.sandbox.port import Limits

_PREFIX = "interactd-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-(\d+)-\d+$")
_WANTED = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_SOCKETS = 8


@dataclass(frozen=True, slots=True)
class Found:
    """Where groups can be made: controller -> folder. In version 2 all folders are the same one."""

    version: int
    folders: dict[str, Path] = field(default_factory=dict[str, Path])
    notes: tuple[str, ...] = ()

    @property
    def has(self) -> frozenset[str]:
        """Which limits a group made here has."""
        return frozenset(name for name in self.folders if name in _WANTED)


def _mounts(text: str) -> list[tuple[str, str, set[str]]]:
    found: list[tuple[str, str, set[str]]] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[2] in ("cgroup", "cgroup2"):
            found.append((words[2], words[1].replace("\\040", " "), set(words[3].split(","))))
    return found


def find(mounts: str | None = None, own: str | None = None) -> Found:
    """Look for writable places, from the texts of /proc/self/mounts and /proc/self/cgroup."""
    try:
        mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        own = Path("/proc/self/cgroup").read_text() if own is None else own
    except OSError:
        return Found(0, notes=("no control groups",))
    lines = [line.split(":", 2) for line in own.splitlines() if line.count(":") >= 2]
    folders: dict[str, Path] = {}
    for kind, place, options in _mounts(mounts):
        if kind != "cgroup":
            continue
        for name in (*_WANTED, "cpuacct"):
            mine = next((words[2] for words in lines if name in words[1].split(",")), None)
            if name in options and mine is not None:
                for folder in (Path(place + mine), Path(place)):
                    if _usable(folder):
                        folders[name] = folder
                        break
    if folders:
        return Found(1, folders)
    mine = next((words[2] for words in lines if words[0] == "0"), None)
    for kind, place, _options in _mounts(mounts):
        if kind == "cgroup2" and mine is not None and (base := _second(Path(place), mine)):
            names = (base / "cgroup.subtree_control").read_text().split()
            return Found(2, {name: base for name in _WANTED if name in names})
    return Found(0, notes=("no control group here may be written: memory and cpu are watched, not enforced",))


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _second(root: Path, own: str) -> Path | None:
    """The nearest group above ours that we may divide. Ours holds processes, so its children can have no limits."""
    place = Path(own.lstrip("/"))
    for above in place.parents if own != "/" else [Path()]:
        folder = root / above
        if not _usable(folder):
            continue
        try:
            there = (folder / "cgroup.controllers").read_text().split()
        except OSError:
            continue
        for name in _WANTED:
            if name in there:
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{name}")
        with contextlib.suppress(OSError):
            if "memory" in (folder / "cgroup.subtree_control").read_text().split():
                return folder
    return None


def started(pid: int) -> str | None:
    """When a process started, as the kernel counts; None when there is none, or it is dead and not reaped."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if words[0] in "ZX" else words[19]
    except (OSError, IndexError):
        return None


def parent_of(pid: int) -> int | None:
    """Return a process's parent, or None when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


class Group:
    """One sandbox's group. `has` names the controllers that are set and can be relied on."""

    _numbers = itertools.count(1)  # groups are made in several threads at once

    def __init__(self, found: Found, limits: Limits) -> None:
        """Make and limit it.

        Raises:
            OSError: it cannot be made, or a limit cannot be set; nothing of it is left.
        """
        me = os.getpid()
        name = f"{_PREFIX}{me}-{started(me) or 0}-{next(Group._numbers)}"
        self._version = found.version
        self._folders: dict[str, Path] = {}
        self.has = found.has
        try:
            for controller, base in found.folders.items():
                folder = base / name
                if folder not in self._folders.values():
                    folder.mkdir()
                self._folders[controller] = folder
            self._limit(limits)
        except OSError:
            self.remove()
            raise

    @property
    def files(self) -> list[str]:
        """Where a process without threads writes `0` to put itself in; nothing where that is no quicker than `join`.

        Version 1 has a file for single threads, and moving oneself through it waits for nobody. Every other way makes
        the kernel wait 6 to 10 ms for all that fork or exec anywhere, and makes those wait too.
        """
        if self._version != 1:
            return []
        return sorted({str(folder / "tasks") for folder in self._folders.values()})

    def join(self, pid: int) -> None:
        """Put a process in. Blocking: the kernel lets the first move wait 6 to 10 ms for all its readers.

        Raises:
            OSError: it could not be moved into every folder.
        """
        for folder in set(self._folders.values()):
            # os.write, because a buffered write reports its error when nobody looks any more.
            fd = os.open(folder / "cgroup.procs", os.O_WRONLY)
            try:
                os.write(fd, str(pid).encode())
            finally:
                os.close(fd)

    def _write(self, controller: str, file: str, value: int | str, *, needed: bool = True) -> None:
        folder = self._folders.get(controller)
        if folder is None or (not needed and not (folder / file).exists()):
            return
        fd = os.open(folder / file, os.O_WRONLY)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def _limit(self, limits: Limits) -> None:
        size = limits.memory_mb << 20
        quota = int(limits.cpu * _PERIOD_US)
        # One more: bubblewrap's own process outside is in it too.
        self._write("pids", "pids.max", limits.pids + (self._version == 1))
        if self._version == 1:
            self._write("memory", "memory.limit_in_bytes", size)
            self._write("memory", "memory.memsw.limit_in_bytes", size, needed=False)
            self._write("memory", "memory.swappiness", 0, needed=False)
            # What lies in sockets of the network is counted apart in version 1, and not at all without a limit.
            self._write("memory", "memory.kmem.tcp.limit_in_bytes", size // _SOCKETS, needed=False)
            self._write("cpu", "cpu.cfs_period_us", _PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", quota)
        else:
            self._write("memory", "memory.max", size)
            self._write("memory", "memory.swap.max", 0, needed=False)
            self._write("cpu", "cpu.max", f"{quota} {_PERIOD_US}")

    def holds(self, pid: int) -> bool:
        """Whether that process truly is in every folder of this group: a join can fail without a word."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return False
        ends = {name: line.split(":", 2)[2] for line in lines for name in line.split(":", 2)[1].split(",")}
        return all(
            ends.get(controller if self._version == 1 else "", "").endswith("/" + folder.name)
            for controller, folder in self._folders.items()
        )

    def _counter(self, controller: str, files: dict[int, str], key: str) -> int:
        folder = self._folders.get(controller)
        if folder is None:
            return 0
        try:
            for line in (folder / files[self._version]).read_text().splitlines():
                name, _space, value = line.partition(" ")
                if name == key:
                    return int(value)
        except (OSError, ValueError):
            return 0
        return 0

    def counters(self) -> tuple[int, int]:
        """How often the kernel killed for memory, and refused a process, in this group."""
        memory = self._counter("memory", {1: "memory.oom_control", 2: "memory.events"}, "oom_kill")
        return memory, self._counter("pids", {1: "pids.events", 2: "pids.events"}, "max")

    def cpu_seconds(self) -> float | None:
        """CPU time of everything that ever ran in it; None when not counted here."""
        if self._version == 2:
            return self._counter("cpu", {2: "cpu.stat"}, "usage_usec") / 1e6 if "cpu" in self._folders else None
        if "cpuacct" not in self._folders:
            return None
        try:
            return int((self._folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        except (OSError, ValueError):
            return None

    def remove(self, patience_s: float = 1.0) -> bool:
        """Remove it; a group is busy for a moment after its last process ended. Blocking; returns if it is gone."""
        return all([_remove(folder, patience_s) for folder in set(self._folders.values())])


def _remove(folder: Path, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            folder.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)


def reap(found: Found) -> int:
    """Remove the groups of daemons that are no more, killing what is still in them. Blocking; returns how many."""
    count = 0
    for base in set(found.folders.values()):
        for folder in base.glob(_PREFIX + "*"):
            named = _NAME.match(folder.name)
            if named is None or started(int(named[1])) == named[2]:
                continue
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), 9)
            count += _remove(folder, 1.0)
    return count
