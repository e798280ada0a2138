"""A scriptable stand-in for a model provider: a loopback HTTP server that speaks all four wires.

    async with FakeProvider() as p:
        p.script(["Hello there.", Reply(calls=[Call("add", {"a": 1})]), Fault(429, "slow down", retry_after=1)])
        ... point a provider's base_url at p.base_url ...
        assert p.requests[0].json["messages"]

Each model call takes the next item of the script and renders it for the wire that the path belongs to. An item may
be a string, a `Reply`, a `Fault` (an error in the provider's own form), a `Raw` answer, `Hang()`, `Redirect(url)`, or a
function of the `Request` that returns (or awaits) one of these. When the script is used up, `default` answers; without
one the call is refused with 400, which nobody retries.

Nothing here sleeps unless a piece says so: to hold a stream in the middle, put an `asyncio.Event` between its pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from support.wires import Call, Json, Part, Pause, Piece, Reply, Wire, body, error_body, sse, stream

__all__ = ["Call", "FakeProvider", "Fault", "Hang", "Item", "Piece", "Raw", "Redirect", "Reply", "Request", "sse"]


@dataclass(slots=True)
class Fault:
    """An error answer in the wire's own form; `kind` is the provider's own error word."""

    status: int
    message: str = "the fake provider says no"
    kind: str | None = None
    retry_after: float | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Raw:
    """An answer as given. `body` is text, bytes, JSON, or parts (bytes, text and pauses) written one by one.

    `abort` closes the socket afterwards without ending the body properly.
    """

    body: str | bytes | Json | Sequence[Part | str] = b""
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    abort: bool = False


@dataclass(slots=True)
class Hang:
    """Take the request and say nothing: not even the status line, or with `after_headers` nothing after it."""

    after_headers: bool = False


@dataclass(slots=True)
class Redirect:
    """Answer 307 to another address."""

    to: str


@dataclass(slots=True)
class Request:
    """A call the fake received. `disconnected` is set when the client closes the socket before the answer's end;
    `answered` when the whole answer was written."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    json: Any
    wire: Wire | None
    connection: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected_at: float | None = None
    """`loop.time()` of the disconnect."""


Answer = str | Reply | Fault | Raw | Hang | Redirect
Item = Answer | Callable[[Request], "Answer | Awaitable[Answer]"]


class FakeProvider:
    """The server. `models` is what its model listing says; `routes` adds or replaces GET answers by path."""

    def __init__(self, *, models: Sequence[str] = ("fake-model-1",), default: Item | None = None) -> None:
        self.models = list(models)
        self.default = default
        self.routes: dict[str, Json | Raw] = {}
        self.requests: list[Request] = []
        """POSTs, in order."""
        self.gets: list[Request] = []
        self.connections = 0
        """TCP connections accepted so far."""
        self.port = 0
        self._script: deque[Item] = deque()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """Without /v1, as a person might give it."""
        return f"http://127.0.0.1:{self.port}"

    def script(self, items: Sequence[Item] | Item) -> None:
        """Add answers for the coming calls: one, or a list of them."""
        several = isinstance(items, Sequence) and not isinstance(items, str)
        self._script.extend(cast("Sequence[Item]", items) if several else [cast("Item", items)])

    @property
    def left(self) -> int:
        """How many scripted answers nobody asked for yet."""
        return len(self._script)

    async def received(self, count: int, timeout_s: float = 10) -> list[Request]:
        """Wait until `count` POSTs have arrived; returns them."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[:count]

    async def asked(self, count: int, timeout_s: float = 10) -> list[Request]:
        """Wait until `count` GETs have arrived; returns them."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.gets) >= count)
        return self.gets[:count]

    async def __aenter__(self) -> FakeProvider:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- HTTP ------------------------------------------------------------------------------------------------

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            early = await reader.read(1)
            if early == b"\x16":
                # A TLS client: answered as plain HTTP servers do.
                writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                return
            while (request := await self._read(reader, number, early)) is not None:
                watch = asyncio.create_task(reader.read(1))
                answer = asyncio.create_task(self._answer(request, writer))
                try:
                    await asyncio.wait([watch, answer], return_when=asyncio.FIRST_COMPLETED)
                    if answer.done() and isinstance(answer.exception(), ConnectionError):
                        return _left(request)
                    if not answer.done() and watch.done() and (watch.exception() or not watch.result()):
                        return _left(request)
                    if not await answer:
                        return None
                    request.answered.set()
                    early = watch.result() if watch.done() else b""
                finally:
                    for part in (watch, answer):
                        part.cancel()
                    await asyncio.gather(watch, answer, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return None
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader, number: int, early: bytes) -> Request | None:
        try:
            head = (early + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        payload = await reader.readexactly(int(headers.get("content-length", "0")))
        with contextlib.suppress(ValueError):
            request = Request(method, path, headers, payload, json.loads(payload), _wire(path), number)
            return await self._note(request)
        return await self._note(Request(method, path, headers, payload, None, _wire(path), number))

    async def _note(self, request: Request) -> Request:
        async with self._arrived:
            (self.requests if request.method == "POST" else self.gets).append(request)
            self._arrived.notify_all()
        return request

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Write the answer. False when the connection must be closed after it."""
        answer = await self._choose(request)
        if isinstance(answer, Hang):
            if answer.after_headers:
                await _write_head(writer, 200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            await asyncio.Event().wait()
        return await _write(writer, _raw(answer, request))

    async def _choose(self, request: Request) -> Answer:
        if request.method != "POST":
            return self._listing(request)
        if self._script:
            item: Item | None = self._script.popleft()
        else:
            item = self.default
        if item is None:
            return Fault(400, "the fake provider has no scripted answer left")
        if callable(item):
            made = item(request)
            return await made if inspect.isawaitable(made) else made
        return item

    def _listing(self, request: Request) -> Raw:
        path = request.path.partition("?")[0]
        if path in self.routes:
            given = self.routes[path]
            return given if isinstance(given, Raw) else Raw(given, content_type="application/json")
        if path == "/v1beta/models":
            listed: Json = {"models": [{"name": f"models/{name}", "inputTokenLimit": 1048576} for name in self.models]}
        elif path == "/v1/models" and "anthropic-version" in request.headers:
            data = [{"type": "model", "id": name, "display_name": name} for name in self.models]
            listed = {"data": data, "has_more": False, "first_id": None, "last_id": None}
        elif path == "/v1/models":
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        else:
            return Raw({"error": {"message": f"no such path {path}"}}, status=404, content_type="application/json")
        return Raw(listed, content_type="application/json")


def _left(request: Request) -> None:
    request.disconnected_at = asyncio.get_running_loop().time()
    request.disconnected.set()


def _wire(path: str) -> Wire | None:
    route = path.partition("?")[0]
    if route.endswith("/chat/completions"):
        return "openai-chat"
    if route.endswith("/responses"):
        return "openai-responses"
    if route.endswith("/messages"):
        return "anthropic"
    if route.endswith((":streamGenerateContent", ":generateContent")):
        return "gemini"
    return None


def _raw(answer: Answer, request: Request) -> Raw:
    if isinstance(answer, Raw):
        return answer
    if isinstance(answer, Redirect):
        return Raw(b"", status=307, content_type="text/plain", headers={"location": answer.to})
    wire = request.wire
    if wire is None:
        return Raw({"error": {"message": f"no such path {request.path}"}}, status=404, content_type="application/json")
    if isinstance(answer, Fault):
        headers = dict(answer.headers)
        if answer.retry_after is not None:
            headers["retry-after"] = f"{answer.retry_after:g}"
        made = error_body(wire, answer.status, answer.message, answer.kind)
        return Raw(made, status=answer.status, content_type="application/json", headers=headers)
    reply = Reply(answer) if isinstance(answer, str) else cast("Reply", answer)
    wants = (
        ":streamGenerateContent" in request.path
        if wire == "gemini"
        else cast("Json", request.json or {}).get("stream") is True
    )
    if not wants or reply.ignore_stream:
        return Raw(body(wire, reply), content_type="application/json")
    parts = stream(wire, reply)
    if reply.truncate_after is not None:
        parts = _first_events(parts, reply.truncate_after)
    if reply.cut:
        parts = _recut(parts, reply.cut)
    return Raw(parts, abort=reply.truncate_after is not None)


def _first_events(parts: list[Part], count: int) -> list[Part]:
    kept: list[Part] = []
    for part in parts:
        count -= isinstance(part, bytes)
        if count < 0:
            break
        kept.append(part)
    return kept


def _recut(parts: Sequence[Part], size: int) -> list[Part]:
    out: list[Part] = []
    for part in parts:
        if isinstance(part, bytes):
            out += [part[at : at + size] for at in range(0, len(part), size)]
        else:
            out.append(part)
    return out


async def _write_head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} Fake\r\n{lines}\r\n".encode("latin-1"))
    await writer.drain()


async def _write(writer: asyncio.StreamWriter, raw: Raw) -> bool:
    given = raw.body
    if isinstance(given, dict):
        given = json.dumps(given).encode()
    headers = {"content-type": raw.content_type, **raw.headers}
    if isinstance(given, str | bytes) and not raw.abort:
        data = given.encode() if isinstance(given, str) else given
        await _write_head(writer, raw.status, {**headers, "content-length": str(len(data))})
        writer.write(data)
        await writer.drain()
        return True
    await _write_head(writer, raw.status, {**headers, "transfer-encoding": "chunked"})
    parts: Sequence[Part | str] = [given] if isinstance(given, str | bytes) else given
    for part in parts:
        if isinstance(part, str | bytes):
            data = part.encode() if isinstance(part, str) else part
            if data:
                writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                await writer.drain()
        else:
            await _pause(part)
    if raw.abort:
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _pause(pause: Pause) -> None:
    if isinstance(pause, asyncio.Event):
        await pause.wait()
    else:
        await asyncio.sleep(pause)
