"""The recorded provider traffic, and a loopback server that replays it in odd pieces."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import yaml

from interactd.models.codecs import codec
from interactd.models.http.sse import SseReader
from interactd.models.port import ModelEvent, ModelRequest

Json = dict[str, Any]
PROVIDERS = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
}
_ENDINGS = {
    "/chat/completions": "openai-chat",
    "/v1/responses": "openai-responses",
    "/v1/messages": "anthropic",
    ":generateContent": "gemini",
    ":streamGenerateContent": "gemini",
}


def folder() -> Path | None:
    """Where the recordings are: INTERACTD_WIRE, or a shared/wire folder beside the checkout."""
    if given := os.environ.get("INTERACTD_WIRE"):
        return Path(given) if Path(given).is_dir() else None
    found = Path(__file__).resolve().parents[4] / "shared" / "wire"
    return found if found.is_dir() else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer."""

    name: str
    kind: str | None
    request: Json
    status: int
    headers: dict[str, str]
    body: Json | None
    text: str

    @property
    def streamed(self) -> bool:
        return self.body is None

    @property
    def model(self) -> str:
        return str(self.request.get("model") or "gemini")

    def payload(self) -> bytes:
        return (json.dumps(self.body) if self.body is not None else self.text).encode()


def exchanges(path: Path) -> list[Exchange]:
    """Every exchange of one recording; `kind` is None for what is no model call (files, token counts ...)."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    out: list[Exchange] = []
    for number, item in enumerate(yaml.load(path.read_text(), loader)["interactions"]):
        request, response = item["request"], item["response"]
        uri = request["uri"].partition("?")[0]
        kind = next((kind for ending, kind in _ENDINGS.items() if uri.endswith(ending)), None)
        body = response.get("parsed_body")
        said: Any = response["body"].get("string") if response.get("body") else ""
        text: str = said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""
        sent: Any = request.get("parsed_body")
        headers = {name.lower(): values[0] for name, values in response["headers"].items()}
        given: Json = cast("Json", sent) if isinstance(sent, dict) else {}
        name = f"{path.parent.name}/{path.stem}#{number}"
        kind = kind if request["method"] == "POST" else None
        out.append(Exchange(name, kind, given, response["status"]["code"], headers, body, text))
    return out


def pieces(payload: bytes, seed: str) -> Iterator[bytes]:
    """Cut bytes into pieces of 1 to 37, the same way for the same seed; also inside characters and line ends."""
    chance = random.Random(seed)
    start = 0
    while start < len(payload):
        end = start + chance.randint(1, 37)
        yield payload[start:end]
        start = end


@asynccontextmanager
async def replaying(payload: bytes, content_type: str, seed: str, status: int = 200) -> AsyncGenerator[str]:
    """Serve one answer to every request; each piece is an HTTP chunk of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0] or 0))
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n"
            "connection: close\r\n\r\n".encode()
        )
        for number, piece in enumerate(pieces(payload, seed)):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if number % 64 == 0:
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read(url: str, kind: str, request: ModelRequest, *, streamed: bool) -> list[ModelEvent]:
    """Call the server as a model is called and return what the codec made of the answer."""
    wire = codec(kind, PROVIDERS[kind])
    parser = wire.parser(request)
    async with httpx2.AsyncClient(trust_env=False) as client:
        sent = {"content-type": "application/json", **wire.headers("k", request)}
        body = json.dumps(wire.body(request, stream=streamed))
        path = wire.path(request, stream=streamed)
        async with client.stream("POST", url + path, content=body, headers=sent) as response:
            if response.status_code >= 300:
                await response.aread()
                raise wire.error(response.status_code, response.headers, response.text)
            if not streamed:
                return parser.feed_body(json.loads(await response.aread()))
            events: list[ModelEvent] = []
            reader = SseReader()
            async for chunk in response.aiter_bytes():
                for sent_event in reader.feed(chunk):
                    events += parser.feed(sent_event.event, sent_event.data)
            if (last := reader.end()) is not None:
                events += parser.feed(last.event, last.data)
            return events + parser.end()
