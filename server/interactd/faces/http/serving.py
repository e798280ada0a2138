"""Listening: one HTTP face on one port, run by uvicorn without its signal handlers and without an access log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Generator
from typing import Any

import uvicorn
from mcp.server.lowlevel.server import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from interactd.errors import ConfigError, Conflict
from interactd.faces.http.app import Limits, build_app
from interactd.faces.http.guard import Rules, is_loopback
from interactd.nouns import Json

logger = logging.getLogger(__name__)
# They tell of every session (by the id its client uses) and of every start; we say where we listen ourselves.
for _chatty in ("uvicorn.error", "mcp.server.streamable_http_manager", "mcp.server.streamable_http"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8642
HEADER_S = 15.0
KEEP_ALIVE_S = 30
GRACE_S = 3
MAX_CONNECTIONS = 2000


class _Bounded(H11Protocol):
    """A connection without a request in progress has `HEADER_S` to send one; uvicorn itself would wait for ever."""

    _timer: asyncio.TimerHandle | None = None

    @property
    def _idle(self) -> bool:
        return not (self.cycle and not self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_S, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self._idle:
            self._stop()
        elif self._timer is None:
            # Between two requests the keep-alive time holds as well; whichever is shorter ends it.
            self._timer = self.loop.call_later(max(HEADER_S, KEEP_ALIVE_S), self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._idle and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn inside a daemon: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class HttpFace:
    """One listening port. `start`, then `aclose`; `port` and `url` are known in between."""

    def __init__(
        self,
        server: Server[Any],
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        token: str | None,
        allowed_hosts: tuple[str, ...] = (),
        allowed_origins: tuple[str, ...] = (),
        toolsets: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._rules = Rules(
            bound=host.strip("[]"),
            token=token,
            hosts=tuple(name.lower() for name in allowed_hosts),
            origins=tuple(origin.lower().rstrip("/") for origin in allowed_origins),
        )
        self._ending = asyncio.Event()
        self._app, self._sessions = build_app(server, self._rules, self._ending, toolsets, limits)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`http://host:port`, with an address a client on this machine can use."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._rules.bound, self._rules.bound)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    def as_dict(self) -> Json:
        """Where it listens; never the token."""
        return {
            "host": self.host,
            "port": self.port,
            "url_mcp": f"{self.url}/mcp",
            "url_sse": f"{self.url}/sse",
            "token": self._rules.token is not None,
        }

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ConfigError: beyond loopback without a token, or a host that cannot be listened on.
            Conflict: the port is taken.
        """
        if self._rules.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"refusing to listen on {self.host} without a token: everybody in reach could use your models and "
                "read your sessions",
                repair="Leave the token on, or listen on 127.0.0.1.",
                field="host",
            )
        listener = await self._bind()
        config = uvicorn.Config(
            self._app,
            http=_Bounded,
            ws="none",
            # A lifespan that fails makes uvicorn leave the process, which here is the daemon.
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=MAX_CONNECTIONS,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._serve(self._server, listener))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise ConfigError("the HTTP server ended before it listened; the daemon's log says why")
            await asyncio.sleep(0.005)
        logger.info("listening on %s", self.url)

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        async with self._sessions.run():
            await server.serve(sockets=[listener])

    async def _bind(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._rules.bound, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host!r}: {error.strerror or error}", repair="Use 127.0.0.1.", field="host"
            ) from None
        # A name such as localhost can have both kinds of address; programs that know only one know the old one.
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            if hasattr(socket, "SO_REUSEADDR"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise Conflict(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}",
                repair="Another program has the port, or it is not yours to take. Choose another: --port, 0 for any.",
                field="port",
            ) from None
        self.port = listener.getsockname()[1]
        return listener

    async def aclose(self) -> None:
        """Stop listening, end open streams, wait for what is being answered (a few seconds at most)."""
        self._ending.set()
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        try:
            async with asyncio.timeout(GRACE_S + 5):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
