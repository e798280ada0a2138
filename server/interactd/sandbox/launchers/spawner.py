"""The daemon's side of the spawner: one helper process that forks every sandbox (see `inside/spawner.py`)."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interactd.errors import SandboxFailed

_SCRIPT = Path(__file__).parent / "inside" / "spawner.py"
_PATIENCE_S = 10.0


class Spawner:
    """Starts the helper when first needed, on the running loop. One per launcher; `aclose` ends it and all it started.

    A helper that died is replaced at the next call; whoever waited on it learns through `exited`.
    """

    def __init__(self, disks: Path | None = None) -> None:
        """
        Args:
            disks: beneath it the helper unmounts, at its end, what no daemon uses any more.
        """
        self._link: _Link | None = None
        self._disks = disks

    async def spawn(
        self, plan: dict[str, Any], fds: Sequence[int], exited: Callable[[int], None]
    ) -> tuple[int, Callable[[], None]]:
        """Fork and exec `plan`; `fds` are the error pipe and then one for each of `plan["fds"]`.

        Returns the pid and a function that kills it. `exited` is called once with its wait status.
        """
        link = self._current()
        pid = await link.ask({"op": "spawn", **plan}, fds, exited)
        return pid, lambda: link.kill(pid)

    async def listen(self, pid: int, host: str, port: int) -> socket.socket:
        """Open a listening socket in the network namespace of `pid` (one that this helper may enter).

        Raises:
            SandboxFailed: it could not be opened, in 5 s.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            plan = {"op": "listen", "pid": pid, "host": host, "port": port}
            await self._current().ask(plan, [theirs.fileno()], lambda _status: None)
            theirs.close()
            ready = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(ours.fileno(), ready.set)
            try:
                async with asyncio.timeout(5):
                    await ready.wait()
            except TimeoutError:
                raise SandboxFailed("the proxy's socket did not open in the sandbox within 5 s") from None
            finally:
                loop.remove_reader(ours.fileno())
            word, found, _flags, _address = socket.recv_fds(ours, 600, 1)
            if not found:
                said = word[3:].decode(errors="replace")
                raise SandboxFailed(f"the proxy's socket did not open in the sandbox: {said}")
            listener = socket.socket(fileno=found[0])
            listener.setblocking(False)
            return listener
        finally:
            ours.close()
            theirs.close()

    def attend(self) -> None:
        """Start the helper if it is not there: its end is told by the kernel, and it tidies up."""
        self._current()

    async def aclose(self) -> None:
        """End the helper and everything it started. Bounded: 5 s."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    def _current(self) -> _Link:
        loop = asyncio.get_running_loop()
        if self._link is None or self._link.dead or self._link.loop is not loop:
            if self._link is not None and self._link.dead:
                self._link.reap()
            self._link = _Link(loop, self._disks)
        return self._link


class _Link:
    """One life of the helper."""

    def __init__(self, loop: asyncio.AbstractEventLoop, disks: Path | None) -> None:
        self.loop = loop
        self.dead = False
        self._reaped = False
        ours, theirs = socket.socketpair()
        # Above the number it gets there: dup2 onto itself would leave close-on-exec set.
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(_SCRIPT), "3", *([str(disks)] if disks is not None else [])],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, high, 3)],
            )
        finally:
            os.close(high)
            theirs.close()
        ours.setblocking(False)
        self._fd = ours.detach()
        self._close = weakref.finalize(self, os.close, self._fd)
        self._late: list[int] = []
        self._ids = 0
        self._asked: dict[int, tuple[asyncio.Future[int], Callable[[int], None]]] = {}
        self._running: dict[int, Callable[[int], None]] = {}
        self._inbox = bytearray()
        self._gone = asyncio.Event()
        self._turn = asyncio.Lock()
        loop.add_reader(self._fd, self._readable)

    async def ask(self, plan: dict[str, Any], fds: Sequence[int], exited: Callable[[int], None]) -> int:
        self._ids += 1
        number = self._ids
        future: asyncio.Future[int] = self.loop.create_future()
        self._asked[number] = (future, exited)
        body = json.dumps({**plan, "id": number}).encode()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._send(body, fds)
                return await future
        except TimeoutError:
            raise SandboxFailed(f"the spawner did not answer within {_PATIENCE_S:.0f} s") from None
        finally:
            self._asked.pop(number, None)

    async def _send(self, body: bytes, fds: Sequence[int]) -> None:
        async with self._turn:
            left = len(body).to_bytes(4, "little") + body
            attached = list(fds)
            while left and not self.dead:
                try:
                    with socket.socket(fileno=os.dup(self._fd)) as sock:
                        sent = socket.send_fds(sock, [left], attached) if attached else sock.send(left)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                    continue
                except OSError as error:
                    raise SandboxFailed(f"the spawner is gone: {error}") from None
                attached = []
                left = left[sent:]
        late, self._late = self._late, []
        for pid in late:
            self.kill(pid)

    def kill(self, pid: int) -> None:
        if pid not in self._running or self.dead:
            return
        if self._turn.locked():  # half a message may be on the wire
            self._late.append(pid)
            return
        body = json.dumps({"op": "kill", "pid": pid}).encode()
        try:
            os.write(self._fd, len(body).to_bytes(4, "little") + body)
        except OSError:
            self._end()

    async def aclose(self) -> None:
        if not self.dead:
            with socket.socket(fileno=os.dup(self._fd)) as sock:
                sock.shutdown(socket.SHUT_WR)
            try:
                async with asyncio.timeout(5):
                    await self._gone.wait()
            except TimeoutError:
                os.kill(self.pid, 9)
                self._end()
        if not self._reaped:
            await asyncio.to_thread(os.waitpid, self.pid, 0)
            self._reaped = True

    def reap(self) -> None:
        """Collect the exit of a dead helper, so that it does not stay as a zombie."""
        if not self._reaped:
            self._reaped = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._inbox += data
        while len(self._inbox) >= 4:
            length = int.from_bytes(self._inbox[:4], "little")
            if len(self._inbox) < 4 + length:
                return
            message: dict[str, Any] = json.loads(bytes(self._inbox[4 : 4 + length]))
            del self._inbox[: 4 + length]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "exited" in message:
            exited = self._running.pop(message["exited"], None)
            if exited is not None:
                exited(message["status"])
            return
        asked = self._asked.pop(message["id"], None)
        if "pid" not in message:
            if asked and not asked[0].done():
                asked[0].set_exception(SandboxFailed(f"could not fork: {message['error']}"))
            return
        if asked is None or asked[0].done():  # whoever asked was cancelled meanwhile
            self._running[message["pid"]] = lambda _status: None
            self.kill(message["pid"])
            return
        self._running[message["pid"]] = asked[1]
        asked[0].set_result(message["pid"])

    def _end(self) -> None:
        if self.dead:
            return
        self.dead = True
        self.loop.remove_reader(self._fd)
        self._close()
        self._gone.set()
        for future, _exited in self._asked.values():
            if not future.done():
                future.set_exception(SandboxFailed("the spawner died"))
        running, self._running = self._running, {}
        for exited in running.values():
            exited(9)
