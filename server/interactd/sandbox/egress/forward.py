"""Requests that the proxy reads: plain HTTP, and those inside a tunnel whose TLS it ends. One at a time each."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from interactd.sandbox.egress.dial import connect, resolve
from interactd.sandbox.egress.injection import Injection, Mask
from interactd.sandbox.egress.log import Entry
from interactd.sandbox.egress.policy.addresses import not_public
from interactd.sandbox.egress.policy.hosts import Address, BadHost, authority, split_authority
from interactd.sandbox.egress.refusal import Refused, Unreachable, answer
from interactd.sandbox.egress.run import Idle, Run, read_request
from interactd.sandbox.egress.wire.body import LAST_CHUNK, chunk, pieces
from interactd.sandbox.egress.wire.head import (
    BadHead,
    Header,
    Request,
    Response,
    parse_response,
    render,
    values,
    without,
)
from interactd.sandbox.egress.wire.stream import Reader, SocketStream, Stream, TooLong
from interactd.sandbox.egress.wire.tls import TlsStream


class Cut(Exception):
    """The answer had begun when something stopped it: the client's connection must be reset."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: a canonical host and its port."""

    secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        return authority(self.host, self.port, 443 if self.secure else 80)


@dataclass(slots=True)
class _Upstream:
    origin: Origin
    addresses: Sequence[Address]
    sock: SocketStream | None = None
    stream: Stream | None = None
    reader: Reader | None = None


class Forwarder:
    """Serves the requests of one client connection, keeping its last upstream connection for the next one.

    Args:
        fixed: the origin of a tunnel whose TLS is ended; None for a proxy's plain requests, which name theirs.
    """

    def __init__(self, run: Run, client: Reader, out: Stream, fixed: Origin | None = None) -> None:
        self._run = run
        self._client = client
        self._out = out
        self._fixed = fixed
        self._upstream: _Upstream | None = None

    async def serve(self) -> None:
        """Serve requests until the client has no more. Raises: Cut, OSError, ssl.SSLError."""
        limits = self._run.limits
        while True:
            try:
                request = await read_request(self._client, limits, limits.keep_alive_s)
            except Refused as refused:
                entry = self._run.log.open("?", self._fixed.host if self._fixed else "", 0)
                self._run.log.close(entry, "denied", refused.reason)
                await self.send_answer(refused)
                return
            if request is None or not await self.one(request):
                return

    async def one(self, request: Request) -> bool:
        """Serve one request; False when the client's connection is not to be used again.

        Raises:
            Cut, OSError, ssl.SSLError.
        """
        run, fixed = self._run, self._fixed
        entry = run.log.open(request.method, fixed.host if fixed else "", fixed.port if fixed else 0)
        try:
            async with Idle(run.limits.idle_s) as idle:
                again = await self._judge_and_send(request, entry, idle)
        except Refused as refused:
            run.log.close(entry, "failed" if isinstance(refused, Unreachable) else "denied", refused.reason)
            again = request.keep_alive and request.length in (None, 0)
            await self.send_answer(refused, keep_alive=again)
            return again
        except TimeoutError:
            run.log.close(entry, "failed", f"no byte for {run.limits.idle_s:g} s")
            raise Cut from None
        except (Cut, OSError, ssl.SSLError, EOFError) as exc:
            reason = str(exc) if isinstance(exc, Cut) else "the connection was lost"
            run.log.close(entry, "failed", reason)
            raise Cut from None
        finally:
            run.log.close(entry)
        return again

    async def send_answer(self, refused: Refused, *, keep_alive: bool = False) -> None:
        """Send a refusal as the answer, bounded."""
        async with asyncio.timeout(self._run.limits.head_s):
            await self._out.send(answer(refused, keep_alive=keep_alive))

    def close(self) -> None:
        """Let go of the upstream connection."""
        if self._upstream is not None and self._upstream.sock is not None:
            self._upstream.sock.sock.close()
        self._upstream = None

    async def _judge_and_send(self, request: Request, entry: Entry, idle: Idle) -> bool:
        run = self._run
        origin, target = self._where(request)
        entry.host, entry.port = origin.host, origin.port
        if request.method in ("TRACE", "TRACK", "CONNECT", "PRI"):
            raise Refused(f"the method {request.method} is not let out")
        run.budget.request()
        rule = run.policy.check(origin.host, origin.port)
        up = self._upstream
        if up is None or up.origin != origin:
            self.close()
            addresses = await resolve(origin.host, origin.port, run.policy, run.resolver, run.limits)
            up = self._upstream = _Upstream(origin, addresses)
        private = all(not_public(address) is not None for address in up.addresses)
        injection = Injection(run.policy, rule, origin.host, origin.port, origin.secure, private)
        target, headers = injection.apply(target, without(request.headers, "host"))
        body: bytes | None = None
        if injection.swaps_body(
            request.length if isinstance(request.length, int) else None, run.limits.substitute_bytes
        ):
            assert isinstance(request.length, int)
            await self._continue(request)
            body = injection.swap_body(await self._client.exactly(request.length), headers)
        mask = injection.mask()
        if mask is not None:
            # Only what can be read can be masked, and only what comes whole.
            headers = [*without(headers, "accept-encoding", "range", "if-range"), ("Accept-Encoding", "identity")]
        headers = [("Host", origin.authority), *headers, *_framing(request, body)]
        head = render(f"{request.method} {target} HTTP/1.1", headers)
        response = await self._exchange(up, request, head, body, entry, idle)
        return await self._relay(up, request, response, mask, entry, idle)

    def _where(self, request: Request) -> tuple[Origin, str]:
        target, hosts = request.target, values(request.headers, "host")
        if self._fixed is not None:
            if not target.startswith("/") and not (target == "*" and request.method == "OPTIONS"):
                raise Refused("inside a tunnel a request's target begins with `/`")
            with contextlib.suppress(BadHost):
                host, port = split_authority(hosts[0]) if hosts else ("", None)
                if host == self._fixed.host and (port or 443) == self._fixed.port:
                    return self._fixed, target
            raise Refused(f"the request's Host is not {self._fixed.authority}, which the tunnel was opened to")
        scheme, mark, rest = target.partition("://")
        if not mark:
            raise Refused(
                "this is a proxy: the request must name its whole URL",
                hint="Only addresses outside can be reached here, through the proxy variables.",
            )
        if scheme.lower() != "http":
            raise Refused(f"{scheme[:10]}:// is not let out this way", hint="Use CONNECT for https.")
        end = min((at for at in (rest.find(c) for c in "/?#") if at >= 0), default=len(rest))
        place, path = rest[:end], rest[end:]
        if "#" in path:
            raise Refused("a request's target has no fragment")
        try:
            host, port = split_authority(place)
        except BadHost as exc:
            raise Refused(str(exc)) from None
        return Origin(False, host, port or 80), path if path.startswith("/") else "/" + path

    async def _exchange(
        self, up: _Upstream, request: Request, head: bytes, body: bytes | None, entry: Entry, idle: Idle
    ) -> Response:
        reused = up.stream is not None
        has_body = body is not None or request.length not in (None, 0)
        for attempt in (0, 1):
            stream, reader = await self._connected(up)
            try:
                self._sent(entry, len(head))
                await stream.send(head)
                idle.tick()
                return await self._answer(stream, reader, request, body, entry, idle, has_body)
            except (OSError, ssl.SSLError, EOFError) as exc:
                self._drop(up)
                # A kept connection that the server closed meanwhile: nobody saw the request.
                if (
                    reused
                    and attempt == 0
                    and not has_body
                    and not (isinstance(exc, EOFError) and exc.args[0:1] != (b"",))
                ):
                    continue
                raise Unreachable(f"{up.origin.host} closed the connection without an answer") from None
            except BadHead as exc:
                self._drop(up)
                raise Unreachable(f"{up.origin.host}: {exc}") from None
        raise Unreachable(f"{up.origin.host} closed the connection without an answer")

    async def _answer(
        self,
        stream: Stream,
        reader: Reader,
        request: Request,
        body: bytes | None,
        entry: Entry,
        idle: Idle,
        has_body: bool,
    ) -> Response:
        if not has_body:
            return await self._response(reader, request, entry, idle)
        pump = asyncio.create_task(self._pump(stream, request, body, entry, idle))
        reading = asyncio.create_task(self._response(reader, request, entry, idle))
        try:
            await asyncio.wait({pump, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                # The server may have stopped reading because it has answered; every other failure is ours to tell.
                with contextlib.suppress(OSError, ssl.SSLError):
                    await pump
            response = await reading
            if not pump.done():
                # It answers before it has read all: its answer counts, neither connection can be used again.
                request.keep_alive = response.keep_alive = False
            elif pump.exception() is not None:
                request.keep_alive = response.keep_alive = False
            return response
        finally:
            pump.cancel()
            reading.cancel()
            await asyncio.wait({pump, reading})

    async def _pump(self, stream: Stream, request: Request, body: bytes | None, entry: Entry, idle: Idle) -> None:
        if body is not None:
            self._sent(entry, len(body))
            await stream.send(body)
            return
        await self._continue(request)
        chunked = request.length == "chunked"
        try:
            async for piece in pieces(self._client, request.length, strict=True):
                self._sent(entry, len(piece))
                await stream.send(chunk(piece) if chunked else piece)
                idle.tick()
        except BadHead as exc:
            raise Refused(str(exc)) from None
        except EOFError:
            raise Cut("the client ended in the middle of its request") from None
        if chunked:
            await stream.send(LAST_CHUNK)

    async def _continue(self, request: Request) -> None:
        if request.expects_continue:
            await self._out.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _response(self, reader: Reader, request: Request, entry: Entry, idle: Idle) -> Response:
        while True:
            try:
                head = await reader.until(b"\r\n\r\n", self._run.limits.head_bytes)
            except TooLong:
                raise BadHead("the answer's head is too long") from None
            idle.tick()
            self._received(entry, len(head))
            response = parse_response(head, request.method)
            if response.status == 101:
                raise BadHead("the server changed to another protocol, unasked")
            if response.status >= 200:
                return response

    async def _relay(
        self, up: _Upstream, request: Request, response: Response, mask: Mask | None, entry: Entry, idle: Idle
    ) -> bool:
        entry.status = response.status
        reader = up.reader
        assert reader is not None
        body, length = pieces(reader, response.length, strict=False), response.length
        headers = response.headers
        if mask is not None:
            coding = ",".join(values(headers, "content-encoding")).strip().lower()
            if length is not None and coding not in ("", "identity"):
                if coding not in ("gzip", "x-gzip"):
                    self._drop(up)
                    raise Unreachable(f"{up.origin.host} answered in a coding ({coding[:20]}) that was not asked for")
                body, length = _unzipped(body), "chunked"
                headers = without(headers, "content-encoding")
            headers = [(name, mask.text(value)) for name, value in headers]
            response.phrase = mask.text(response.phrase)
        keep_alive = request.keep_alive
        framing: list[Header] = []
        if length is None and response.declared is not None:
            framing = [("Content-Length", str(response.declared))]
        elif isinstance(length, int):
            framing = [("Content-Length", str(length))]
        chunked = length in ("chunked", "until_close") and request.version == 1
        if chunked:
            framing = [("Transfer-Encoding", "chunked")]
        elif length in ("chunked", "until_close"):
            keep_alive = False
        framing.append(("Connection", "keep-alive" if keep_alive else "close"))
        await self._out.send(render(f"HTTP/1.1 {response.status} {response.phrase}", headers + framing))
        try:
            async for piece in body:
                self._received(entry, len(piece))
                data = mask.feed(piece) if mask is not None else piece
                if data:
                    await self._out.send(chunk(data) if chunked else data)
                idle.tick()
            rest = (mask.rest() if mask is not None else b"") if length is not None else b""
            if rest:
                await self._out.send(chunk(rest) if chunked else rest)
            if chunked:
                await self._out.send(LAST_CHUNK)
        except Refused as refused:
            self._run.log.close(entry, "denied", refused.reason)
            raise Cut(refused.reason) from None
        except (BadHead, EOFError, zlib.error):
            raise Cut("the answer ended before its end") from None
        if not response.keep_alive:
            self._drop(up)
        return keep_alive

    async def _connected(self, up: _Upstream) -> tuple[Stream, Reader]:
        if up.stream is None or up.reader is None:
            limits, host = self._run.limits, up.origin.host
            up.sock = SocketStream(await connect(host, up.addresses, up.origin.port, limits))
            stream: Stream = up.sock
            if up.origin.secure:
                tls = TlsStream(up.sock, await self._run.context(), server_hostname=host)
                try:
                    async with asyncio.timeout(limits.tls_s):
                        await tls.handshake()
                except (OSError, EOFError, TimeoutError) as exc:
                    self._drop(up)
                    raise _tls_failure(host, exc) from None
                stream = tls
            up.stream, up.reader = stream, Reader(stream)
        return up.stream, up.reader

    def _drop(self, up: _Upstream) -> None:
        if up.sock is not None:
            up.sock.sock.close()
        up.sock = up.stream = up.reader = None

    def _sent(self, entry: Entry, count: int) -> None:
        entry.bytes_up += count
        self._run.budget.sent(count)

    def _received(self, entry: Entry, count: int) -> None:
        entry.bytes_down += count
        self._run.budget.received(count)


def _framing(request: Request, body: bytes | None) -> list[Header]:
    if body is not None:
        return [("Content-Length", str(len(body)))]
    if request.length == "chunked":
        return [("Transfer-Encoding", "chunked")]
    return [] if request.length is None else [("Content-Length", str(request.length))]


def _tls_failure(host: str, exc: BaseException) -> Unreachable:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Unreachable(f"the certificate of {host} is not good ({exc.verify_message})")
    return Unreachable(f"{host} did not agree on TLS", status=504 if isinstance(exc, TimeoutError) else 502)


async def _unzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(31)
    async for piece in body:
        data = piece
        while data:
            yield inflate.decompress(data, 1 << 20)
            data = inflate.unconsumed_tail
    if not inflate.eof:
        raise EOFError
