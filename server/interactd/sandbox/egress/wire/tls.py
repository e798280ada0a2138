"""TLS over a stream, in memory. The event loop's own TLS cannot begin with bytes that were read already."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from interactd.sandbox.egress.wire.stream import CHUNK, Stream


class TlsStream:
    """One end of a TLS connection over `under`. Reading and writing may be done by two tasks."""

    def __init__(
        self,
        under: Stream,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        start: bytes = b"",
    ) -> None:
        self._under = under
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in.write(start)
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        self._sending = asyncio.Lock()

    async def handshake(self) -> None:
        """Raises: ssl.SSLError (also for a certificate that is not good), OSError, EOFError. Not bounded by itself."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed(strict=True)
            except ssl.SSLError:
                # The alert says to the other side what was wrong.
                with contextlib.suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    async def recv(self, count: int = CHUNK) -> bytes:
        while True:
            try:
                return self._tls.read(count)
            except ssl.SSLWantReadError:
                # A read can make an answer of its own, e.g. to a key update.
                await self._flush()
                await self._feed(strict=False)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def finish(self) -> None:
        # Sends the close; the other side's own close is not waited for.
        with contextlib.suppress(ssl.SSLError, OSError):
            try:
                self._tls.unwrap()
            finally:
                await self._flush()
        await self._under.finish()

    async def _feed(self, *, strict: bool) -> None:
        data = await self._under.recv()
        if data:
            self._in.write(data)
        elif strict:
            raise EOFError
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._out.read()
            if data:
                await self._under.send(data)
