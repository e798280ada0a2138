"""Fetch one URL under an environment's policy: every hop is checked as the proxy would check it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from interactd.errors import InvalidArgument, NetworkRefused, ProviderTimeout, ProviderUnavailable
from interactd.sandbox.egress.dial import Resolver, connect, resolve, system_resolver
from interactd.sandbox.egress.forward import Origin
from interactd.sandbox.egress.injection import Injection, Mask
from interactd.sandbox.egress.limits import EgressLimits
from interactd.sandbox.egress.log import Entry, RequestLog
from interactd.sandbox.egress.pages.text import html_to_text
from interactd.sandbox.egress.policy.addresses import not_public
from interactd.sandbox.egress.policy.hosts import BadHost, printable, split_authority
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.refusal import Refused, Unreachable
from interactd.sandbox.egress.run import upstream_context
from interactd.sandbox.egress.wire.body import pieces
from interactd.sandbox.egress.wire.head import BadHead, Response, parse_response, render, values
from interactd.sandbox.egress.wire.stream import Reader, SocketStream, Stream, TooLong
from interactd.sandbox.egress.wire.tls import TlsStream

MAX_BYTES = 10_000_000
MAX_HOPS = 10
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_TEXT = re.compile(r"text/|application/(json|xml|javascript|yaml|x-yaml|toml|.+\+(json|xml))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came. `url` is where it came from, after redirects; `body` what was sent, decompressed."""

    status: int
    url: str
    content_type: str
    body: bytes = field(repr=False)
    truncated: bool = False

    @property
    def is_text(self) -> bool:
        return bool(_TEXT.match(self.content_type)) or (not self.content_type and b"\0" not in self.body[:1024])

    @property
    def text(self) -> str | None:
        """The body for a reader: HTML as plain text with its links, other text as it is; None for the rest."""
        if not self.is_text:
            return None
        decoded = self.body.decode(_charset(self.content_type, self.body), "replace")
        kind = self.content_type.partition(";")[0].strip().lower()
        return html_to_text(decoded, self.url) if kind in ("text/html", "application/xhtml+xml") else decoded


async def fetch(
    url: str,
    policy: Policy,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = 20,
    *,
    resolver: Resolver = system_resolver,
    upstream: ssl.SSLContext | None = None,
    log: RequestLog | None = None,
) -> Fetched:
    """GET a URL, following redirects.

    Args:
        url: http or https; a fragment is ignored.
        max_bytes: of the body, decompressed; what is more is left unread and `truncated` says so.
        timeout_s: for everything together.
        upstream: how servers are verified; None is by this machine's roots.
        log: where each hop is written.

    Raises:
        InvalidArgument: not a URL that can be fetched.
        NetworkRefused: the policy does not allow it, or a redirect leads out of it.
        ProviderUnavailable: no such name, no connection, a bad certificate, a broken answer.
        ProviderTimeout: it took too long.
        NotFound, StorageError: a credential of the policy cannot be read.
    """
    fetcher = _Fetcher(policy, max_bytes, resolver, upstream, log or RequestLog())
    try:
        async with asyncio.timeout(timeout_s):
            await policy.unlock()
            for _ in range(MAX_HOPS + 1):
                fetched, location = await fetcher.get(url)
                if location is None:
                    return fetched
                url = urljoin(url, location)
    except TimeoutError:
        raise ProviderTimeout(
            f"{printable(url)} did not answer within {timeout_s:g} s",
            repair="Try again later, or another page.",
            url=url,
        ) from None
    except Refused as refused:
        if isinstance(refused, Unreachable):
            raise ProviderUnavailable(refused.reason, repair=refused.hint or None, url=url) from None
        raise NetworkRefused(refused.reason, repair=refused.hint or None, url=url) from None
    raise ProviderUnavailable(
        f"more than {MAX_HOPS} redirects, the last one to {printable(url)}", repair="Use another address.", url=url
    )


@dataclass(slots=True)
class _Fetcher:
    policy: Policy
    max_bytes: int
    resolver: Resolver
    upstream: ssl.SSLContext | None
    log: RequestLog
    limits: EgressLimits = field(default_factory=EgressLimits)

    async def get(self, url: str) -> tuple[Fetched, str | None]:
        origin, target = _origin(url)
        entry = self.log.open("GET", origin.host, origin.port)
        sock: SocketStream | None = None
        try:
            rule = self.policy.check(origin.host, origin.port)
            addresses = await resolve(origin.host, origin.port, self.policy, self.resolver, self.limits)
            private = all(not_public(address) is not None for address in addresses)
            injection = Injection(self.policy, rule, origin.host, origin.port, origin.secure, private)
            target, headers = injection.apply(
                target,
                [
                    ("User-Agent", "interactd"),
                    ("Accept", "text/html, text/plain, application/json;q=0.9, */*;q=0.5"),
                    ("Accept-Encoding", "gzip"),
                ],
            )
            sock = SocketStream(await connect(origin.host, addresses, origin.port, self.limits))
            stream = await self._secured(sock, origin)
            headers = [("Host", origin.authority), *headers, ("Connection", "close")]
            head = render(f"GET {target} HTTP/1.1", headers)
            entry.bytes_up += len(head)
            await stream.send(head)
            return await self._answer(Reader(stream), url, entry, injection.mask())
        except Refused as refused:
            self.log.close(entry, "failed" if isinstance(refused, Unreachable) else "denied", refused.reason)
            raise
        except (OSError, EOFError, BadHead, TooLong, zlib.error) as exc:
            if isinstance(exc, TimeoutError):
                raise
            failed = Unreachable(f"{origin.host} did not give a whole answer")
            self.log.close(entry, "failed", failed.reason)
            raise failed from None
        finally:
            self.log.close(entry)
            if sock is not None:
                sock.sock.close()

    async def _secured(self, sock: SocketStream, origin: Origin) -> Stream:
        if not origin.secure:
            return sock
        context = self.upstream or await asyncio.to_thread(upstream_context)
        tls = TlsStream(sock, context, server_hostname=origin.host)
        try:
            await tls.handshake()
        except ssl.SSLCertVerificationError as exc:
            raise Unreachable(f"the certificate of {origin.host} is not good ({exc.verify_message})") from None
        return tls

    async def _answer(self, reader: Reader, url: str, entry: Entry, mask: Mask | None) -> tuple[Fetched, str | None]:
        while True:
            head = await reader.until(b"\r\n\r\n", self.limits.head_bytes)
            entry.bytes_down += len(head)
            response = parse_response(head, "GET")
            if response.status >= 200:
                break
        entry.status = response.status
        location = values(response.headers, "location")
        if response.status in (301, 302, 303, 307, 308) and location:
            return Fetched(response.status, url, "", b""), (mask.text(location[0]) if mask else location[0])
        body, truncated = await self._body(reader, response, entry)
        if mask is not None:
            body = mask.feed(body) + mask.rest()
        kind = (values(response.headers, "content-type") or [""])[0]
        return Fetched(response.status, url.partition("#")[0], kind, body, truncated), None

    async def _body(self, reader: Reader, response: Response, entry: Entry) -> tuple[bytes, bool]:
        coding = ",".join(values(response.headers, "content-encoding")).strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip"):
            raise Unreachable(f"the answer is in a coding ({printable(coding, 20)}) that was not asked for")
        inflate = zlib.decompressobj(31) if coding in ("gzip", "x-gzip") else None
        out = bytearray()
        raw: AsyncIterator[bytes] = pieces(reader, response.length, strict=False)
        async for piece in raw:
            entry.bytes_down += len(piece)
            # Never more than is wanted, however much a small answer claims to unpack to.
            room = self.max_bytes - len(out) + 1
            out += piece if inflate is None else inflate.decompress(piece, room)
            if len(out) > self.max_bytes:
                return bytes(out[: self.max_bytes]), True
        return bytes(out), False


def _origin(url: str) -> tuple[Origin, str]:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise _bad(url, "it is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise _bad(url, "only http:// and https:// can be fetched")
    try:
        host, port = split_authority(parts.netloc)
    except BadHost as exc:
        raise _bad(url, str(exc)) from None
    secure = parts.scheme == "https"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~-._")
    return Origin(secure, host, port or (443 if secure else 80)), path + (f"?{query}" if query else "")


def _bad(url: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"url: {why}: {printable(url)!r}", repair="Give a whole URL such as https://example.org/page.", field="url"
    )


def _charset(content_type: str, body: bytes) -> str:
    said = _CHARSET.search(content_type)
    meta = None if said else _META_CHARSET.search(body[:2048])
    name = said[1] if said else (meta[1].decode("ascii", "replace") if meta else "utf-8")
    with contextlib.suppress(LookupError):
        found = codecs.lookup(name)
        # Codecs that are not character sets (`zlib`, `hex`) are named by servers that mean harm.
        if getattr(found, "_is_text_encoding", True):
            return found.name
    return "utf-8"
