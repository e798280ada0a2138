"""A whole set of environments over a real store and real sandboxes, and the check that they leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from interactd.nouns import Interaction, Session
from interactd.paths import Paths, find
from interactd.sandbox.environments import CaptureLimits, LocalEnvironments
from interactd.sandbox.environments.ways import Ways
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite.store import SqliteStore

DAY = 86_400.0


class Clock:
    """The time of day, moved by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds


class World:
    """A data folder, its store and its environments; `restart` is what a new daemon does."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.paths: Paths = find({"INTERACTD_HOME": str(home)}).make()
        self.store = SqliteStore(self.paths.database)
        self.clock = Clock()
        self.options = options
        self._numbers = itertools.count(options.get("numbers_from", 1))
        self.environments = self._environments()

    def _environments(self) -> LocalEnvironments:
        limits: CaptureLimits | None = self.options.get("capture_limits")
        ways: Ways | None = self.options.get("ways")
        images: bool = self.options.get("images", True)
        return LocalEnvironments(
            self.paths,
            self.store,
            all_launchers(self.paths),
            clock=self.clock,
            capture_limits=limits,
            ways=ways,
            images=images,
        )

    async def restart(self) -> LocalEnvironments:
        await self.environments.aclose()
        self.environments = self._environments()
        await self.environments.start()
        return self.environments

    async def interaction(self, session: str | None = None) -> str:
        """Put a running interaction into the store, in a session of its own unless one is named."""
        number = next(self._numbers)
        now = time.time()
        if session is None:
            session = f"ses_{number:026d}"
            await self.store.create_session(Session(session, now, now))
        id = f"int_{number:026d}"
        await self.store.accept(Interaction(id, session, "in_progress", now, epoch=1), [], expires_at=None)
        return id

    async def forget(self, interaction: str) -> None:
        """Delete an interaction's session, and then what it kept, as the engine does."""
        found = await self.store.get_interaction(interaction)
        await self.store.settle(interaction, 1, "completed", now=time.time())
        await self.store.delete_session(found.session_id, time.time())
        await self.environments.delete_artifacts(found.session_id)

    def folder(self, environment: str) -> Path:
        """An environment's workspace on this machine, which must be at hand (in use, or lately used)."""
        whole = self.paths.data / "environments" / environment
        return whole / "disk" / "ws" if (whole / "disk.img").exists() else whole / "ws"

    def contents(self) -> list[Path]:
        """Every file in the folder of kept contents."""
        return [path for path in (self.paths.data / "artifacts").rglob("*") if path.is_file()]


@asynccontextmanager
async def world(home: Path, **options: Any) -> AsyncGenerator[World]:
    made = World(home, **options)
    await made.store.open()
    try:
        await made.environments.start()
        yield made
    finally:
        await made.environments.aclose()
        await made.store.aclose()
        assert processes_over(home) == []
        assert disks_below(home) == []


def processes_over(folder: Path) -> list[str]:
    """Processes that see something of the folder mounted (those of sandboxes), or name it in their command line."""
    found: list[str] = []
    disks = set(loops_below(folder))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                mounts = (entry / "mountinfo").read_text(errors="replace")
            except OSError:
                continue
            if "inside/spawner.py" in line:
                continue  # the helper outside of all sandboxes, which is there while the daemon is
            if str(folder) in line or any(_shows(mount.split(), folder, disks) for mount in mounts.splitlines()):
                found.append(f"{entry.name}: {line[:200]}")
    return found


def _shows(mount: list[str], folder: Path, disks: set[str]) -> bool:
    """Whether it is a view of the folder. Where it stands in its own place, a mount table was merely copied."""
    if mount[4] == str(folder) or mount[4].startswith(f"{folder}/"):
        return False
    return str(folder) in mount[3] or mount[2] in disks


def loops_below(folder: Path) -> list[str]:
    """Device numbers of the loop devices over files beneath a folder."""
    found: list[str] = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith(f"{folder}/"):
                found.append((file.parents[1] / "dev").read_text().strip())
    return found


def disks_below(folder: Path) -> list[str]:
    """Mounts and loop devices that were left behind; a device goes a moment after its mount."""
    deadline = time.monotonic() + 5
    while True:
        left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]
        left += [number for number in loops_below(folder) if not _held_by_others(number)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def _held_by_others(device: str) -> bool:
    """Whether a process that is not ours has it mounted: it copied this machine's mount table in the meantime."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(line.split()[2] == device for line in (entry / "mountinfo").read_text().splitlines()):
                    return True
    return False


def sandboxed(marker: str) -> list[int]:
    """Processes on the host whose command line holds the marker: a sandbox cannot hide one from outside."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.decode(errors="replace") == marker for word in line):
                found.append(int(entry.name))
    return found


async def until_sandboxed(marker: str, within_s: float = 20) -> None:
    """Wait until a process with the marker runs in some sandbox."""
    async with asyncio.timeout(within_s):
        while not sandboxed(marker):  # noqa: ASYNC110 - no event tells of a process in a sandbox
            await asyncio.sleep(0.01)
