"""Which addresses belong to the public internet. Everything else is refused unless it is listed itself."""

from __future__ import annotations

import ipaddress
import socket

from interactd.sandbox.egress.policy.hosts import Address

# Written out rather than taken from `is_global`: that answer changed between Python versions.
_V4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's metadata service"),
    ("169.254.169.254/32", "a cloud's metadata service"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)
_V6: tuple[tuple[str, str], ...] = (
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("::ffff:0:0/96", "an IPv4 address in IPv6 form"),
    ("::/96", "an IPv4 address in IPv6 form"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("2001::/23", "reserved (Teredo and others)"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "an IPv4 address in 6to4 form"),
    ("3fff::/20", "for documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
)
_V4_NETWORKS = [(ipaddress.IPv4Network(text), kind) for text, kind in _V4]
_V6_NETWORKS = [(ipaddress.IPv6Network(text), kind) for text, kind in _V6]
_V6_PUBLIC = ipaddress.IPv6Network("2000::/3")


def not_public(address: Address) -> str | None:
    """Return why an address is not of the public internet (`private`, `loopback` ...), None if it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _V4_NETWORKS if address in network), None)
    if address.scope_id is not None:
        return "link-local"
    found = next((kind for network, kind in _V6_NETWORKS if address in network), None)
    return found or (None if address in _V6_PUBLIC else "reserved")


def can_be_listed(address: Address) -> bool:
    """Tell whether listing this address makes sense: one host that can be connected to, in its plain form."""
    return not (address.is_multicast or address.is_unspecified) and not_public(address) not in (
        "reserved",
        "this host",
        "an IPv4 address in IPv6 form",
    )


def is_own(address: Address) -> bool:
    """Tell whether this machine has the address on an interface: services that only a firewall hides answer there."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            # Connecting a datagram socket sends nothing; the kernel picks the source, which is the target when local.
            probe.connect((str(address), 9))
            return probe.getsockname()[0] == str(address)
    except OSError:
        return False
