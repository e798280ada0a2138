"""HTTP/1.1 heads, read strictly (RFC 9112): what two readers could understand differently is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
MAX_HEADERS = 200

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "http2-settings",
    }
)
Header = tuple[str, str]
Length = int | Literal["chunked", "until_close"] | None


class BadHead(ValueError):
    """The head is not one that has exactly one meaning; the message says why, without any of its values."""


@dataclass(slots=True)
class Request:
    """A request's head. Names keep their case; `length` is None, a count, or `chunked`."""

    method: str
    target: str
    version: int
    headers: list[Header]
    length: Length
    expects_continue: bool
    keep_alive: bool


@dataclass(slots=True)
class Response:
    """An answer's head, without hop-by-hop headers."""

    status: int
    phrase: str
    headers: list[Header]
    length: Length
    declared: int | None
    """What Content-Length said, also where no body follows (HEAD)."""
    keep_alive: bool


def parse_request(head: bytes) -> Request:
    """Read a request's head, `\\r\\n\\r\\n` included.

    Raises:
        BadHead: see there.
    """
    first, fields = _lines(head)
    parts = first.split(b" ")
    if len(parts) != 3:
        raise BadHead("the request line is malformed")
    method, target, version = parts
    if not _METHOD.fullmatch(method):
        raise BadHead("the request's method is malformed")
    if not _TARGET.fullmatch(target):
        raise BadHead("the request's target has characters that it may not have")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadHead("only HTTP/1.1 is spoken here")
    headers = _headers(fields)
    minor = version[-1] - 48
    length = _length(headers)
    if length == "chunked" and minor == 0:
        raise BadHead("an HTTP/1.0 request cannot be chunked")
    if len(values(headers, "host")) > 1:
        raise BadHead("the request has more than one Host")
    expects = [value.lower() for value in values(headers, "expect")]
    if expects and expects != ["100-continue"]:
        raise BadHead("the request expects something unknown")
    return Request(
        method.decode("ascii"),
        target.decode("ascii"),
        minor,
        _end_to_end(headers),
        length,
        bool(expects),
        _keep_alive(headers, minor),
    )


def parse_response(head: bytes, method: str) -> Response:
    """Read an answer's head; `method` is that of the request, on which the body's length depends.

    Raises:
        BadHead: see there.
    """
    first, fields = _lines(head)
    found = _STATUS.fullmatch(first)
    if found is None:
        raise BadHead("the answer's status line is malformed")
    headers = _headers(fields)
    status, minor = int(found[2]), int(found[1])
    length = _length(headers)
    declared = length if isinstance(length, int) else None
    if method == "HEAD" or status < 200 or status in (204, 304):
        length = None
    elif length is None:
        length = "until_close"
    phrase = (found[3] or b"").decode("latin-1")
    kept = _end_to_end(headers)
    keep_alive = _keep_alive(headers, minor) and length != "until_close"
    return Response(status, phrase, kept, length, declared, keep_alive)


def values(headers: list[Header], name: str) -> list[str]:
    """Return the values of every header of that name."""
    return [value for key, value in headers if key.lower() == name]


def without(headers: list[Header], *names: str) -> list[Header]:
    """Return the headers but those."""
    return [(key, value) for key, value in headers if key.lower() not in names]


def render(first: str, headers: list[Header]) -> bytes:
    """Return a head as bytes. No line break can stand in any part: the parsers and policies saw to that; it is
    checked again, since a mistake here would be another message."""
    lines = [first, *(f"{key}: {value}" for key, value in headers)]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise BadHead("a line break inside a header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _lines(head: bytes) -> tuple[bytes, list[bytes]]:
    lines = head[:-4].split(b"\r\n")
    if any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines):
        raise BadHead("the head has a bare line break")
    return lines[0], lines[1:]


def _headers(lines: list[bytes]) -> list[Header]:
    if len(lines) > MAX_HEADERS:
        raise BadHead(f"more than {MAX_HEADERS} headers")
    found: list[Header] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # A name with a blank before the colon, or a folded line, is where readers disagree.
        if not colon or not _TOKEN.fullmatch(name):
            raise BadHead("a header's name is malformed")
        value = value.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise BadHead("a header's value has characters that it may not have")
        found.append((name.decode("ascii"), value.decode("latin-1")))
    return found


def _length(headers: list[Header]) -> Length:
    lengths, codings = values(headers, "content-length"), values(headers, "transfer-encoding")
    if lengths and codings:
        raise BadHead("the message has two lengths (Content-Length and Transfer-Encoding)")
    if len(lengths) > 1 or len(codings) > 1:
        raise BadHead("the message has two lengths")
    if codings:
        if codings[0].lower() != "chunked":
            raise BadHead("the message has a transfer coding other than chunked")
        return "chunked"
    if lengths:
        if not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= 18):
            raise BadHead("the message's length is malformed")
        return int(lengths[0])
    return None


def _end_to_end(headers: list[Header]) -> list[Header]:
    named = {part.strip().lower() for value in values(headers, "connection") for part in value.split(",")}
    # Content-Length is written anew by whoever frames the body.
    drop = HOP_BY_HOP | named | {"content-length"}
    return [(key, value) for key, value in headers if key.lower() not in drop]


def _keep_alive(headers: list[Header], minor: int) -> bool:
    said = [
        part.strip().lower()
        for name in ("connection", "proxy-connection")
        for value in values(headers, name)
        for part in value.split(",")
    ]
    return "close" not in said and (minor == 1 or "keep-alive" in said)
