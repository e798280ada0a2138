"""Bodies: read by the one length the head gave, written with a length of our own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from interactd.sandbox.egress.wire.head import BadHead, Length
from interactd.sandbox.egress.wire.stream import CHUNK, Reader, TooLong

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_EXTENSION = re.compile(rb"[\t\x20-\x7e]{0,256}")
LAST_CHUNK = b"0\r\n\r\n"


async def pieces(reader: Reader, length: Length, *, strict: bool) -> AsyncIterator[bytes]:
    """Yield a body's bytes without their framing.

    Args:
        strict: refuse what a client has no need of: chunk extensions and trailers. An answer's are read and dropped.

    Raises:
        BadHead: the framing is broken.
        EOFError: the stream ended inside the body.
    """
    if length is None:
        return
    if length == "until_close":
        while data := await reader.some():
            yield data
        return
    if length == "chunked":
        async for data in _chunks(reader, strict):
            yield data
        return
    async for data in _counted(reader, length):
        yield data


def chunk(data: bytes) -> bytes:
    """Frame one piece as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _counted(reader: Reader, left: int) -> AsyncIterator[bytes]:
    while left:
        data = await reader.some(min(left, CHUNK))
        if not data:
            raise EOFError
        left -= len(data)
        yield data


async def _chunks(reader: Reader, strict: bool) -> AsyncIterator[bytes]:
    while True:
        line = await _line(reader)
        size, _, extension = line.partition(b";")
        size = size if strict else size.strip(b" \t")
        if not _SIZE.fullmatch(size) or not _EXTENSION.fullmatch(extension) or (strict and len(size) != len(line)):
            raise BadHead("a chunk's size is malformed")
        count = int(size, 16)
        if count == 0:
            break
        async for data in _counted(reader, count):
            yield data
        if await reader.exactly(2) != b"\r\n":
            raise BadHead("a chunk is longer than it said")
    seen = 0
    while trailer := await _line(reader):
        seen += len(trailer)
        if strict or seen > 16 * 1024:
            raise BadHead("trailers after the body are not accepted")


async def _line(reader: Reader) -> bytes:
    try:
        line = (await reader.until(b"\r\n", 8192))[:-2]
    except TooLong:
        raise BadHead("a line of the chunked body is too long") from None
    if b"\n" in line or b"\r" in line:
        raise BadHead("a bare line break in the chunked body")
    return line
