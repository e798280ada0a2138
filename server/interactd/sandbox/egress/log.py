"""What a run asked of the network: one entry a request, bounded, without paths, headers or bodies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from interactd.nouns import Json
from interactd.sandbox.egress.policy.hosts import printable

Verdict = Literal["allowed", "denied", "failed"]
MAX_ENTRIES = 5000


@dataclass(slots=True)
class Entry:
    """One request. `bytes_up` and `bytes_down` count what passed; a tunnel's entry grows until it is closed."""

    method: str
    host: str
    port: int
    at: float = field(default_factory=time.time)
    verdict: Verdict = "allowed"
    reason: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    ms: float | None = None
    """None while the request is open."""
    status: int | None = None
    started: float = field(default_factory=time.monotonic, repr=False)

    def as_dict(self) -> Json:
        """Return it as plain JSON; `bytes` is both directions."""
        return {
            "at": self.at,
            "method": printable(self.method, 20),
            "host": printable(self.host, 253),
            "port": self.port,
            "verdict": self.verdict,
            "reason": printable(self.reason, 300),
            "bytes": self.bytes_up + self.bytes_down,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "ms": None if self.ms is None else round(self.ms, 1),
            **({} if self.status is None else {"status": self.status}),
        }


class RequestLog:
    """The entries of one run, oldest first. Beyond the cap requests are still judged, and only counted here."""

    def __init__(self, on_request: Callable[[Json], None] | None = None, *, cap: int = MAX_ENTRIES) -> None:
        self._entries: list[Entry] = []
        self._on_request = on_request
        self._cap = cap
        self.left_out = 0

    def open(self, method: str, host: str, port: int) -> Entry:
        """Begin an entry; it is in the log from now on."""
        entry = Entry(method, host, port)
        if len(self._entries) < self._cap:
            self._entries.append(entry)
        else:
            self.left_out += 1
        return entry

    def close(self, entry: Entry, verdict: Verdict | None = None, reason: str = "") -> None:
        """End an entry, once; the callback gets it now."""
        if entry.ms is not None:
            return
        if verdict is not None:
            entry.verdict, entry.reason = verdict, reason
        entry.ms = (time.monotonic() - entry.started) * 1000
        if self._on_request is not None:
            self._on_request(entry.as_dict())

    def as_list(self) -> list[Json]:
        """Return all entries; a last one of method `-` counts those left out."""
        out = [entry.as_dict() for entry in self._entries]
        if self.left_out:
            more = Entry("-", "", 0, verdict="denied", reason=f"{self.left_out} more requests are not listed")
            out.append(more.as_dict())
        return out
