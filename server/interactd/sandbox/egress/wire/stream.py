"""A connected socket on the event loop, and a buffered reader over anything that gives bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Protocol

CHUNK = 64 * 1024


class TooLong(Exception):
    """What was to be read up to an end mark is longer than it may be."""


class Stream(Protocol):
    """Two directions of bytes. One task reads and one writes at a time."""

    async def recv(self, count: int = CHUNK) -> bytes:
        """Return what came, at most `count` bytes; empty at the end. Raises: OSError, ssl.SSLError."""
        ...

    async def send(self, data: bytes) -> None:
        """Return when the bytes are with the kernel. Raises: OSError, ssl.SSLError."""
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent."""
        ...


class SocketStream:
    """A plain socket. Its owner closes it, after the tasks that use it have ended."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def recv(self, count: int = CHUNK) -> bytes:
        return await self._loop.sock_recv(self.sock, count)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with a reset, so that a cut transfer cannot be taken for a whole one."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Reader:
    """Buffered reading from a stream; nothing is read ahead beyond what came with the last `recv`."""

    def __init__(self, stream: Stream, start: bytes = b"") -> None:
        self._stream = stream
        self._buffer = bytearray(start)

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    async def more(self) -> bool:
        """Wait for bytes; False at the end."""
        data = await self._stream.recv()
        self._buffer += data
        return bool(data)

    async def some(self, most: int = CHUNK) -> bytes:
        """Return at least one byte and at most `most`; empty at the end."""
        if not self._buffer and not await self.more():
            return b""
        out = bytes(self._buffer[:most])
        del self._buffer[: len(out)]
        return out

    async def until(self, mark: bytes, limit: int) -> bytes:
        """Return everything up to and with the mark.

        Raises:
            TooLong: no mark within `limit` bytes.
            EOFError: the stream ended first; its argument is what came.
        """
        seen = 0
        while True:
            found = self._buffer.find(mark, max(0, seen - len(mark) + 1), limit)
            if found >= 0:
                end = found + len(mark)
                out = bytes(self._buffer[:end])
                del self._buffer[:end]
                return out
            seen = len(self._buffer)
            if seen >= limit:
                raise TooLong
            if not await self.more():
                raise EOFError(bytes(self._buffer))

    async def exactly(self, count: int) -> bytes:
        """Return `count` bytes. Raises: EOFError."""
        while len(self._buffer) < count:
            if not await self.more():
                raise EOFError(bytes(self._buffer))
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out

    def take(self) -> bytes:
        """Return what is buffered and forget it."""
        out = bytes(self._buffer)
        self._buffer.clear()
        return out

    def put_back(self, data: bytes) -> None:
        """Have these bytes read next."""
        self._buffer[:0] = data
