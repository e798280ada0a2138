"""What one run may use of the network, and counting it."""

from __future__ import annotations

from dataclasses import dataclass

from interactd.sandbox.egress.refusal import Refused


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Sizes are bytes, durations seconds; all for one proxy, that is one started sandbox."""

    connections: int = 64
    """Accepted sockets at once; more wait unaccepted in the kernel's queue."""
    requests: int = 20_000
    bytes_up: int = 1_000_000_000
    bytes_down: int = 8_000_000_000
    head_bytes: int = 64 * 1024
    head_s: float = 10
    idle_s: float = 120
    """Without a byte in either direction."""
    keep_alive_s: float = 30
    resolve_s: float = 5
    connect_s: float = 10
    tls_s: float = 10
    substitute_bytes: int = 1024 * 1024
    """The largest body in which a placeholder is looked for, where a credential may stand in bodies."""


class Budget:
    """What is left of a run's requests and bytes. Spent in the middle of a transfer, the transfer is cut."""

    def __init__(self, limits: EgressLimits) -> None:
        self._limits = limits
        self.requests = 0
        self.up = 0
        self.down = 0

    def request(self) -> None:
        """Count a request.

        Raises:
            Refused: it is one too many.
        """
        self.requests += 1
        if self.requests > self._limits.requests:
            raise Refused(f"this run has made its {self._limits.requests} requests", hint="Work with what you have.")
        if self.up >= self._limits.bytes_up or self.down >= self._limits.bytes_down:
            self._spent()

    def sent(self, count: int) -> None:
        """Count bytes on their way out. Raises: Refused."""
        self.up += count
        if self.up > self._limits.bytes_up:
            self._spent()

    def received(self, count: int) -> None:
        """Count bytes on their way in. Raises: Refused."""
        self.down += count
        if self.down > self._limits.bytes_down:
            self._spent()

    def _spent(self) -> None:
        raise Refused(
            f"this run's network budget is spent ({self.up} bytes up of {self._limits.bytes_up}, "
            f"{self.down} down of {self._limits.bytes_down})",
            hint="Work with what you have.",
        )
