"""Request bodies: bounded in size and time, and looked at before the SDK does, which drops or misreads some.

What is answered here: a body that is too large or too slow, JSON that only a lenient parser reads (lone surrogates),
and batches of the versions that had them: each message of one is passed on by itself and the answers are put together.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from mcp_types import INVALID_REQUEST, JSONRPCRequest

from interactd.faces.http.answers import App, Message, Receive, Scope, Send, answer, drain, header, refuse
from interactd.faces.mcp.stream.conversation import BATCH_VERSIONS
from interactd.faces.mcp.stream.frames import Frame, encode, parse, refusal

MAX_BODY = 8 * 1024 * 1024
BODY_S = 30.0
"""For the whole body: enough for the largest over a poor network, too little to hold a connection for nothing."""
_DRAINED = 64 * 1024 * 1024
_DRAIN_S = 5.0


class Bodies:
    """ASGI layer: reads POST bodies whole and hands on those that are sound."""

    def __init__(self, app: App, max_body: int = MAX_BODY, body_s: float = BODY_S) -> None:
        self._app = app
        self._max_body = max_body
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        declared = header(scope, b"content-length") or ""
        body: bytes | None = None
        if not declared.isdecimal() or int(declared[:18]) <= self._max_body:
            try:
                async with asyncio.timeout(self._body_s):
                    body = await self._read(receive)
            except TimeoutError:
                await _closing(send, 408, "request_timeout", f"the body did not come within {self._body_s:.0f} s")
                return
            except ConnectionError:
                return
        if body is None:
            await drain(scope, receive, _DRAINED, _DRAIN_S)
            limit = f"{self._max_body // (1024 * 1024)} MiB"
            await _closing(send, 413, "too_large", f"a body may have at most {limit}")
            return
        if scope["path"].rstrip("/") == "/mcp":
            frame = _suspicious(body)
            if frame is not None and frame.batch:
                await self._batch(frame, scope, receive, send)
                return
            if frame is not None and frame.refusals:
                await answer(send, 400, json.loads(encode(frame.refusals[0])))
                return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, `None` when it is too large.

        Raises:
            ConnectionError: the client left.
        """
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ConnectionResetError("the client left")
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    async def _batch(self, frame: Frame, scope: Scope, receive: Receive, send: Send) -> None:
        version = header(scope, b"mcp-protocol-version")
        if version is not None and version not in BATCH_VERSIONS:
            problem = f"protocol {version} has no JSON-RPC batches: send each message by itself"
            await answer(send, 400, json.loads(encode(refusal(None, INVALID_REQUEST, problem))))
            return
        answers: list[Any] = [json.loads(encode(error)) for error in frame.refusals]

        async def one(data: bytes) -> Any:
            capture = _Capture()
            await self._app(scope, _replay(data, receive), capture)
            return capture.result()

        # Notifications one after the other and first: their order can matter, and they are quick.
        for message in frame.messages:
            if not isinstance(message, JSONRPCRequest):
                await one(encode(message))
        calls = [one(encode(message)) for message in frame.messages if isinstance(message, JSONRPCRequest)]
        answers.extend(found for found in await asyncio.gather(*calls) if found is not None)
        if answers:
            await answer(send, 200, answers)
        else:
            await answer(send, 202, None)


class _Capture:
    """A `send` that keeps a response, JSON or event stream, and finds the JSON-RPC answer in it."""

    def __init__(self) -> None:
        self._type = ""
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {key.lower(): value for key, value in message.get("headers", ())}
            self._type = headers.get(b"content-type", b"").decode("latin-1")
        else:
            self._body += message.get("body", b"")

    def result(self) -> Any:
        if "event-stream" not in self._type:
            return json.loads(self._body) if self._body else None
        for line in self._body.split(b"\n"):
            if line.startswith(b"data:") and line[5:].strip():
                message: Any = json.loads(line[5:])
                if isinstance(message, dict) and {"result", "error"} & cast(dict[str, Any], message).keys():
                    return cast(Any, message)
        return None


def _suspicious(body: bytes) -> Frame | None:
    """Return the frame of a body the SDK would not take; `None` for the ordinary ones, which it parses itself."""
    start = body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"[" or b"\\ud" in body or b"\\uD" in body:
        frame = parse(body)
        return frame if frame.batch or frame.refusals else None
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _closing(send: Send, status: int, code: str, message: str) -> None:
    """Refuse and close: what is left of the body must not pass for the next request."""
    await refuse(send, status, code, message, headers=[(b"connection", b"close")])
