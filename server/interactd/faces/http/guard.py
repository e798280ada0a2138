"""Who may talk to the HTTP face: Host and Origin checks, cross-origin rules for allowed pages, and the bearer token.

A web page the user visits can make the browser send requests to this machine, and DNS rebinding makes it look as if
they went to the page's own site. Such requests carry a foreign Host or Origin, which is what is checked first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from interactd._version import __version__
from interactd.faces.http.answers import App, Message, Receive, Scope, Send, answer, drain, header, refuse

logger = logging.getLogger(__name__)

_DRAINED = 1024 * 1024
_DRAIN_S = 2.0
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_EXPOSED = b"mcp-session-id, www-authenticate"
_ALLOWED_METHODS = b"GET, POST, DELETE, OPTIONS"
_ALLOWED_HEADERS = (
    b"authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, mcp-method, mcp-name"
)


def is_loopback(host: str) -> bool:
    """Whether listening on `host` reaches no further than this machine."""
    bare = host.strip("[]")
    if bare in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Rules:
    """What is let in. `token=None` asks for none.

    Attributes:
        bound: the host that is listened on.
        token: the bearer token.
        hosts: further Host headers, with or without a port.
        origins: further Origin headers, each `scheme://host[:port]`.
    """

    bound: str
    token: str | None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def host_allowed(self, given: str | None) -> bool:
        """Whether a Host header may reach us."""
        if not given:
            return False
        name = _host_name(given)
        if name is None:
            return False
        if name in _LOOPBACK_NAMES or given.lower() in self.hosts or name in self.hosts:
            return True
        if is_loopback(self.bound):
            return False
        # Rebinding needs a name of the attacker's. An address, and this machine's own name, are not one.
        return name in {self.bound.lower(), socket.gethostname().lower()} or _is_address(name)

    def origin_allowed(self, given: str | None) -> bool:
        """Whether a page of this origin may talk to us; programs send none."""
        if given is None:
            return True
        if given.lower().rstrip("/") in self.origins:
            return True
        try:
            parts = urlsplit(given)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and _host_name(parts.netloc) in _LOOPBACK_NAMES

    def token_right(self, authorization: str | None) -> bool:
        """Whether the header carries the token; takes the same time for every wrong one."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        # Digests, because compare_digest tells lengths apart.
        right = hmac.compare_digest(_digest(given.strip()), _digest(self.token))
        return right and scheme.lower() == "bearer"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _host_name(given: str) -> str | None:
    """Return the name part of `name[:port]`, `[address]:port` or an address."""
    if given.startswith("["):
        name, bracket, rest = given[1:].partition("]")
        return name.lower() if bracket and (not rest or rest[1:].isdecimal()) else None
    name, _, port = given.partition(":")
    return name.lower() if name and (not port or port.isdecimal()) else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI layer in front of everything else."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = header(scope, b"origin")
        if not self._rules.host_allowed(header(scope, b"host")):
            await drain(scope, receive, _DRAINED, _DRAIN_S)
            await refuse(
                send,
                421,
                "host_refused",
                "the Host header is not one of this server's names",
                "Use 127.0.0.1 or localhost, or start it with --allow-host NAME (serve.allowed_hosts).",
            )
            return
        if not self._rules.origin_allowed(origin):
            await drain(scope, receive, _DRAINED, _DRAIN_S)
            await refuse(
                send,
                403,
                "origin_refused",
                "pages of this origin may not use this server",
                "If it is yours, start the server with --allow-origin ORIGIN (serve.allowed_origins).",
            )
            return
        if origin is not None:
            send = _with_cors(send, origin.encode("latin-1"))
        path = scope["path"]
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
            await answer(send, 204, None)
        elif path == "/health":
            await answer(send, 200, {"ok": True, "version": __version__})
        elif path.startswith("/.well-known/"):
            # Clients look here for OAuth after a 401; that there is none must not look like one more refusal.
            await refuse(send, 404, "not_found", "there is no OAuth here: the token is a fixed bearer token")
        elif self._rules.token_right(header(scope, b"authorization")):
            await self._app(scope, receive, send)
        else:
            await self._unauthorized(scope, receive, send)

    async def _unauthorized(self, scope: Scope, receive: Receive, send: Send) -> None:
        await drain(scope, receive, _DRAINED, _DRAIN_S)
        given = header(scope, b"authorization") is not None
        reason = b', error="invalid_token"' if given else b""
        await refuse(
            send,
            401,
            "unauthorized",
            "the bearer token is wrong" if given else "a bearer token is needed",
            "Send the header `Authorization: Bearer TOKEN`; on the server's machine `interactd token` prints it.",
            [(b"www-authenticate", b'Bearer realm="interactd"' + reason)],
        )


def _with_cors(send: Send, origin: bytes) -> Send:
    rules = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", _ALLOWED_METHODS),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *rules]}
        await send(message)

    return sending
