"""stdin and stdout of this process as one asyncio stream pair, for `interactd mcp --in-process`.

While it is open, descriptor 0 is the null device and descriptor 1 is stderr, so that a stray print or a child process
cannot break the protocol. Pipes, sockets and terminals are read by the loop; a regular file by a thread.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

from interactd.faces.mcp.stream.pipe import Writer

CHUNK = 64 * 1024


class _FileWriter:
    """Writes to a regular file or a console, which the loop cannot watch; such a write does not block for long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data)

    async def drain(self) -> None:
        await asyncio.to_thread(self._file.flush)

    def is_closing(self) -> bool:
        return self._file.closed


@asynccontextmanager
async def standard_streams() -> AsyncGenerator[tuple[asyncio.StreamReader, Writer]]:
    """Take stdin and stdout over; give them back at the end.

    Raises:
        OSError: they are closed.
    """
    loop = asyncio.get_running_loop()
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    source, sink = os.fdopen(stdin, "rb", buffering=0), os.fdopen(stdout, "wb")
    reader = asyncio.StreamReader(limit=CHUNK)
    transports: list[asyncio.BaseTransport] = []
    try:
        if _can_be_watched(stdin):
            incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
            transports.append(incoming)
        else:
            threading.Thread(target=_read_file, args=(source, reader, loop), daemon=True).start()
        writer: Writer = _FileWriter(sink)
        if _can_be_watched(stdout):
            outgoing, protocol = await loop.connect_write_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sink
            )
            transports.append(outgoing)
            writer = asyncio.StreamWriter(outgoing, protocol, None, loop)
        yield reader, writer
        with suppress(ConnectionError, OSError):
            await writer.drain()
    finally:
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        for transport in transports:
            transport.close()


def _can_be_watched(descriptor: int) -> bool:
    """Whether an event loop can wait for it: pipes, sockets and terminals. Not files, nor devices such as /dev/null,
    on which the loop's own test passes and the waiting then never begins."""
    if sys.platform == "win32":
        return False
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _read_file(source: BinaryIO, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    try:
        while chunk := source.read(CHUNK):
            loop.call_soon_threadsafe(reader.feed_data, chunk)
    except (OSError, ValueError):
        chunk = b""
    loop.call_soon_threadsafe(reader.feed_eof)
