"""The host's side of a sandbox with a supervisor in it: commands, their output, and the truth about how they ended.

Output comes over pipes made here, whose other ends went into the sandbox, so the supervisor never touches it. What the
supervisor says is taken as a claim: frames have one size, each command ends at most once, and anything else ends the
sandbox. Time, output, memory and disk are judged on this side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from interactd.errors import InvalidArgument, SandboxFailed
from interactd.sandbox.port import Exit, Isolation, Limits, Output, Why

READY, EXEC, KILL, EXIT = 1, 2, 3, 4
HEADER, FRAME = 12, 32
NO_PROCESS = 1 << 24
_CHUNK = 65536
_BUFFERED = 4
_KILL_S = 1.5
_SEND_S = 10.0
_DRAIN_S = 0.3
_MAX_BODY = 4_000_000


class Watch(Protocol):
    """What the launcher observes from outside. All cheap, none blocking."""

    def begin(self) -> object:
        """Take the counters before a command."""
        ...

    def cause(self, before: object) -> Why | None:
        """What the kernel did to the sandbox since `begin`: memory, pids, or nothing."""
        ...

    def end(self) -> None:
        """A command ended; there is one `end` for each `begin`."""
        ...


@dataclass(slots=True)
class _Run:
    """One command under way."""

    number: int
    output_bytes: int
    event: asyncio.Event = field(default_factory=asyncio.Event)
    chunks: deque[Output] = field(default_factory=deque[Output])
    open: dict[int, str] = field(default_factory=dict[int, str])
    paused: set[int] = field(default_factory=set[int])
    printed: int = 0
    ended: tuple[int, int, int] | None = None
    why: Why | None = None
    killed: bool = False


class Supervised:
    """A running sandbox whose first process is our supervisor. Made by launchers, see `start`."""

    def __init__(
        self,
        control: socket.socket,
        *,
        isolation: Isolation,
        limits: Limits,
        env: Mapping[str, str],
        kill: Callable[[], None],
        watch: Watch | None = None,
        still: Callable[[bool], bool] = lambda _on: False,
        translate: Callable[[str], str] = lambda path: path,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._isolation = isolation
        self._limits = limits
        self._env = dict(env)
        self._kill = kill
        self._watch = watch
        self._still = still
        self._resting = False
        self._translate = translate
        self._inbox = bytearray()
        self._runs: dict[int, _Run] = {}
        self._numbers = 0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cleanups: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self._closed: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        """Set when the first process is no more, and with it everything else."""
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._readable)

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    def cleanup(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` when the sandbox is closed, last added first."""
        self._cleanups.append(action)

    def own(self, work: Awaitable[None]) -> None:
        """Keep a task for as long as the sandbox lives."""

        async def run() -> None:
            await work

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def died(self, _status: int = 0) -> None:
        """The first process ended."""
        self.gone.set()
        self._unread()
        for run in self._runs.values():
            run.event.set()

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | AsyncIterable[bytes] = b"",
        cwd: str = "/workspace",
        env: Mapping[str, str] | None = None,
        wall_s: float | None = None,
        output_bytes: int | None = None,
    ) -> AsyncIterator[Output | Exit]:
        """See `Sandbox.exec`. Raises InvalidArgument for what cannot be a command, SandboxFailed when it is gone."""
        body = self._body(argv, cwd, env)
        if self._closing or self.gone.is_set():
            raise SandboxFailed("the sandbox has ended", repair="Start a new one; files in the workspace are kept.")
        self._numbers += 1
        run = _Run(self._numbers, self._limits.output_bytes if output_bytes is None else output_bytes)
        began = time.monotonic()
        before = self._watch.begin() if self._watch else None
        deadline = began + (self._limits.wall_s if wall_s is None else wall_s)
        self._runs[run.number] = run
        feeder: asyncio.Task[None] | None = None
        try:
            into = await self._send_exec(run, body)
            feeder = self._loop.create_task(_feed(into, stdin))
            self._tasks.add(feeder)
            feeder.add_done_callback(self._tasks.discard)
            # Not in the task itself: one that is cancelled before its first step runs no `finally`.
            feeder.add_done_callback(lambda _task: os.close(into))
            async for output in self._outputs(run, deadline):
                yield output
            yield self._exit(run, began, before)
        finally:
            ender = self._loop.create_task(self._end(run, feeder))
            self._tasks.add(ender)
            ender.add_done_callback(self._tasks.discard)
            await asyncio.shield(ender)

    async def rest(self) -> bool:
        """See `Sandbox.rest`."""
        self._resting = True
        return await asyncio.to_thread(self._still, True)

    async def wake(self) -> None:
        """See `Sandbox.wake`."""
        if self._resting:
            await asyncio.to_thread(self._still, False)
            self._resting = False

    async def aclose(self) -> None:
        """See `Sandbox.aclose`. May be called more than once, and by several tasks."""
        self._closing = True
        if self._closed is None:
            self._closed = self._loop.create_task(self._close())
        await asyncio.shield(self._closed)

    # -- a command ---------------------------------------------------------------------------------------------------

    def _body(self, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None) -> bytes:
        words = [self._translate(cwd), str(len(argv)), *argv]
        words += [f"{name}={value}" for name, value in {**self._env, **(env or {})}.items()]
        if not argv or not argv[0] or any("\0" in word for word in words):
            raise InvalidArgument("a command needs a program, and no NUL in any word", field="argv")
        body = "\0".join(words).encode(errors="surrogateescape")
        if len(body) > _MAX_BODY:
            raise InvalidArgument(
                f"a command of {len(body)} bytes is too long", field="argv", repair="Put the text into a file or stdin."
            )
        return body

    async def _send_exec(self, run: _Run, body: bytes) -> int:
        pipes = [os.pipe() for _ in range(3)]
        try:
            theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
            await self._send(EXEC, run.number, body, theirs)
        except BaseException:
            for pair in pipes:
                os.close(pair[0])
                os.close(pair[1])
            raise
        for fd in theirs:
            os.close(fd)
        for fd, stream in ((pipes[1][0], "stdout"), (pipes[2][0], "stderr")):
            os.set_blocking(fd, False)
            run.open[fd] = stream
            self._loop.add_reader(fd, self._output, run, fd)
        os.set_blocking(pipes[0][1], False)
        return pipes[0][1]

    async def _send(self, kind: int, number: int, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        async with self._turn:
            head = bytes([kind, 0, 0, 0]) + number.to_bytes(4, "little") + len(body).to_bytes(4, "little")
            whole = False
            try:
                async with asyncio.timeout(_SEND_S):
                    if fds:
                        await _writable(self._control, lambda: socket.send_fds(self._control, [head], list(fds)))
                    else:
                        await self._loop.sock_sendall(self._control, head)
                    if body:
                        await self._loop.sock_sendall(self._control, body)
                whole = True
            except OSError as error:  # a time-out is one
                raise SandboxFailed(f"the sandbox has ended: {error or 'its supervisor does not read'}") from None
            finally:
                if not whole:
                    # After half a message the rest of the talk would be nonsense.
                    self._kill()

    async def _outputs(self, run: _Run, deadline: float) -> AsyncIterator[Output]:
        drain: float | None = None
        while True:
            while run.chunks:
                output = run.chunks.popleft()
                room = run.output_bytes - run.printed
                run.printed += len(output.data)
                self._resume(run)
                if len(output.data) > room:
                    if room > 0:
                        yield Output(output.stream, output.data[:room])
                    self._stop(run, "output")
                    run.chunks.clear()
                    break
                yield output
            now = time.monotonic()
            if self.gone.is_set() or (run.ended is not None and (not run.open or run.why == "output")):
                return
            if run.ended is not None or run.why == "output":
                # Whoever still holds the pipe is not of this command's tree: a moment for what is in it, no more.
                drain = drain or now + (_DRAIN_S if run.ended is not None else _KILL_S)
                if now >= drain:
                    return
            if now >= deadline:
                self._stop(run, "timeout")
                deadline = float("inf")
            until = min(deadline, drain or float("inf"))
            run.event.clear()
            if run.chunks or self.gone.is_set():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if until == float("inf") else max(0.0, until - now)):
                    await run.event.wait()

    def over(self, why: Why) -> None:
        """The sandbox is over a limit: stop its newest command. It may be its doing, and an older one (a kernel with
        state) be spared; if not, this is called again."""
        for number in sorted(self._runs, reverse=True):
            run = self._runs[number]
            if run.ended is None and not run.killed:
                self._stop(run, why)
                run.event.set()
                return

    def _stop(self, run: _Run, why: Why) -> None:
        """Kill a command's tree; the first reason is the true one."""
        run.why = run.why or why
        if not run.killed and run.ended is None:
            run.killed = True
            self.own(self._press(run))

    async def _press(self, run: _Run) -> None:
        try:
            async with asyncio.timeout(_KILL_S):
                await self._send(KILL, run.number)
                while run.ended is None and not self.gone.is_set():
                    run.event.clear()
                    await run.event.wait()
                    await asyncio.sleep(0)
        except (TimeoutError, SandboxFailed):
            # The tree did not end in time: whatever holds it up ends with the whole sandbox.
            self._kill()

    def _exit(self, run: _Run, began: float, before: object) -> Exit:
        wall = time.monotonic() - began
        caused = self._watch.cause(before) if self._watch else None
        if run.ended is None:
            why: Why = run.why or ("cancelled" if self._closing else caused or "sandbox_died")
            return Exit(code=None, signal=9, why=why, wall_s=wall)
        status, cpu, rss = run.ended
        if status == NO_PROCESS:
            return Exit(code=None, signal=9, why="pids", wall_s=wall)
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else None
        why = run.why or "exit"
        if why == "exit" and code != 0:
            by_signal: dict[int, Why] = {signal.SIGXCPU: "cpu", signal.SIGXFSZ: "disk"}
            # A shell reports its child's signal as 128 + number.
            why = by_signal.get(number or code - 128) or caused or "exit"
            if why == "exit" and (number or code - 128) == signal.SIGKILL and cpu / 1e6 >= self._limits.cpu_s:
                why = "cpu"
        return Exit(None if number else code, number, why, wall, cpu / 1e6, rss * 1024)

    async def _end(self, run: _Run, feeder: asyncio.Task[None] | None) -> None:
        if feeder is not None:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
        if run.ended is None and not self.gone.is_set():
            self._stop(run, "cancelled")
            limit = time.monotonic() + _KILL_S + 0.5
            while run.ended is None and not self.gone.is_set() and time.monotonic() < limit:
                run.event.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await run.event.wait()
        for fd in list(run.open):
            self._close_output(run, fd)
        if self._runs.pop(run.number, None) is not None and self._watch:
            self._watch.end()

    # -- descriptors -------------------------------------------------------------------------------------------------

    def _output(self, run: _Run, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            run.chunks.append(Output("stdout" if run.open[fd] == "stdout" else "stderr", data))
            if len(run.chunks) >= _BUFFERED:
                self._loop.remove_reader(fd)
                run.paused.add(fd)
        else:
            self._close_output(run, fd)
        run.event.set()

    def _resume(self, run: _Run) -> None:
        while run.paused and len(run.chunks) < _BUFFERED:
            fd = run.paused.pop()
            self._loop.add_reader(fd, self._output, run, fd)

    def _close_output(self, run: _Run, fd: int) -> None:
        if run.open.pop(fd, None) is not None:
            run.paused.discard(fd)
            self._loop.remove_reader(fd)
            os.close(fd)

    def _readable(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._inbox += data
        while len(self._inbox) >= FRAME:
            frame = bytes(self._inbox[:FRAME])
            del self._inbox[:FRAME]
            if not self._take(frame):
                data = b""
                break
        if not data:
            # Closed, or it says what it must not: either way it is no longer ours.
            self._unread()
            self._kill()

    def _take(self, frame: bytes) -> bool:
        if frame[0] == READY and not self.ready.is_set():
            self.ready.set()
            return True
        run = self._runs.get(int.from_bytes(frame[4:8], "little"))
        if frame[0] != EXIT or (run is not None and run.ended is not None):
            return False
        if run is None:
            return int.from_bytes(frame[4:8], "little") <= self._numbers
        status = int.from_bytes(frame[8:12], "little")
        if status != NO_PROCESS and status & ~0xFFFF:
            return False
        run.ended = (status, int.from_bytes(frame[12:20], "little"), int.from_bytes(frame[20:28], "little"))
        run.event.set()
        return True

    def _unread(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())

    async def _close(self) -> None:
        self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.gone.wait()
        for run in list(self._runs.values()):
            # A consumer that never comes back must not keep descriptors; one that does gets what was read.
            for fd in list(run.open):
                self._close_output(run, fd)
            run.event.set()
        self._unread()
        self._control.close()
        me = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for action in reversed(self._cleanups):
            await action()


async def _writable(sock: socket.socket, action: Callable[[], int]) -> None:
    while True:
        try:
            action()
            return
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def _feed(fd: int, stdin: bytes | AsyncIterable[bytes]) -> None:
    """Write a command's input. A command that does not read loses the rest, as with a pipe."""
    try:
        if isinstance(stdin, bytes):
            await _write(fd, stdin)
        else:
            async for data in stdin:
                await _write(fd, data)
    except OSError:
        return


async def _write(fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left[:_CHUNK]) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(fd, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(fd)
