"""One line of an allow-list: `example.org`, `*.example.org`, `*`, `example.org:8443`, `127.0.0.1:8000`."""

from __future__ import annotations

from dataclasses import dataclass

from interactd.sandbox.egress.policy.addresses import can_be_listed
from interactd.sandbox.egress.policy.hosts import Address, BadHost, as_address, split_authority

DEFAULT_PORTS = (80, 443)
_LOOPBACK_NAMES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Pattern:
    """`name` is canonical; empty for `*`. Without a port it stands for 80 and 443."""

    name: str
    wildcard: bool
    port: int | None
    address: Address | None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            BadHost: the message says what is wrong with it.
        """
        given = text.strip()
        if "://" in given:
            raise BadHost(f"{given!r} is a URL; give the host alone, e.g. {given.split('://', 1)[1].split('/')[0]!r}")
        if given == "*" or given.startswith("*:"):
            name, port = _split_port(given)
            return cls("", True, port, None)
        wildcard = given.startswith("*.")
        rest = given[2:] if wildcard else given
        if "*" in rest:
            raise BadHost("a `*` may only stand alone or as the first label, as in `*.example.org`")
        name, port = split_authority(rest)
        address = as_address(name)
        if wildcard and address is not None:
            raise BadHost("an address has no subdomains")
        if address is not None and not can_be_listed(address):
            raise BadHost(f"{name} is not an address of one host")
        return cls(name, wildcard, port, address)

    def __str__(self) -> str:
        shown = "*" if self.everything else ("*." if self.wildcard else "") + self._name
        return shown if self.port is None else f"{shown}:{self.port}"

    @property
    def _name(self) -> str:
        return f"[{self.name}]" if ":" in self.name else self.name

    @property
    def everything(self) -> bool:
        return self.wildcard and not self.name

    @property
    def rank(self) -> tuple[int, int, int]:
        """The larger, the more exactly it names a host."""
        return (0 if self.wildcard else 1, len(self.name), 0 if self.port is None else 1)

    def covers(self, host: str, port: int) -> bool:
        """Tell whether a canonical host and port are meant. `*` means names only, never an address."""
        if port != self.port if self.port is not None else port not in DEFAULT_PORTS:
            return False
        return self.covers_host(host)

    def covers_host(self, host: str) -> bool:
        """As `covers`, for any port."""
        if not self.wildcard:
            return host == self.name
        if as_address(host) is not None:
            return False
        return self.everything or host.endswith("." + self.name)

    def trusts(self, host: str, port: int) -> bool:
        """As `covers`, but without a port of its own it means every port: who is trusted is a host."""
        return self.port in (None, port) and self.covers_host(host)

    def covers_pattern(self, other: Pattern) -> bool:
        """Tell whether all that the other pattern names, this one names too."""
        if self.port is not None and self.port != other.port:
            return False
        if not other.wildcard:
            return self.covers_host(other.name)
        return self.wildcard and (self.everything or other.name == self.name or other.name.endswith("." + self.name))

    def lists_address(self, address: Address, port: int) -> bool:
        """Tell whether this names that very address: then it may be dialled although it is not public."""
        if port != self.port if self.port is not None else port not in DEFAULT_PORTS:
            return False
        if self.address is not None:
            return self.address == address
        # `localhost` cannot be pointed elsewhere by anybody's name server, so that naming it names the address.
        return not self.wildcard and self.name == "localhost" and str(address) in _LOOPBACK_NAMES


def _split_port(text: str) -> tuple[str, int | None]:
    name, colon, port = text.partition(":")
    if not colon:
        return name, None
    _, number = split_authority(f"x:{port}")
    return name, number
