"""Lines from a byte stream: any size up to a cap, LF or CR LF, without the 64 KiB limit of `StreamReader.readline`."""

from __future__ import annotations

import asyncio
from collections import deque

CHUNK = 256 * 1024
HEAD = 1024


class Overlong(ValueError):
    """A line beyond the cap. It was skipped; `head` holds its first bytes, so that its sender can be told."""

    def __init__(self, head: bytes, cap: int) -> None:
        super().__init__(f"a message of more than {cap // (1024 * 1024)} MiB was skipped")
        self.head = head


class LineReader:
    """Splits what `reader` delivers into lines. One reader at a time."""

    def __init__(self, reader: asyncio.StreamReader, cap: int) -> None:
        self._reader = reader
        self._cap = cap
        self._ready: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping: bytes | None = None
        self._ended = False

    @property
    def buffered(self) -> bool:
        """Whether the next line is here already."""
        return bool(self._ready)

    async def next(self) -> bytes | None:
        """Return the next line without its end, or `None` at the end of the stream.

        A last line without a line feed counts, as it does for every text tool.

        Raises:
            Overlong: a line was longer than the cap; the stream goes on behind it.
            ConnectionError: the peer broke off.
        """
        while not self._ready:
            if self._ended:
                return None
            chunk = await self._reader.read(CHUNK)
            if not chunk:
                self._ended = True
                if self._skipping is not None:
                    raise Overlong(self._skipping, self._cap)
                if self._size:
                    self._ready.append(self._take(b""))
                continue
            overlong = self._feed(chunk)
            if overlong is not None:
                raise overlong
        return self._ready.popleft()

    def _feed(self, chunk: bytes) -> Overlong | None:
        """Cut the chunk; at most one overlong line can end or begin in it, because chunks are below the cap."""
        overlong: Overlong | None = None
        lines = chunk.split(b"\n")
        rest = lines.pop()
        for line in lines:
            if self._skipping is not None:
                overlong = Overlong(self._skipping, self._cap)
                self._skipping = None
                continue
            self._ready.append(self._take(line))
        if self._skipping is None:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._cap:
                self._skipping = b"".join(self._parts)[:HEAD]
                self._parts.clear()
                self._size = 0
        return overlong

    def _take(self, last: bytes) -> bytes:
        line = b"".join((*self._parts, last)) if self._parts else last
        self._parts.clear()
        self._size = 0
        return line.removesuffix(b"\r")
