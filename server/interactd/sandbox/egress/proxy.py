"""The proxy of one sandbox: takes the listening socket out of its network namespace and judges what comes.

The socket is the identity of the run: policy, budget and log belong to whoever can connect to it. Should this process
die, the socket dies with it and the sandbox has no network at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from interactd.nouns import Json
from interactd.sandbox.egress.dial import Resolver, Sharing, system_resolver
from interactd.sandbox.egress.forward import Cut, Forwarder
from interactd.sandbox.egress.limits import Budget, EgressLimits
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.refusal import Refused, answer
from interactd.sandbox.egress.run import Run, read_request
from interactd.sandbox.egress.tunnel import tunnel
from interactd.sandbox.egress.wire.stream import Reader, SocketStream

_log = logging.getLogger(__name__)
LINGER_S = 1.0
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_open = 0


class Proxy:
    """The port's `Egress`. Made with `open`, ended with `aclose`."""

    def __init__(self, run: Run, ca_file: Path | None, lookups: Sharing) -> None:
        self._run = run
        self._lookups = lookups
        self._ca_file = ca_file
        self._accepting: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        policy: Policy,
        folder: Path,
        *,
        name: str = "",
        limits: EgressLimits | None = None,
        resolver: Resolver = system_resolver,
        upstream: ssl.SSLContext | None = None,
        on_request: Callable[[Json], None] | None = None,
    ) -> Proxy:
        """Make a proxy that is ready to serve.

        Args:
            folder: where `ca.pem` is written, if the policy needs one; the proxy's keys stay in memory.
            name: whose it is, for the certificate's name.
            upstream: how servers are verified whose TLS is ended; None is by this machine's roots.
            on_request: called on the event loop with each log entry when its request has ended.

        Raises:
            NotFound, StorageError, TimeoutError: a credential cannot be read.
            OSError: the bundle cannot be written.
        """
        limits = limits or EgressLimits()
        await policy.unlock()
        sharing = Sharing(resolver)
        run = Run(policy, limits, Budget(limits), RequestLog(on_request), sharing, upstream)
        ca_file: Path | None = None
        if policy.ends_any_tls:
            from interactd.sandbox.egress.authority import Authority

            ca_file = folder / "ca.pem"
            run.authority = await asyncio.to_thread(Authority, re.sub("[^A-Za-z0-9_-]", "", name))
            await asyncio.to_thread(run.authority.write_bundle, ca_file)
        return cls(run, ca_file, sharing)

    @property
    def ca_file(self) -> Path | None:
        """The bundle for the sandbox: this machine's roots and this proxy's own; None where no TLS is ended."""
        return self._ca_file

    @property
    def policy(self) -> Policy:
        return self._run.policy

    def log(self) -> list[Json]:
        """Return the run's requests so far, oldest first; see `log.Entry.as_dict`."""
        return self._run.log.as_list()

    async def serve(self, listener: object) -> None:
        """Take over a listening socket and accept on it until `aclose`, or until the caller is cancelled."""
        if not isinstance(listener, socket.socket):
            raise TypeError("the proxy serves a listening socket")
        listener.setblocking(False)
        accepting = asyncio.create_task(self._accept(listener), name="egress-accept")
        self._accepting.add(accepting)
        try:
            await asyncio.wait({accepting})
        finally:
            self._accepting.discard(accepting)
            accepting.cancel()
            await asyncio.wait({accepting})
        if not accepting.cancelled() and (failed := accepting.exception()) is not None:
            _log.error("the egress proxy stopped accepting: %s", type(failed).__name__)

    async def aclose(self) -> None:
        """Close the listeners and every connection; returns when nothing is left."""
        for task in self._accepting | self._connections:
            task.cancel()
        pending = self._accepting | self._connections
        if pending:
            await asyncio.wait(pending)
        self._lookups.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(self._run.limits.connections)
        mine: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            global _open
            _open -= 1
            free.release()
            mine.discard(task)
            self._connections.discard(task)

        try:
            while True:
                # Not accepting is the cap: more connections wait in the kernel and cost this process nothing.
                await free.acquire()
                sock = await _next(loop, listener)
                global _open
                _open += 1
                task = asyncio.create_task(self._connection(sock, crowded=_open > _most_open()), name="egress")
                mine.add(task)
                self._connections.add(task)
                task.add_done_callback(ended)
        finally:
            listener.close()
            for task in list(mine):
                task.cancel()
            if mine:
                await asyncio.wait(set(mine))

    async def _connection(self, sock: socket.socket, *, crowded: bool) -> None:
        stream: SocketStream | None = None
        try:
            stream = SocketStream(sock)
            if crowded:
                await self._deny(stream, Refused("this machine has too many connections open", status=503))
            else:
                await self._serve_one(stream)
        except (Cut, OSError, EOFError, ssl.SSLError):
            # What happened is in the run's log; the other side sees that the connection did not end well.
            if stream is not None:
                stream.abort()
        except Exception as exc:  # noqa: BLE001 - one connection's bug must not end the others; its text may hold a secret
            _log.error("a connection of the egress proxy failed: %s", type(exc).__name__)
            if stream is not None:
                stream.abort()
        finally:
            sock.close()

    async def _serve_one(self, stream: SocketStream) -> None:
        run, reader = self._run, Reader(stream)
        forwarder = Forwarder(run, reader, stream)
        wait_s = run.limits.head_s
        try:
            while True:
                try:
                    request = await read_request(reader, run.limits, wait_s)
                except Refused as refused:
                    await self._deny(stream, refused)
                    return
                if request is None:
                    return
                if request.method == "CONNECT":
                    await tunnel(run, reader, stream, request)
                    break
                if not await forwarder.one(request):
                    break
                wait_s = run.limits.keep_alive_s
            await _linger(stream)
        finally:
            forwarder.close()

    async def _deny(self, stream: SocketStream, refused: Refused) -> None:
        entry = self._run.log.open("?", "", 0)
        self._run.log.close(entry, "denied", refused.reason)
        async with asyncio.timeout(self._run.limits.head_s):
            await stream.send(answer(refused))
        await _linger(stream)


async def _next(loop: asyncio.AbstractEventLoop, listener: socket.socket) -> socket.socket:
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
        except OSError as exc:
            if exc.errno in _FULL:
                await asyncio.sleep(0.1)
            elif exc.errno not in (errno.ECONNABORTED, errno.EPROTO, errno.EINTR):
                raise
        else:
            return sock


async def _linger(stream: SocketStream) -> None:
    # Closing with unread bytes resets the connection, and the reset can overtake the answer.
    await stream.finish()
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(LINGER_S):
            for _ in range(64):
                if not await stream.recv():
                    return


def _most_open() -> int:
    """Return how many connections all proxies together may have: each takes two of this process's descriptors."""
    try:
        import resource
    except ImportError:  # Windows
        return 2000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 20_000 if soft == resource.RLIM_INFINITY else max(64, (soft - 256) // 3)
