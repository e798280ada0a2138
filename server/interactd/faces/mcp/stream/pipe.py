"""Newline-delimited messages over a byte stream: the daemon's socket, or stdin and stdout."""

from __future__ import annotations

import asyncio
import logging
import select
from contextlib import suppress
from typing import Protocol

from interactd.faces.lines import LineReader, Overlong
from interactd.faces.mcp.stream.frames import MAX_MESSAGE, Frame, overlong, parse

logger = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long answers are still made for a peer that closed its sending side (`printf ... | interactd mcp`)."""


class Writer(Protocol):
    """The part of asyncio.StreamWriter that is needed here."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def is_closing(self) -> bool: ...


class PipeSource:
    """Frames from the lines of a stream."""

    def __init__(self, reader: asyncio.StreamReader, fd: int | None) -> None:
        self._lines = LineReader(reader, MAX_MESSAGE)
        self._fd = fd

    async def next(self) -> Frame | None:
        """Return the next line's frame, `None` at the end."""
        try:
            line = await self._lines.next()
        except Overlong as error:
            return overlong(error.head)
        return None if line is None else parse(line)

    async def linger(self, answered: asyncio.Event) -> None:
        """Give running calls a moment to be answered, unless the peer has closed both its sides."""
        if self._hung_up():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), LINGER_S)

    def _hung_up(self) -> bool:
        """Whether the peer of a unix socket is gone altogether; a half-closed one still reads."""
        if self._fd is None or self._fd < 0 or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLHUP)
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


class PipeWrite:
    """Sends lines. Writes are whole and in order, because each is a single call of `write`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def __call__(self, data: bytes) -> None:
        """Send one message; waits while the peer reads too slowly.

        Raises:
            ConnectionError: the peer is gone.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the peer is gone")
        self._writer.write(data + b"\n")
        await self._writer.drain()
