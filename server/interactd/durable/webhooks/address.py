"""Where a webhook may go: https to the public internet, and what the user listed or named as this machine.

A name is resolved once for each attempt, every address it has must be allowed, and only those are dialled: a name that
points elsewhere at the second look (rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from interactd.errors import InvalidArgument, NetworkRefused
from interactd.sandbox.egress.dial import Resolver
from interactd.sandbox.egress.forward import Origin
from interactd.sandbox.egress.policy.addresses import is_own, not_public
from interactd.sandbox.egress.policy.hosts import Address, BadHost, as_address, printable, split_authority
from interactd.sandbox.egress.refusal import Unreachable

MAX_URI = 2048
_EXAMPLE = "Give a whole address such as https://example.org/hooks/interactd."
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Place:
    """A checked URL: whom to connect to and what to ask for."""

    origin: Origin
    target: str


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read the configuration's list of addresses and networks. Raises: ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def place_of(uri: Any, *, allow_local: bool, allowed: Sequence[Network], field: str = "uri") -> Place:
    """Check a URL as far as that goes without asking a name server.

    Raises:
        InvalidArgument: it is none, or plain http to somewhere else than this machine or a listed network.
        NetworkRefused: it is an address that is not allowed.
    """
    if not isinstance(uri, str) or not uri.strip():
        raise InvalidArgument(f"{field}: expected a URL", repair=_EXAMPLE, field=field)
    text = uri.strip()
    if len(text) > MAX_URI or any(c <= " " or c == "\x7f" for c in text):
        raise InvalidArgument(
            f"{field}: expected a URL of at most {MAX_URI:,} characters without blanks, got"
            f" {printable(text)!r:.60} ({len(text):,} characters)",
            repair=_EXAMPLE,
            field=field,
        )
    try:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https"):
            raise InvalidArgument(
                f"{field}: only https:// and http:// can be posted to, got {printable(text)!r:.60}",
                repair=_EXAMPLE,
                field=field,
            )
        host, port = split_authority(parts.netloc)
    except (ValueError, BadHost) as error:
        why = str(error) if isinstance(error, BadHost) else "it is not a URL"
        # What stands before an @ may be a password: it is not said again.
        shown = "" if "@" in text else f": {printable(text)!r:.120}"
        raise InvalidArgument(f"{field}: {why}{shown}", repair=_EXAMPLE, field=field) from None
    secure = parts.scheme == "https"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~-._")
    origin = Origin(secure, host, port or (443 if secure else 80))
    if names_this_machine(host) and not allow_local:
        raise _local(host)
    literal = as_address(host)
    if literal is not None:
        check(host, [literal], allow_local=allow_local, allowed=allowed)
    # Whether a name is in a listed network is only known once it is resolved.
    near = names_this_machine(host) or (_listed(literal, allowed) if literal is not None else bool(allowed))
    if not secure and not near:
        raise InvalidArgument(
            f"{field}: http:// is for this machine and for listed networks; {host} needs https://",
            repair=f"Use https://{printable(host)}/... instead.",
            field=field,
        )
    return Place(origin, path + (f"?{query}" if query else ""))


def names_this_machine(host: str) -> bool:
    """Whether a host means this machine by its very name, and not because some name server says so."""
    literal = as_address(host)
    return literal.is_loopback if literal is not None else host == "localhost" or host.endswith(".localhost")


async def resolved(place: Place, resolver: Resolver, *, allow_local: bool, allowed: Sequence[Network]) -> list[Address]:
    """Return the addresses to dial, all of them allowed.

    Raises:
        NetworkRefused: one is not, or plain http would leave this machine and the listed networks.
        Unreachable: there is no such name.
    """
    host = place.origin.host
    literal = as_address(host)
    if literal is not None:
        found = [literal]
    else:
        try:
            found = [ipaddress.ip_address(text) for text in list(await resolver(host))[:64]]
        except (OSError, ValueError):
            found = []
        if not found:
            raise Unreachable(f"{host} does not resolve to an address")
    await asyncio.to_thread(check, host, found, allow_local=allow_local, allowed=allowed)
    if not place.origin.secure and not all(_listed(one, allowed) or one.is_loopback for one in found):
        raise NetworkRefused(f"{host} is reached over http://, which is for this machine and listed networks only")
    return found


def check(host: str, addresses: Sequence[Address], *, allow_local: bool, allowed: Sequence[Network]) -> None:
    """Raises: NetworkRefused: one of the addresses is not to be reached."""
    for address in addresses:
        kind = not_public(address) or ("this machine's own" if is_own(address) else None)
        if kind is None or _listed(address, allowed):
            continue
        if allow_local and address.is_loopback and names_this_machine(host):
            continue
        if address.is_loopback and names_this_machine(host):
            raise _local(host)
        raise NetworkRefused(
            f"{host} is at an address that is {kind}; webhooks go to public addresses only",
            repair="The user can allow it: webhooks.allow in config.toml takes addresses and networks.",
            host=host,
            field="uri",
        )


def _listed(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address in network for network in allowed if network.version == address.version)


def _local(host: str) -> NetworkRefused:
    return NetworkRefused(
        f"{host} is this machine, which webhooks do not reach unless they are told to",
        repair="Give allow_local as well, if that is meant.",
        host=host,
        field="uri",
    )
