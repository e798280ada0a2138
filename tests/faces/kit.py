"""A small tool set, a daemon's socket without the daemon, and clients that say exactly what a test tells them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from interactd.config.schema import Config
from interactd.engine.port import Engine
from interactd.errors import Conflict
from interactd.faces import Faces, build
from interactd.paths import Paths, find
from interactd_tools.context import Annotations, CallContext, Image, Link, Tool, ToolResult

PATIENCE_S = 10.0
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
VERSIONS = (*HANDSHAKE, MODERN)
_HARMLESS = Annotations(read_only=True, destructive=False, idempotent=True, open_world=False)

Json = dict[str, Any]


def _tool(name: str, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return Tool(name, name.title(), f"{name} for tests.", schema, _HARMLESS)


class SmallTools:
    """echo, wait, count, boom, conflict, rich: one for each way a call can go."""

    def __init__(self) -> None:
        self.contexts: list[CallContext] = []
        self.arguments: list[object] = []
        self.release = asyncio.Event()
        self.waiting = 0
        self.most = 0
        self._changed = asyncio.Condition()
        self.cancelled = asyncio.Event()
        self._tools = [
            _tool("echo", text={"type": "string"}),
            _tool("wait"),
            _tool("count", upto={"type": "integer"}),
            _tool("boom"),
            _tool("conflict"),
            _tool("rich"),
        ]

    def select(self, toolsets: Iterable[str] = ()) -> list[Tool]:
        return [*self._tools, *([_tool("extra")] if "more" in toolsets else [])]

    async def call(self, name: str, arguments: object, ctx: CallContext, *, toolsets: Iterable[str] = ()) -> ToolResult:
        self.contexts.append(ctx)
        self.arguments.append(arguments)
        given = cast(Json, arguments) if isinstance(arguments, dict) else {}
        if name == "echo":
            return ToolResult(str(given.get("text", "")))
        if name == "wait":
            await self._wait_changes(1)
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            finally:
                self.waiting -= 1
            return ToolResult("waited")
        if name == "count":
            for number in range(given.get("upto", 3)):
                if ctx.progress is not None:
                    await ctx.progress(f"{number} ", "status" if number == 0 else "text")
            return ToolResult("counted")
        if name == "boom":
            raise RuntimeError("secret-inside-the-exception")
        if name == "conflict":
            raise Conflict("a turn runs", repair="Wait for it.")
        if name == "rich":
            return ToolResult(
                "all of it",
                {"id": "int_1"},
                meta={"interactd/x": 1},
                links=[Link("interactd://sessions/ses_1", "ses_1", description="a session")],
                images=[Image("aGk=", "image/png")],
            )
        return ToolResult(f"not_found: no tool {name}", is_error=True)

    async def _wait_changes(self, by: int) -> None:
        async with self._changed:
            self.waiting += by
            self.most = max(self.most, self.waiting)
            self._changed.notify_all()

    async def waited_for(self, count: int) -> None:
        """Return when so many `wait` calls are running."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self.waiting >= count)


@dataclass
class NoHooks:
    """A daemon that notes what it was asked."""

    stops: list[bool] = field(default_factory=list[bool])

    def info(self) -> Json:
        return {"pid": 1}

    def request_stop(self, now: bool) -> None:
        self.stops.append(now)


class Daemon:
    """The faces behind a real unix socket, as the daemon serves them after the hello."""

    def __init__(self, tmp: Path, tools: Any, engine: Engine | None, config: Config | None = None) -> None:
        self.paths: Paths = find({"INTERACTD_HOME": str(tmp)}).make()
        self.hooks = NoHooks()
        self.tools = tools
        # Tests that give no engine call no tool that needs one.
        self.engine = cast(Engine, engine)
        self.faces: Faces = build(self.engine, self.paths, config or Config(), self.hooks, tools)
        self.hellos: list[Json] = []
        self.open = 0
        self._closed = asyncio.Condition()

    async def _serve(self, face: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello: Json = {"connection": f"con_{len(self.hellos)}", "cwd": "/somewhere", "options": {}}
        self.hellos.append(hello)
        self.open += 1
        try:
            await getattr(self.faces, face)(reader, writer, hello)
        finally:
            writer.close()
            async with self._closed:
                self.open -= 1
                self._closed.notify_all()

    async def all_closed(self) -> None:
        """Return when no connection is served any more."""
        async with asyncio.timeout(PATIENCE_S), self._closed:
            await self._closed.wait_for(lambda: not self.open)

    @asynccontextmanager
    async def listening(self, face: str = "mcp") -> AsyncGenerator[str]:
        path = str(self.paths.runtime / f"{face}.sock")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(face, reader, writer)

        server = await asyncio.start_unix_server(serve, path)
        try:
            yield path
        finally:
            server.close()
            await self.faces.aclose()
            await self.all_closed()


class Wire:
    """One connection that speaks lines of JSON; keeps what it reads that is not what was waited for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.notes: list[Json] = []
        self._number = 0

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send(self, message: Any) -> None:
        await self.write(json.dumps(message).encode() + b"\n")

    async def line(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            data = await self.reader.readline()
        assert data, "the connection ended"
        return json.loads(data)

    async def answer(self, number: Any) -> Json:
        """The next response with that id; notifications on the way are kept in `notes`."""
        while True:
            message = await self.line()
            if isinstance(message, dict) and "method" in message:
                self.notes.append(cast(Json, message))
                continue
            assert isinstance(message, dict), message
            answer = cast(Json, message)
            assert answer.get("id") == number, answer
            return answer

    async def request(self, method: str, params: Json | None = None, number: Any = None) -> Json:
        if number is None:
            self._number += 1
            number = self._number
        message: Json = {"jsonrpc": "2.0", "id": number, "method": method}
        if params is not None:
            message["params"] = params
        await self.send(message)
        return await self.answer(number)

    async def initialize(self, version: str = "2025-11-25", name: str = "raw") -> Json:
        answer = await self.request("initialize", hello(version, name))
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer["result"]

    async def call(self, tool: str, arguments: Json | None = None, **meta: Any) -> Json:
        params: Json = {"name": tool, "arguments": arguments or {}}
        if meta:
            params["_meta"] = meta
        return (await self.request("tools/call", params))["result"]

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


def hello(version: str, name: str = "raw") -> Json:
    """Parameters of initialize."""
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}


def envelope(name: str = "raw", version: str = MODERN, **more: Any) -> Json:
    """The `_meta` of a request of the 2026 era."""
    return {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": name, "version": "1"},
        **more,
    }


@asynccontextmanager
async def connected(path: str) -> AsyncGenerator[Wire]:
    """Open a connection to a listening daemon."""
    reader, writer = await asyncio.open_unix_connection(path, limit=64 * 1024 * 1024)
    wire = Wire(reader, writer)
    try:
        yield wire
    finally:
        await wire.close()


def text(result: Json) -> str:
    """All text of a tool result."""
    return "".join(block["text"] for block in result["content"] if block["type"] == "text")
