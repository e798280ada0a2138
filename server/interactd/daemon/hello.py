"""The first line of every connection: who is there, and may they come in."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from typing import Any, cast

from interactd._version import __version__
from interactd.daemon import log
from interactd.daemon.listen import Listener
from interactd.daemon.port import Json
from interactd.envnames import KEY_NAMES
from interactd.shim import peer
from interactd.shim.record import json_object, version_key

HELLO_S = 5.0
FACES = ("mcp", "control", "daemon")


class Unwelcome(Exception):
    """This peer gets no further. `error` is what it is told (None: nothing, it is nobody to talk to)."""

    def __init__(self, error: Json | None, *, retry: bool = False, newer: str = "") -> None:
        super().__init__(error["message"] if error else "a stranger")
        self.error = error
        self.retry = retry
        self.newer = newer


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: Listener) -> Json:
    """Read and check the hello; answer the challenge that goes before it over TCP.

    Returns:
        The hello, with `env` a dictionary of strings and no token in it.

    Raises:
        Unwelcome: it may not come in.
        TimeoutError, ConnectionError, asyncio.IncompleteReadError: it said nothing, or left.
    """
    async with asyncio.timeout(HELLO_S):
        if not listener.tcp:
            _check_uid(writer)
        hello = await _object(reader)
        if listener.tcp:
            challenge = str(hello.get("challenge", ""))
            proof = hmac.new(listener.token.encode(), challenge.encode(errors="replace"), hashlib.sha256).hexdigest()
            writer.write(json.dumps({"interactd": 1, "proof": proof}).encode() + b"\n")
            hello = await _object(reader)
            token = str(hello.pop("token", ""))
            if not hmac.compare_digest(token.encode(errors="replace"), listener.token.encode()):
                raise Unwelcome(None)
    if hello.get("interactd") != 1 or hello.get("face") not in FACES:
        raise Unwelcome(
            {
                "code": "invalid_argument",
                "message": "the first line must be a hello of protocol 1 for the face mcp or control",
                "repair": "Connect through `interactd mcp` or the command line.",
            }
        )
    hello.pop("token", None)
    env: Any = hello.get("env")
    pairs = cast(dict[Any, Any], env) if isinstance(env, dict) else {}
    hello["env"] = {str(name): value for name, value in pairs.items() if isinstance(value, str)}
    log.remember_secrets({value for name, value in hello["env"].items() if name in KEY_NAMES or "KEY" in name.upper()})
    theirs = str(hello.get("version", ""))
    if theirs and version_key(theirs) > version_key(__version__):
        raise Unwelcome(
            {
                "code": "handing_over",
                "message": f"this daemon is {__version__} and makes way for {theirs}",
                "repair": "Connect again in a moment, and start a daemon if there is none.",
            },
            retry=True,
            newer=theirs,
        )
    return hello


def answer(extra: Json) -> bytes:
    """Return the line that lets a client in."""
    return _line({"interactd": 1, "ok": True, "version": __version__, "pid": os.getpid(), **extra})


def refusal(error: Json, *, retry: bool) -> bytes:
    """Return the line that turns a client away."""
    return _line({"interactd": 1, "ok": False, "error": error, "retry": retry})


def _line(message: Json) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


async def _object(reader: asyncio.StreamReader) -> Json:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        line = b""
    found = json_object(line)
    if found is None:
        raise Unwelcome({"code": "invalid_argument", "message": "the first line is not a JSON object"})
    return found


def _check_uid(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    uid = peer.identity(sock)[0] if sock is not None else None
    if uid is not None and uid != os.getuid():
        raise Unwelcome(None)
