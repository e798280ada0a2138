"""One POST: to checked addresses only, no redirect followed, an answer within its time, the beginning of it kept."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from interactd.durable.webhooks.address import Network, Place, resolved
from interactd.errors import NetworkRefused
from interactd.sandbox.egress.dial import Resolver, connect, system_resolver
from interactd.sandbox.egress.limits import EgressLimits
from interactd.sandbox.egress.refusal import Refused, Unreachable
from interactd.sandbox.egress.run import upstream_context
from interactd.sandbox.egress.wire.body import pieces
from interactd.sandbox.egress.wire.head import BadHead, Response, parse_response, render, values
from interactd.sandbox.egress.wire.stream import Reader, SocketStream, Stream, TooLong
from interactd.sandbox.egress.wire.tls import TlsStream

KEPT_BYTES = 300
_HEAD_BYTES = 32 * 1024
_BODY_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt went. `retry_after_s` is what the receiver asked for; `final` that trying again is no use."""

    ok: bool
    status_code: int | None = None
    answer: str = ""
    error: str | None = None
    retry_after_s: float | None = None
    final: bool = False


class Sender:
    """Posts to receivers.

    Args:
        allowed: networks that the user listed.
        resolver: names to addresses; tests have their own.
        upstream: how receivers' certificates are verified; default: this machine's roots.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolver: Resolver = system_resolver,
        upstream: ssl.SSLContext | None = None,
        timeout_s: float = 15,
    ) -> None:
        self.allowed = tuple(allowed)
        self._resolver = resolver
        self._upstream = upstream
        self._timeout_s = timeout_s
        self._limits = EgressLimits(connect_s=timeout_s)

    async def post(self, place: Place, headers: list[tuple[str, str]], body: bytes, *, allow_local: bool) -> Answer:
        """Send the body and say how it went; never raises for what the network or the receiver does."""
        sock: SocketStream | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await resolved(place, self._resolver, allow_local=allow_local, allowed=self.allowed)
                origin = place.origin
                sock = SocketStream(await connect(origin.host, addresses, origin.port, self._limits))
                stream = await self._secured(sock, place)
                given = [
                    ("Host", origin.authority),
                    ("User-Agent", "interactd-webhooks/1"),
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    *headers,
                    ("Connection", "close"),
                ]
                await stream.send(render(f"POST {place.target} HTTP/1.1", given) + body)
                return await _answer(Reader(stream))
        except TimeoutError:
            return Answer(False, error=f"no answer within {self._timeout_s:g} s")
        except NetworkRefused as refused:
            return Answer(False, error=refused.message)
        except Unreachable as gone:
            return Answer(False, error=gone.reason)
        except Refused as refused:
            return Answer(False, error=refused.reason)
        except ssl.SSLCertVerificationError as error:
            return Answer(False, error=f"the receiver's certificate is not good ({error.verify_message})")
        except (OSError, EOFError, BadHead, TooLong) as error:
            return Answer(False, error=f"the connection broke before a whole answer ({type(error).__name__})")
        finally:
            if sock is not None:
                sock.sock.close()

    async def _secured(self, sock: SocketStream, place: Place) -> Stream:
        if not place.origin.secure:
            return sock
        if self._upstream is None:
            self._upstream = await asyncio.to_thread(upstream_context)
        tls = TlsStream(sock, self._upstream, server_hostname=place.origin.host)
        await tls.handshake()
        return tls


async def _answer(reader: Reader) -> Answer:
    while True:
        response = parse_response(await reader.until(b"\r\n\r\n", _HEAD_BYTES), "POST")
        if response.status >= 200:
            break
    text = await _beginning(reader, response)
    if 200 <= response.status < 300:
        return Answer(True, response.status, text)
    error = f"the receiver answered {response.status}"
    if 300 <= response.status < 400:
        error += ", a redirect, which is not followed: give the webhook its final address"
    return Answer(
        False,
        response.status,
        text,
        error,
        retry_after_s=_retry_after(response),
        final=response.status == 410,
    )


async def _beginning(reader: Reader, response: Response) -> str:
    """The first bytes of the body. The status decides, so a body that is late or broken spoils nothing."""
    kept = bytearray()
    with contextlib.suppress(OSError, EOFError, BadHead, TooLong, TimeoutError):
        async with asyncio.timeout(_BODY_S):
            async for piece in pieces(reader, response.length, strict=False):
                kept += piece
                if len(kept) >= KEPT_BYTES:
                    break
    return bytes(kept[:KEPT_BYTES]).decode("utf-8", "replace")


def _retry_after(response: Response) -> float | None:
    said = values(response.headers, "retry-after")
    if not said:
        return None
    text = said[0].strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
