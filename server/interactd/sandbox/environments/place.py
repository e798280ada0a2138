"""An environment while the daemon runs: who has it, its sandbox, its kernel."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interactd.errors import SandboxFailed
from interactd.sandbox.disks import Rooms
from interactd.sandbox.environments.kernel.talk import Kernel
from interactd.sandbox.environments.ways import Way
from interactd.sandbox.port import Exit, Launcher, Limits, Mount, Output, Sandbox, Spec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sandbox is started with; another one is started when it changes."""

    launcher: Launcher
    limits: Limits
    mounts: tuple[Mount, ...]
    rules: str
    """Network and variables, as text to compare."""


class Place:
    """The running part of one environment. Who holds `lock` may use the rest."""

    def __init__(self, id: str, folder: Path, clock: Callable[[], float]) -> None:
        self.id = id
        self.folder = folder
        self.lock = asyncio.Lock()
        self.holder: str | None = None
        self.waiting = 0
        self.kernel_used = False
        """Whether code has run in a kernel of it, so that its end is a loss."""
        self._fresh = False
        """Whether no code has run yet in the kernel that is there."""
        self._clock = clock
        self.used_at = clock()
        self.sandbox: Sandbox | None = None
        self.kernel: Kernel | None = None
        self.way: Way | None = None
        self._running: Wanted | None = None
        self._starting = asyncio.Lock()
        self._python = asyncio.Lock()
        self.rooms: Rooms | None = None
        """Where its files are, while somebody has it."""

    @property
    def workspace(self) -> Path:
        assert self.rooms is not None, "only a lease reaches the files"
        return self.rooms.workspace

    def touch(self) -> None:
        self.used_at = self._clock()

    async def start(self, wanted: Wanted, open_way: Callable[[], Any]) -> Sandbox:
        """Return the running sandbox, started now if there is none like it."""
        async with self._starting:
            if self.sandbox is not None and self._running == wanted:
                await self.sandbox.wake()
                return self.sandbox
            await self.stop()
            rooms = self.rooms
            assert rooms is not None, "only a lease starts a sandbox"
            way: Way = await open_way()
            try:
                self.sandbox = await wanted.launcher.start(
                    Spec(
                        environment_id=self.id,
                        workspace=rooms.workspace,
                        home=rooms.home,
                        limits=wanted.limits,
                        mounts=wanted.mounts,
                        env=way.env,
                        egress=way.egress,
                        quota=rooms.quota,
                    )
                )
            except BaseException:
                await way.aclose()
                raise
            self.way, self._running = way, wanted
            return self.sandbox

    async def stop(self) -> None:
        """End the kernel and the sandbox. Files stay."""
        kernel, sandbox, way = self.kernel, self.sandbox, self.way
        self.kernel = self.sandbox = self.way = self._running = None
        if kernel is not None:
            await kernel.aclose()
        if sandbox is not None:
            await sandbox.aclose()
        if way is not None:
            await way.aclose()

    @asynccontextmanager
    async def python(self, start: Callable[[], Any], *, idle: bool = False) -> AsyncGenerator[tuple[Kernel, bool]]:
        """Take the kernel for one piece of code; also says whether an earlier one's state was lost. With `idle`, only
        have it there: it has no state yet that could be lost."""
        async with self._python:
            for attempt in (1, 2):
                sandbox: Sandbox = await start()
                if self.kernel is None or self.kernel.dead:
                    kernel = await self._new_kernel(sandbox)
                    if kernel.dead and attempt == 1:
                        # The sandbox died while nobody looked; the next one is fresh.
                        await self.stop()
                        continue
                    self.kernel, self._fresh = kernel, True
                lost = self._fresh and self.kernel_used
                if not idle:
                    self._fresh, self.kernel_used = False, True
                yield self.kernel, lost
                break
            if self.kernel is not None and self.kernel.dead:
                ended, self.kernel = self.kernel.exit, None
                if ended is not None:
                    await self.ended(ended)

    async def _new_kernel(self, sandbox: Sandbox) -> Kernel:
        kernel = Kernel(sandbox, fallback=os.path.realpath(sys.executable))
        try:
            if not await kernel.alive():
                await kernel.aclose()
        except BaseException:
            await asyncio.shield(kernel.aclose())
            raise
        return kernel

    async def ended(self, last: Exit) -> None:
        """Look at how a command ended: a sandbox that is spent or dead is not used again."""
        if last.why in ("cpu", "sandbox_died"):
            await self.stop()

    async def settle(self) -> None:
        """After a run: nothing of it goes on. The kernel is kept only if it is seen to be quiet, and is held still:
        what it says of itself is what the code in it lets it say."""
        kernel, sandbox = self.kernel, self.sandbox
        if kernel is None or sandbox is None:
            return
        if sandbox.isolation.pids != "enforced" or kernel.dead or not await kernel.settle():
            await kernel.aclose()
            self.kernel = None
        elif not await sandbox.rest():
            await self.stop()

    async def commands(
        self, argv: list[str], start: Callable[[], Any], *, stdin: bytes = b"", wall_s: float | None = None
    ) -> AsyncIterator[Output | Exit]:
        """Run a command; a sandbox found dead is replaced once, before anything ran."""
        for attempt in (1, 2):
            sandbox: Sandbox = await start()
            stream = sandbox.exec(argv, stdin=stdin, wall_s=wall_s)
            last: Exit | None = None
            begun = False
            try:
                async for item in stream:
                    begun = True
                    if isinstance(item, Exit):
                        last = item
                        break
                    yield item
            except SandboxFailed:
                if begun or attempt == 2:
                    raise
                await self.stop()
                continue
            finally:
                await close(stream)
            if last is not None:
                await self.ended(last)
                yield last
            return


async def close(stream: AsyncIterator[Any]) -> None:
    """Close an iterator that may be a generator: that is what ends its command."""
    closing = getattr(stream, "aclose", None)
    if closing is not None:
        await closing()
