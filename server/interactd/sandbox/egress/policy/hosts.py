"""One spelling for every host, so that a rule and a request can be compared. Also what may be shown of one."""

from __future__ import annotations

import ipaddress
import re

import idna

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The last label decides: "1.2.3", "0x7f.1" and "2130706433" are addresses to a resolver, whatever they look like.
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")


class BadHost(ValueError):
    """Not a host that can be judged; the message says why."""


def canonical(text: str) -> str:
    """Return a host in its one spelling: lower case, no trailing dot, punycode, an IPv6 address without brackets.

    Args:
        text: a name, an IPv4 address in dotted form, or an IPv6 address with or without brackets.

    Raises:
        BadHost: it is empty, too long, has characters no host has, or is an address in another spelling.
    """
    if not text or len(text) > 1000:
        raise BadHost("the host is empty" if not text else "the host is too long")
    if text.startswith("[") or ":" in text:
        return str(_ipv6(text))
    if not text.isascii():
        text = _to_ascii(text)
    name = text.lower()
    if name.endswith("."):
        name = name[:-1]
    labels = name.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return str(_ipv4(name))
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadHost(f"{printable(text)!r} is not a host name")
    return name


def as_address(host: str) -> Address | None:
    """Return the address that a canonical host is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def split_authority(text: str) -> tuple[str, int | None]:
    """Split `host[:port]` and canonicalise the host; a bare IPv6 address needs its brackets when it has a port.

    Raises:
        BadHost: it is malformed, has userinfo, or the port is not one of 1 to 65535.
    """
    if "@" in text:
        raise BadHost("a user name before the host is not accepted")
    if any(c in text for c in "/?#\\%") or any(c <= " " or c == "\x7f" for c in text):
        raise BadHost(f"{printable(text)!r} is not a host and port")
    host, port = text, ""
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            raise BadHost(f"{printable(text)!r} has no closing bracket")
        host, rest = text[: end + 1], text[end + 1 :]
        if rest and not rest.startswith(":"):
            raise BadHost(f"{printable(text)!r} is not a host and port")
        port = rest[1:]
        if rest == ":":
            raise BadHost("the port is missing after the colon")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise BadHost("the port is missing after the colon")
    if not port:
        return canonical(host), None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise BadHost(f"{printable(port, 20)!r} is not a port")
    return canonical(host), int(port)


def authority(host: str, port: int, default: int | None = None) -> str:
    """Return `host:port` for a header or a message; the port is left out when it is the default one."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == default else f"{shown}:{port}"


def printable(text: str, limit: int = 120) -> str:
    """Return text that a hostile sandbox chose as one short printable ASCII line."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _ipv4(name: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(name)
    except ValueError:
        raise BadHost(f"{printable(name)!r} is an address in a spelling that is not accepted") from None


def _ipv6(text: str) -> ipaddress.IPv6Address:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if "%" in inner:
            raise ValueError
        return ipaddress.IPv6Address(inner)
    except ValueError:
        raise BadHost(f"{printable(text)!r} is not a host") from None


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, std3_rules=False, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise BadHost(f"{printable(text)!r} is not a host name") from None
