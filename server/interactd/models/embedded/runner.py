"""One supervised child for one model: started on first use, unloaded when idle, started again after a crash.

A child serves one generation at a time (one slot), so callers wait here in order; a caller that goes away never reaches
it. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2

from interactd.errors import ProviderTimeout, ProviderUnavailable
from interactd.models.embedded.child import Start
from interactd.models.embedded.log import ChildLog
from interactd.models.embedded.memory import available_bytes
from interactd.models.embedded.settings import EmbeddedSettings

_logger = logging.getLogger(__name__)

_CRASHES = 3
_CRASH_WINDOW_S = 300.0
_COOL_DOWN_S = 60.0
_BACKOFF_S = 0.5
_STOP_S = 1.5
# Names, not the whole environment: the child needs no keys of any provider.
_ENVIRONMENT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"),
)

State = Literal["stopped", "loading", "ready", "busy"]


@dataclass(slots=True)
class Server:
    """A running llama-server: a client whose base URL and key are set, and how to ask what became of it."""

    client: httpx2.AsyncClient
    process: asyncio.subprocess.Process | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    stopping: bool = False
    supervisor: asyncio.Task[None] | None = None
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def why_gone(self) -> str | None:
        """Say how the child ended, or None if it has not (or is not ours). Waits at most a second."""
        if self.process is None:
            return None
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(asyncio.shield(self.process.wait()), 1.0)
            return _ending(code, self.tail)
        return None


class Runner:
    """The one child of one model.

    Args:
        name: the model's name, for messages and the log.
        path: the weights, already found right.
        ram: bytes it will take once loaded.
        make_room: unloads other models' idle children when memory is short.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        ram: int,
        settings: EmbeddedSettings,
        log: ChildLog,
        make_room: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.path = path
        self.ram = ram
        self._settings = settings
        self._log = log
        self._make_room = make_room
        self._server: Server | None = None
        self._starting: asyncio.subprocess.Process | None = None
        self._closed = False
        self._users = 0
        self._idle_since = time.monotonic()
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._slot = asyncio.Lock()
        self._crashes: deque[float] = deque(maxlen=_CRASHES)
        self._last_words = ""

    @property
    def state(self) -> State:
        """Whether the child runs and works."""
        if self._starting is not None:
            return "loading"
        if self._server is None:
            return "stopped"
        return "busy" if self._slot.locked() else "ready"

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        process = self._server.process if self._server else None
        return process.pid if process and process.returncode is None else None

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncGenerator[Server]:
        """Wait for the slot, start the child if need be, and have it to oneself.

        Raises:
            ProviderUnavailable: it cannot be started, keeps crashing, or there is not enough memory.
            ProviderTimeout: it did not start in time.
        """
        self._users += 1
        self._changed.set()
        try:
            async with self._slot:
                server = await self._running()
                server.free.clear()
                try:
                    yield server
                finally:
                    server.free.set()
        finally:
            self._users -= 1
            self._idle_since = time.monotonic()
            self._changed.set()

    async def unload(self) -> None:
        """Stop the child if nobody uses or waits for it."""
        async with self._lock:
            if not self._users and self._server is not None:
                await self._stop(self._server)

    async def aclose(self) -> None:
        """Stop the child, whatever it does, within about two seconds; further leases are refused."""
        self._closed = True
        if self._starting is not None:
            # Its starter holds the lock, and lets go as soon as it sees this.
            with contextlib.suppress(ProcessLookupError):
                self._starting.kill()
        async with self._lock:
            if self._server is not None:
                await self._stop(self._server)

    async def _running(self) -> Server:
        async with self._lock:
            if self._server is not None:
                if self._server.process is not None and self._server.process.returncode is None:
                    return self._server
                self._server = None
            await self._back_off()
            await self._enough_memory()
            if self._closed:
                raise ProviderUnavailable("The embedded model is being shut down.", repair="Try again in a moment.")
            try:
                self._server = await self._start()
            finally:
                self._starting = None
            return self._server

    async def _back_off(self) -> None:
        now = time.monotonic()
        recent = [moment for moment in self._crashes if now - moment < _CRASH_WINDOW_S]
        if len(recent) >= _CRASHES and now - recent[-1] < _COOL_DOWN_S:
            raise ProviderUnavailable(
                f"The embedded model {self.name} failed {len(recent)} times in a row. {self._last_words}".strip(),
                repair=f"See {self._log.path}; it will be tried again in a minute. Use another model meanwhile.",
            )
        if recent:
            await asyncio.sleep(_BACKOFF_S * 2 ** (len(recent) - 1))

    async def _enough_memory(self) -> None:
        free = available_bytes()
        if free is not None and free < self.ram:
            await self._make_room()
            free = available_bytes()
        if free is not None and free < self.ram:
            raise ProviderUnavailable(
                f"{self.name} needs about {self.ram // 1_000_000} MB of memory, and {free // 1_000_000} MB are free.",
                repair="Close something, or use a smaller or a hosted model.",
                needed_bytes=self.ram,
                free_bytes=free,
            )

    async def _start(self) -> Server:
        _logger.info("loading the embedded model %s (some seconds)", self.name)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "interactd.models.embedded.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name in _ENVIRONMENT if (value := os.environ.get(name)) is not None},
            start_new_session=True,
        )
        self._starting = process
        if self._closed:
            process.kill()
        server = Server(httpx2.AsyncClient(), process)
        server.free.set()
        drain = asyncio.create_task(self._drain(process, server.tail))
        try:
            answer = await asyncio.wait_for(self._handshake(process, server), self._settings.start_timeout_s)
        except BaseException as problem:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
            await drain
            await server.client.aclose()
            if isinstance(problem, (TimeoutError, OSError, ValueError)):
                self._crashes.append(time.monotonic())
                self._last_words = _ending(code, server.tail)
                _logger.warning("embedded model %s did not start: %s", self.name, self._last_words)
            if isinstance(problem, TimeoutError):
                raise ProviderTimeout(
                    f"The embedded model {self.name} did not load within {self._settings.start_timeout_s:.0f} s.",
                    repair=f"Try again when the machine is less busy, or see {self._log.path}.",
                ) from problem
            if isinstance(problem, (OSError, ValueError)):
                raise ProviderUnavailable(
                    f"The embedded model {self.name} did not start: {self._last_words}",
                    repair=f"See {self._log.path}; run `interactd doctor`.",
                ) from problem
            raise
        _logger.info("embedded model %s loaded in %.1f s", self.name, answer["load_s"])
        server.supervisor = asyncio.create_task(self._supervise(server, drain))
        return server

    async def _handshake(self, process: asyncio.subprocess.Process, server: Server) -> dict[str, Any]:
        key = secrets.token_urlsafe(24)
        start = Start(
            path=str(self.path),
            alias=self.name,
            key=key,
            threads=self._settings.thread_count(),
            context=self._settings.context,
            cache_mib=self._settings.prompt_cache_mib,
            parent=os.getpid(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(start)).encode() + b"\n")
        await process.stdin.drain()
        answer: dict[str, Any] = json.loads(await process.stdout.readline())
        if "error" in answer:
            server.tail.append(answer["error"])
            raise ValueError(answer["error"])
        await server.client.aclose()
        server.client = client(answer["url"], key, self._settings)
        return answer

    async def _supervise(self, server: Server, drain: asyncio.Task[None]) -> None:
        process = server.process
        assert process is not None
        exited = asyncio.ensure_future(process.wait())
        while not exited.done():
            idle_for = time.monotonic() - self._idle_since
            if not self._users and idle_for >= self._settings.idle_s and not self._lock.locked():
                # No await between the check and this: nobody can have taken it meanwhile.
                _logger.info("unloading the embedded model %s: idle for %.0f s", self.name, idle_for)
                self._forget(server)
                process.kill()
                await exited
                break
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            left = None if self._users else max(0.05, self._settings.idle_s - idle_for)
            await asyncio.wait({exited, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        await drain
        if not server.stopping:
            self._crashes.append(time.monotonic())
            self._last_words = _ending(exited.result(), server.tail)
            _logger.warning("embedded model %s: %s", self.name, self._last_words)
            self._forget(server)
        with contextlib.suppress(TimeoutError):
            # Whoever still reads may find the last words in its buffer.
            await asyncio.wait_for(server.free.wait(), _STOP_S)
        await server.client.aclose()

    def _forget(self, server: Server) -> None:
        server.stopping = True
        if self._server is server:
            self._server = None

    async def _stop(self, server: Server) -> None:
        self._forget(server)
        if server.process is not None:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()
        if server.supervisor is not None:
            await asyncio.wait({server.supervisor}, timeout=2 * _STOP_S)

    async def _drain(self, process: asyncio.subprocess.Process, tail: deque[str]) -> None:
        assert process.stderr is not None
        rest = b""
        while block := await process.stderr.read(8192):
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[-8192:]
            for raw in lines:
                line = raw.decode(errors="replace").rstrip()
                tail.append(line)
                self._log.write(self.name, line)
        if rest:
            tail.append(rest.decode(errors="replace"))


def client(url: str, key: str | None, settings: EmbeddedSettings) -> httpx2.AsyncClient:
    """Return a client for a llama-server at `url`; proxies of the environment do not apply to it."""
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(settings.silence_timeout_s, connect=5.0),
        # llama-server closes kept connections after some requests without a word; a new one costs nothing here.
        limits=httpx2.Limits(max_keepalive_connections=0),
        trust_env=False,
    )


def _ending(code: int, tail: deque[str]) -> str:
    """How a child ended, in a sentence, with the last line it wrote that says why."""
    if code < 0:
        try:
            how = f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            how = f"was ended by signal {-code}"
    else:
        how = f"ended with exit code {code}"
    reasons = [line for line in tail if "error" in line.lower() or " E " in line or "GGML_ASSERT" in line]
    return f"its process {how}{f' ({reasons[-1][:200]})' if reasons else ''}."
