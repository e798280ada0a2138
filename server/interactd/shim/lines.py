"""Framing: whole lines out of chunks, and what a line of JSON-RPC is about without parsing more than is needed."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINE_MAX = 64 * 1024 * 1024
HEAD = 4096

# What the Python SDK and most hosts write. Where it fits, the rest of a message of many megabytes stays unread.
_USUAL = re.compile(
    rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(?:(-?\d{1,18})|"([^"\\]{0,256})")\s*,'
    rb'\s*"(?:(result|error)"|method"\s*:\s*"([^"\\]{0,128})"\s*[,}])'
)
# The TypeScript SDK puts these last. The closing brace is the message's own: nothing but white space follows it.
_USUAL_TAIL = re.compile(rb',\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(?:(-?\d{1,18})|"([^"\\]{0,256})")\s*\}\s*$')
_TAIL_START = re.compile(rb'\s*\{\s*"(?:(result|error)"\s*:\s*[{\[]|method"\s*:\s*"([^"\\]{0,128})"\s*,)')


class Lines:
    """Cuts a byte stream into lines, holding at most one line of at most `limit` bytes.

    What is longer comes out in pieces: as it arrives when `spill`, otherwise only its head, and the rest is dropped.
    """

    def __init__(self, *, spill: bool, limit: int = LINE_MAX) -> None:
        self._spill = spill
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._overlong = False

    def feed(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """Take a chunk; return `(bytes, whole)` for each line it completes, the newline included."""
        if not self._held and not self._overlong and chunk.find(b"\n") == len(chunk) - 1:
            return [(chunk, True)]
        out: list[tuple[bytes, bool]] = []
        start = 0
        while True:
            end = chunk.find(b"\n", start) + 1
            piece = chunk[start : end or len(chunk)]
            if self._overlong:
                if self._spill and piece:
                    out.append((piece, False))
                self._overlong = not end
            elif end:
                self._held.append(piece)
                out.append((b"".join(self._held), True))
                self._held, self._size = [], 0
            elif piece:
                self._held.append(piece)
                self._size += len(piece)
                if self._size > self._limit:
                    held = b"".join(self._held)
                    out.append((held if self._spill else held[:HEAD], False))
                    self._held, self._size, self._overlong = [], 0, True
            if not end:
                return out
            start = end

    def rest(self) -> bytes:
        """Return what came after the last newline, for a stream that ended. Empties it."""
        held = b"".join(self._held)
        self._held, self._size = [], 0
        return held

    @property
    def broken(self) -> bool:
        """True when the stream would end within a line of which pieces were given out."""
        return self._overlong and self._spill


def peek(line: bytes) -> tuple[str, int | str | None, str]:
    """Say what a line is about.

    Returns:
        `(kind, id, method)`: kind is `request`, `result`, `error`, or `other` for what must be parsed to be known
        (a notification, a batch, an id that is written in an unusual way, something that is no JSON).
    """
    found = _USUAL.match(line, 0, HEAD)
    if found:
        number, text, answer, method = found.groups()
    else:
        start = _TAIL_START.match(line, 0, HEAD)
        tail = _USUAL_TAIL.search(line, max(len(line) - HEAD, 0)) if start else None
        if not start or not tail:
            return "other", None, ""
        answer, method = start.groups()
        number, text = tail.groups()
    try:
        key: int | str = int(number) if number is not None else text.decode()
    except UnicodeDecodeError:
        return "other", None, ""
    if answer:
        return answer.decode("ascii"), key, ""
    return "request", key, method.decode("ascii", "replace")


def parse(line: bytes) -> list[dict[str, Any]]:
    """Return the messages of a line: one, several for a batch, none when it is no JSON-RPC."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return []
    several: list[Any] = found if isinstance(found, list) else [found]  # pyright: ignore[reportUnknownVariableType]
    return [one for one in several if isinstance(one, dict)]


def dump(message: dict[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
