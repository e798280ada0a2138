"""The ASGI application of one HTTP face."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Route

from interactd.faces.http.answers import App, Message, Receive, Scope, Send, refuse
from interactd.faces.http.bodies import MAX_BODY, Bodies
from interactd.faces.http.guard import Guard, Rules
from interactd.faces.http.sse import SseHub
from interactd.faces.mcp.connections import PEERS_KEY
from interactd.faces.mcp.peer import MAX_CALLS, HttpPeers

SESSION_IDLE_S = 30 * 60.0
MAX_SESSIONS = 5000


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one HTTP face; bytes and seconds."""

    body: int = MAX_BODY
    body_s: float = 30.0
    calls: int = MAX_CALLS


class _Endpoint:
    """An ASGI callable as Starlette's Route takes it: a class instance, for all methods."""

    def __init__(self, app: App, peers: HttpPeers) -> None:
        self._app = app
        self._peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEERS_KEY] = self._peers
        await self._app(scope, receive, send)


class _Ending:
    """Tells long answers that the client left, once the face is to end: they finish as for a client that did."""

    def __init__(self, app: App, ending: asyncio.Event) -> None:
        self._app = app
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def receiving() -> Message:
            coming = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(self._ending.wait())
            try:
                await asyncio.wait([coming, ending], return_when=asyncio.FIRST_COMPLETED)
                return coming.result() if coming.done() else {"type": "http.disconnect"}
            finally:
                coming.cancel()
                ending.cancel()

        await self._app(scope, receiving, send)


def build_app(
    server: Server[Any],
    rules: Rules,
    ending: asyncio.Event,
    toolsets: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> tuple[App, StreamableHTTPSessionManager]:
    """Make the application: `/mcp`, `/sse`, `/messages/`, `/health`, everything behind the guard.

    Args:
        server: the MCP server object, which other transports serve at the same time.
        rules: who is let in.
        ending: set it to end the streams that are open.
        toolsets: what a client gets that asks for none in its URL.
        limits: of bodies and calls.

    Returns:
        The application, and the manager of its sessions, whose `run()` must be open while it serves.
    """
    limits = limits or Limits()
    manager = StreamableHTTPSessionManager(
        server,
        json_response=False,
        stateless=False,
        # Host and Origin are checked in front, for every path and with an answer that helps.
        security_settings=None,
        max_request_body_size=limits.body,
        session_idle_timeout=SESSION_IDLE_S,
        max_sessions=MAX_SESSIONS,
    )
    hub = SseHub(server, toolsets, limits.calls)

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(
            send, 404, "not_found", "there is nothing at this path", "MCP is at /mcp (Streamable HTTP) and /sse (SSE)."
        )

    peers = HttpPeers(toolsets, limits.calls)
    paths: dict[str, App] = {"/mcp": StreamableHTTPASGIApp(manager), "/sse": hub.stream, "/messages": hub.message}
    routes = [Route(path + end, _Endpoint(app, peers)) for path, app in paths.items() for end in ("", "/")]
    inner = Starlette(routes=[*routes, Route("/{path:path}", _Endpoint(nothing, peers))])
    return Guard(Bodies(_Ending(inner, ending), limits.body, limits.body_s), rules), manager
