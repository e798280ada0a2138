"""Plain JSON answers of the ASGI layers, and the types they speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from interactd.nouns import Json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that (lower-case) name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def drain(scope: Scope, receive: Receive, limit: int, seconds: float) -> None:
    """Read away what a refused client still sends, up to a limit: closing under its hands would reset the connection,
    and it would see a network error in place of the reason."""
    if header(scope, b"content-length") in {None, "0"} and header(scope, b"transfer-encoding") is None:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while limit > 0:
                message = await receive()
                limit -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


async def answer(send: Send, status: int, body: Json | list[Any] | None, headers: Headers = ()) -> None:
    """Send a whole JSON response; `None` is an empty one."""
    data = b"" if body is None else json.dumps(body).encode()
    base = [(b"content-length", str(len(data)).encode()), (b"cache-control", b"no-store")]
    if body is not None:
        base.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": [*base, *headers]})
    await send({"type": "http.response.body", "body": data})


async def refuse(
    send: Send, status: int, code: str, message: str, repair: str | None = None, headers: Headers = ()
) -> None:
    """Send `{"error": {code, message, repair}}`."""
    error: Json = {"code": code, "message": message}
    if repair:
        error["repair"] = repair
    await answer(send, status, {"error": error}, headers)
