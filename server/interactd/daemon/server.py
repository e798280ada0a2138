"""The running daemon: accepts connections, hands them to the faces, and knows when to leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

from interactd._version import __version__
from interactd.daemon import hello as greeting
from interactd.daemon.listen import Listener
from interactd.daemon.lock import Lock
from interactd.daemon.port import Application, Json, Settings
from interactd.paths import Paths
from interactd.shim import record

logger = logging.getLogger("interactd.daemon")

CONNECTIONS_MAX = 2000
CHECK_S = 2.0
CLOSE_S = 5.0
# Faces cut lines themselves; this only says when a peer that sends faster than we read is made to wait.
BUFFER = 1024 * 1024


@dataclass(slots=True, eq=False)
class Connection:
    """One peer that was let in."""

    hello: Json
    writer: asyncio.StreamWriter
    since: float = field(default_factory=time.time)

    def as_dict(self) -> Json:
        keep = ("connection", "face", "client", "version", "pid", "cwd")
        return {**{name: self.hello[name] for name in keep if self.hello.get(name)}, "since": self.since}


class Daemon:
    """One process, one application. Also the hooks that the application gets (`info`, `request_stop`)."""

    def __init__(self, paths: Paths, lock: Lock, listener: Listener, settings: Settings, facts: Json) -> None:
        self._paths = paths
        self._lock = lock
        self._listener = listener
        self._settings = settings
        self._facts = facts
        self._began = time.monotonic()
        self._quiet_since = time.monotonic()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._leaving = asyncio.Event()
        self._now = False
        self._reason = ""
        self._server: asyncio.AbstractServer | None = None
        self._application: Application | None = None

    def info(self) -> Json:
        """Return facts about the process. Names and numbers only."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "started_at": self._facts.get("started_at"),
            "executable": sys.executable,
            "socket": self._listener.address,
            "log": str(self._paths.log_file),
            "leaving": self._reason or None,
            "idle_exit_s": self._settings.idle_exit_s,
            "connections": [each.as_dict() for each in sorted(self._connections, key=lambda one: one.since)],
        }

    def request_stop(self, now: bool = False) -> None:
        """Begin to leave, as somebody asked for it."""
        self._leave("asked to stop", now=now)

    async def ready(self) -> None:
        """Wait until connections are served, or until `run` has ended."""
        await self._ready.wait()

    async def run(self, application: Application) -> None:
        """Serve until it is time to leave, then leave in order. Returns when nothing of it runs any more."""
        try:
            await self._run(application)
        finally:
            self._ready.set()

    async def _run(self, application: Application) -> None:
        self._signals()
        self._application = application
        application.attach(self)
        await application.start()
        self._server = await self._listen()
        self._quiet_since = time.monotonic()
        self._facts["ready_at"] = time.time()
        record.write(self._paths, self._facts)
        logger.info("ready: pid %d, version %s, %s", os.getpid(), __version__, self._listener.address)
        self._ready.set()
        watch = asyncio.create_task(self._watch(application))
        try:
            await self._leaving.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._depart(application)

    async def _listen(self) -> asyncio.AbstractServer:
        if sys.platform == "win32" or self._listener.tcp:
            return await asyncio.start_server(self._accept, sock=self._listener.sock, limit=BUFFER)
        return await asyncio.start_unix_server(self._accept, sock=self._listener.sock, limit=BUFFER)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: Connection | None = None
        try:
            hello = await self._let_in(reader, writer)
            if hello is not None and self._application is not None:
                connection = Connection(hello, writer)
                self._connections.add(connection)
                face = getattr(self._application.faces, hello["face"])
                await face(reader, writer, hello)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as error:
            logger.debug("a connection ended early: %r", error)
        except Exception:
            logger.exception("a connection failed")
        finally:
            if connection is not None:
                self._connections.discard(connection)
                if not self._connections:
                    self._quiet_since = time.monotonic()
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Json | None:
        """Return the hello of a peer that goes on to a face; None when it was turned away or only had a question."""
        try:
            if not self._lock.still_ours():
                self._leave("the lock file was removed or replaced", now=True)
            hello = await greeting.receive(reader, writer, self._listener)
            if self._leaving.is_set():
                raise greeting.Unwelcome({"code": "leaving", "message": f"leaving: {self._reason}"}, retry=True)
            if len(self._connections) >= CONNECTIONS_MAX:
                message = f"{CONNECTIONS_MAX} connections are open already"
                repair = "Close some hosts; `interactd status` lists them."
                raise greeting.Unwelcome({"code": "overloaded", "message": message, "repair": repair})
        except greeting.Unwelcome as no:
            logger.info("turned a connection away: %s", no)
            if no.error is not None:
                writer.write(greeting.refusal(no.error, retry=no.retry))
                await writer.drain()
            if no.newer:
                self._leave(f"handing over to version {no.newer}")
            return None
        writer.write(greeting.answer({"info": self.info()} if hello["face"] == "daemon" else {}))
        await writer.drain()
        return None if hello["face"] == "daemon" else hello

    async def _watch(self, application: Application) -> None:
        """Notice what no connection tells: that nobody needs us, or that we are no longer the one to be found."""
        idle = self._settings.idle_exit_s
        pause = min(CHECK_S, idle / 4) if idle else CHECK_S
        while True:
            await asyncio.sleep(max(pause, 0.02))
            if not self._lock.still_ours():
                return self._leave("the lock file was removed or replaced", now=True)
            if not self._listener.still_there():
                await self._listen_again()
            if self._connections or application.busy:
                self._quiet_since = time.monotonic()
            elif idle and time.monotonic() - self._quiet_since >= idle:
                return self._leave(f"nothing to do for {idle:.0f} s")

    async def _listen_again(self) -> None:
        logger.warning("the socket was removed; listening again at %s", self._listener.address)
        if self._server is not None:
            self._server.close()
        try:
            self._paths.make()
            self._listener.rebind()
            self._server = await self._listen()
        except OSError as error:
            self._leave(f"the socket was removed and cannot be made again: {error}")

    def _signals(self) -> None:
        def told(number: int, _: Any = None) -> None:
            if self._leaving.is_set():
                logger.warning("second signal: leaving at once")
                os._exit(1)
            self._leave(f"signal {signal.Signals(number).name}")

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if sys.platform == "win32":
                signal.signal(number, lambda number, _: loop.call_soon_threadsafe(told, number))
            else:
                loop.add_signal_handler(number, told, number)
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, lambda: None)

    def _leave(self, reason: str, *, now: bool = False) -> None:
        self._now = self._now or now
        if not self._leaving.is_set():
            self._reason = reason
            logger.info("leaving: %s", reason)
            self._leaving.set()

    async def _depart(self, application: Application) -> None:
        if self._lock.still_ours():
            # Shims read this: whoever was told to leave is not missed until there is something to do.
            record.write(self._paths, {**self._facts, "left": self._reason})
        if self._server is not None:
            self._server.close()  # before its socket: asyncio's own loop looks for the descriptor
        if self._lock.still_ours():
            self._listener.remove()
        hosts = [each for each in self._connections if each.hello["face"] == "mcp"]
        for each in hosts:
            # What a host sends from now on stays unread, and its shim asks the next daemon instead.
            with contextlib.suppress(RuntimeError):
                cast(asyncio.Transport, each.writer.transport).pause_reading()
        limit = 0.0 if self._now else self._settings.drain_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit + 1.0):
                if not await application.drain(limit):
                    logger.warning("still running after %.0f s; the next daemon takes it up", limit)
        for each in list(self._connections):
            each.writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        try:
            async with asyncio.timeout(CLOSE_S):
                await application.aclose()
        except TimeoutError:
            logger.error("the application did not close within %.0f s", CLOSE_S)
        logger.info("left")
