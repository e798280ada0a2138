"""Raw clients of the two HTTP transports, which show every status and every event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from faces.kit import MODERN, PATIENCE_S, Daemon, Json, envelope, hello
from interactd.faces.http.serving import HttpFace

ACCEPT = {"accept": "application/json, text/event-stream"}


@asynccontextmanager
async def opened(daemon: Daemon, **options: Any) -> AsyncGenerator[tuple[HttpFace, httpx2.AsyncClient]]:
    """An HTTP face on a free port, and a client that has its address but not its token."""
    given: dict[str, Any] = {"port": 0, **options}
    face = await daemon.faces.http(**given)
    try:
        async with httpx2.AsyncClient(base_url=face.url, timeout=PATIENCE_S) as client:
            yield face, client
    finally:
        await face.aclose()


def bearer(daemon: Daemon) -> dict[str, str]:
    """The header that opens the door."""
    return {"authorization": f"Bearer {daemon.paths.token_file.read_text().strip()}"}


def events(body: str) -> list[Json]:
    """The JSON of all `message` events of an event stream."""
    return [json.loads(line[5:]) for line in body.splitlines() if line.startswith("data:") and line[5:].strip()]


class StreamableHttp:
    """One client of `/mcp` at one protocol version. `notes` keeps the notifications that came with answers."""

    def __init__(self, client: httpx2.AsyncClient, version: str, headers: dict[str, str]) -> None:
        self.client = client
        self.version = version
        self.headers = {**ACCEPT, **headers}
        self.notes: list[Json] = []
        self._number = 0

    async def post(self, message: Any) -> httpx2.Response:
        return await self.client.post("/mcp", json=message, headers=self.headers)

    async def request(self, method: str, params: Json | None = None) -> Json:
        self._number += 1
        message: Json = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}}
        headers = dict(self.headers)
        if self.version == MODERN:
            meta: Json = {**envelope(), **message["params"].get("_meta", {})}
            message["params"] = {**message["params"], "_meta": meta}
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            named: Any = message["params"].get("name") or message["params"].get("uri")
            if named:
                headers["mcp-name"] = str(named)
        response = await self.client.post("/mcp", json=message, headers=headers)
        found = [response.json()] if "json" in response.headers["content-type"] else events(response.text)
        self.notes += [one for one in found if "method" in one]
        (answer,) = [one for one in found if "method" not in one]
        assert answer["id"] == self._number
        self.last = response
        return answer

    async def start(self) -> Json:
        """Handshake, or what stands for it."""
        if self.version == MODERN:
            return (await self.request("server/discover"))["result"]
        answer = await self.request("initialize", hello(self.version))
        self.headers["mcp-session-id"] = self.last.headers["mcp-session-id"]
        if self.version >= "2025-06-18":
            self.headers["mcp-protocol-version"] = self.version
        done = await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert done.status_code == 202
        return answer["result"]


class Sse:
    """One client of `/sse`."""

    def __init__(self, client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers
        self.endpoint = ""
        self.notes: list[Json] = []
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._number = 0

    async def _read(self, response: httpx2.Response) -> None:
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                await self._queue.put((name, line[5:].strip()))

    async def event(self) -> tuple[str, str]:
        async with asyncio.timeout(PATIENCE_S):
            return await self._queue.get()

    async def post(self, data: Any) -> httpx2.Response:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"content-type": "application/json", **self.headers}
        return await self.client.post(self.endpoint, content=content, headers=headers)

    async def answer(self, number: Any) -> Json:
        while True:
            message = json.loads((await self.event())[1])
            if "method" not in message:
                assert message["id"] == number
                return message
            self.notes.append(message)

    async def request(self, method: str, params: Json | None = None) -> Json:
        self._number += 1
        sent = await self.post({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}})
        assert sent.status_code == 202
        return await self.answer(self._number)

    @classmethod
    @asynccontextmanager
    async def opened(cls, client: httpx2.AsyncClient, headers: dict[str, str], query: str = "") -> AsyncGenerator[Sse]:
        async with client.stream("GET", f"/sse{query}", headers=headers) as response:
            assert response.status_code == 200
            sse = cls(client, headers)
            reading = asyncio.create_task(sse._read(response))
            try:
                name, sse.endpoint = await sse.event()
                assert name == "endpoint"
                yield sse
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
