"""Starting a supervisor through the spawner: what every launcher with a process of its own has in common."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from interactd.errors import SandboxFailed
from interactd.sandbox.launchers.spawner import Spawner

START_S = 20.0
STDERR, CONTROL = 2, 3
T = TypeVar("T")
Undo = list[Callable[[], Awaitable[None]]]


@dataclass(slots=True)
class Pipes:
    """Descriptors of one start; whatever is left is closed at its end."""

    fds: set[int] = field(default_factory=set[int])

    def pipe(self) -> tuple[int, int]:
        pair = os.pipe()
        self.fds.update(pair)
        return pair

    def keep(self, fd: int) -> int:
        self.fds.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Close these, or all that are left."""
        for fd in fds or tuple(self.fds):
            if fd in self.fds:
                self.fds.discard(fd)
                os.close(fd)


@dataclass(slots=True)
class Booted:
    """A program that was started with our socket as its descriptor 3 and a pipe as its stderr."""

    pid: int
    kill: Callable[[], None]
    control: socket.socket
    stderr: int
    ended: asyncio.Event
    at_end: list[Callable[[int], None]]

    async def said(self) -> str:
        """Return what it wrote to stderr before it ended."""
        return (await read_pipe(self.stderr, 4096)).decode(errors="replace").strip()[-600:]


async def boot(spawner: Spawner, plan: dict[str, Any], extra: Sequence[int], pipes: Pipes, undo: Undo) -> Booted:
    """Fork and exec `plan` (see `inside/spawner.py`); `extra` become its descriptors from 4 on.

    Raises:
        SandboxFailed: it could not be started; `undo` has what is left to do.
    """
    ours, theirs = socket.socketpair()
    undo.append(closer(ours))
    error, error_write = pipes.pipe()
    stderr, stderr_write = pipes.pipe()
    ended = asyncio.Event()
    at_end: list[Callable[[int], None]] = []

    def exited(status: int) -> None:
        ended.set()
        for tell in at_end:
            tell(status)

    try:
        plan = {**plan, "fds": [STDERR, CONTROL, *range(4, 4 + len(extra))]}
        sent = [error_write, stderr_write, theirs.fileno(), *extra]
        pid, kill = await spawner.spawn(plan, sent, exited)
    finally:
        theirs.close()
        pipes.close(error_write, stderr_write, *extra)

    async def gone() -> None:
        kill()
        async with asyncio.timeout(5):
            await ended.wait()

    undo.append(gone)
    if problem := await read_pipe(error, 4096):
        raise SandboxFailed(f"the sandbox could not be prepared: {problem.decode(errors='replace')}")
    return Booted(pid, kill, ours, stderr, ended, at_end)


async def starting(work: Callable[[Pipes, Undo], Awaitable[T]]) -> T:
    """Run a start, bounded; whatever it began is undone when it fails or is cancelled.

    Raises:
        SandboxFailed: it took longer than 20 s, or the system refused something.
    """
    pipes, undo = Pipes(), Undo()
    try:
        async with asyncio.timeout(START_S):
            return await work(pipes, undo)
    except TimeoutError:
        await unwind(undo)
        raise SandboxFailed(f"the sandbox did not start within {START_S:.0f} s") from None
    except OSError as error:
        await unwind(undo)
        raise SandboxFailed(f"the sandbox did not start: {error}") from error
    except BaseException:
        await asyncio.shield(unwind(undo))
        raise
    finally:
        pipes.close()


async def unwind(undo: Undo) -> None:
    for action in reversed(undo):
        await action()


async def read_pipe(fd: int, limit: int) -> bytes:
    """Read a pipe of ours until it ends, or `limit` bytes came."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    found = b""
    try:
        while len(found) < limit:
            try:
                data = os.read(fd, limit - len(found))
            except BlockingIOError:
                ready.clear()
                await ready.wait()
                continue
            if not data:
                break
            found += data
    finally:
        loop.remove_reader(fd)
    return found


async def either(good: asyncio.Event, bad: asyncio.Event) -> bool:
    """Wait for one of two events; returns whether it was the good one."""
    waits = [asyncio.ensure_future(event.wait()) for event in (good, bad)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return good.is_set()


def closer(sock: socket.socket) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        sock.close()

    return close


async def in_thread(work: Callable[[], object]) -> None:
    await asyncio.to_thread(work)


class Killer:
    """Ends one process by a descriptor of it, which cannot hit another that got its number meanwhile."""

    def __init__(self, pid: int, otherwise: Callable[[], None]) -> None:
        self._otherwise = otherwise
        try:
            self._fd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            self._fd = -1

    def __call__(self) -> None:
        if self._fd < 0:
            self._otherwise()
            return
        try:
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except OSError:
            self._otherwise()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
