"""The HTTP+SSE transport of 2024-11-05 (`GET /sse`, `POST /messages/?session_id=...`), for both eras.

Clients still configured with it get the same streams as stdio has; the only thing of its own is the pairing of a
long GET with short POSTs.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from mcp.server.lowlevel.server import Server

from interactd.faces.http.answers import Receive, Scope, Send, answer, header, refuse
from interactd.faces.mcp.connections import split_toolsets
from interactd.faces.mcp.eras import serve_stream
from interactd.faces.mcp.peer import MAX_CALLS, Peer
from interactd.faces.mcp.stream.frames import Frame, encode, parse

PING_S = 15.0
MAX_SESSIONS = 1000
MAX_WAITING = 20_000
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class _QueueSource:
    """Frames that POSTs brought."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame | None] = asyncio.Queue(MAX_WAITING)

    async def next(self) -> Frame | None:
        return await self.frames.get()

    async def linger(self, answered: asyncio.Event) -> None:
        """The stream is gone, so nobody would hear an answer."""


class SseHub:
    """All SSE connections of one HTTP face."""

    def __init__(self, server: Server[Any], toolsets: tuple[str, ...] = (), max_calls: int = MAX_CALLS) -> None:
        self._server = server
        self._toolsets = toolsets
        self._max_calls = max_calls
        self._sources: dict[str, _QueueSource] = {}

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /sse`: the stream, until either side ends it."""
        if scope["method"] != "GET":
            await refuse(send, 405, "method_not_allowed", "/sse is opened with GET", headers=[(b"allow", b"GET")])
            return
        if len(self._sources) >= MAX_SESSIONS:
            await refuse(send, 503, "overloaded", f"{MAX_SESSIONS} SSE streams are open already")
            return
        number = secrets.token_hex(16)
        source = self._sources[number] = _QueueSource()
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("toolsets", [""])[0]
        peer = Peer(
            "sse", f"con_sse_{number}", toolsets=split_toolsets(asked) or self._toolsets, max_calls=self._max_calls
        )
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        endpoint = f"{scope.get('root_path', '').rstrip('/')}/messages/?session_id={number}"
        writing = asyncio.Lock()

        async def event(name: str, data: bytes) -> None:
            async with writing:
                body = b"event: " + name.encode() + b"\r\ndata: " + data + b"\r\n\r\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})

        async def ping() -> None:
            while True:
                await asyncio.sleep(PING_S)
                async with writing:
                    await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def write(data: bytes) -> None:
            await event("message", data)

        serving = asyncio.create_task(serve_stream(self._server, source, write, peer))
        others = [asyncio.create_task(ping()), asyncio.create_task(watch())]
        try:
            await event("endpoint", endpoint.encode())
            await asyncio.wait([serving, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._sources[number]
            peer.left = True
            for task in (serving, *others):
                task.cancel()
            await asyncio.gather(serving, *others, return_exceptions=True)
        with suppress(ConnectionError, RuntimeError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def message(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /messages/?session_id=...`: one message for a stream; its answer goes down the stream."""
        if scope["method"] != "POST":
            await refuse(send, 405, "method_not_allowed", "messages are sent with POST", headers=[(b"allow", b"POST")])
            return
        number = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_id", [""])[0]
        source = self._sources.get(number)
        if source is None:
            await refuse(
                send, 404, "not_found", "there is no such SSE stream", "Open /sse again and use the endpoint it names."
            )
            return
        if not (header(scope, b"content-type") or "").lower().startswith("application/json"):
            await refuse(send, 415, "unsupported_media_type", "the Content-Type must be application/json")
            return
        frame = parse((await receive()).get("body", b""))
        unmatched = [error for error in frame.refusals if error.id is None]
        if unmatched and not frame.batch:
            await answer(send, 400, json.loads(encode(unmatched[0])))
            return
        try:
            source.frames.put_nowait(frame)
        except asyncio.QueueFull:
            await refuse(send, 503, "overloaded", f"{MAX_WAITING} messages of this stream are waiting already")
            return
        await answer(send, 202, {"accepted": True})
