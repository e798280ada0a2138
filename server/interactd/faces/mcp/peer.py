"""Who is at the other end of a connection: what its calls are made for."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from mcp_types import InitializeRequestParams

from interactd.ids import new_ulid
from interactd.nouns import Json

Transport = Literal["stdio", "sse", "http"]
MAX_CALLS = 256
"""Tool calls of one connection that run at once, unless the configuration says otherwise (`limits.calls`)."""
QUEUE_S = 5.0
"""How long a call beyond them waits for its turn before it is refused: a burst of quick calls is served whole."""
MAX_QUEUED = 20_000
_REMEMBERED = 2_000
_CHOICES = 64
_LONGEST = 100


@dataclass(slots=True)
class Peer:
    """One connection.

    `connection` is the id under which its environment's keys are kept and its idempotency keys are made; `None`
    where request ids say nothing (one HTTP request of the 2026 era).
    """

    transport: Transport
    connection: str | None = None
    cwd: str | None = None
    toolsets: tuple[str, ...] = ()
    max_calls: int = MAX_CALLS
    hello: Json = field(default_factory=dict[str, Any])
    """The connection's first line; `client` in it is what the daemon's status shows."""
    left: bool = False
    """Set when the peer is gone: a call that ends then was not given up for being slow."""
    declined: dict[str, None] = field(default_factory=dict[str, None])
    """Questions that were put to this client's user, and got no answer."""
    _running: int = 0
    _queue: deque[asyncio.Future[None]] = field(default_factory=deque[asyncio.Future[None]])
    _uses: dict[str, int] = field(default_factory=dict[str, int])

    def introduce(self, client: InitializeRequestParams | None) -> None:
        """Note who the client says it is, as soon as it says so."""
        label = client_label(client)
        if label is not None:
            self.hello["client"] = label

    async def admit(self) -> bool:
        """Wait for a place among the calls that run; False when there was none in time. Pair True with `leave`."""
        if self._running < self.max_calls:
            self._running += 1
            return True
        while self._queue and self._queue[0].done():
            self._queue.popleft()
        if len(self._queue) >= MAX_QUEUED:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(QUEUE_S):
                await turn
        except TimeoutError:
            # The place may have come in the very moment the waiting ended. One that did not is cancelled, and skipped.
            return not turn.cancelled()
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise
        return True

    def leave(self) -> None:
        """Give the place up, to the one that has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1

    def distinct(self, request_id: str | int | None) -> str | None:
        """Return a name for this request that no other request of the connection has.

        Idempotency keys are made of it. The protocol forbids a client to use an id twice, but simple ones send
        `1` every time, and their second turn must not pass for a repetition of the first. A repetition that the
        shim makes after a crash comes over a new connection, where it is the first of its id again.
        """
        if request_id is None or self.connection is None:
            return None
        name = f'"{request_id}"' if isinstance(request_id, str) else str(request_id)
        if len(name) > _LONGEST:
            name = hashlib.sha256(name.encode()).hexdigest()
        uses = self._uses.pop(name, 0) + 1
        if len(self._uses) >= _REMEMBERED:
            self._uses.pop(next(iter(self._uses)))
        self._uses[name] = uses
        return name if uses == 1 else f"{name}#{uses}"


class HttpPeers:
    """The peers of one Streamable HTTP face.

    Requests of the 2026 era stand alone, so they share one peer for each choice of tool sets: without a connection id,
    but with the common bound on calls.
    """

    def __init__(self, toolsets: tuple[str, ...] = (), max_calls: int = MAX_CALLS) -> None:
        self._toolsets = toolsets
        self._max_calls = max_calls
        self._alone: dict[tuple[str, ...], Peer] = {}

    def session(self, number: str, toolsets: tuple[str, ...]) -> Peer:
        """Make the peer of a handshake-era session; `toolsets` are those of its URL."""
        return Peer("http", f"con_http_{number}", toolsets=toolsets or self._toolsets, max_calls=self._max_calls)

    def alone(self, toolsets: tuple[str, ...]) -> Peer:
        """Return the peer of requests that stand alone."""
        chosen = toolsets or self._toolsets
        if chosen not in self._alone:
            if len(self._alone) >= _CHOICES:
                # Any text can stand in a URL; nonsense must not gather here.
                self._alone.clear()
            self._alone[chosen] = Peer("http", toolsets=chosen, max_calls=self._max_calls)
        return self._alone[chosen]


def client_label(client: InitializeRequestParams | None) -> str | None:
    """Return `name/version` of a client, as sessions note it."""
    return f"{client.client_info.name}/{client.client_info.version}"[:200] if client else None


def new_connection(kind: Transport) -> str:
    """Return a fresh connection id for a transport that has none of its own."""
    return f"con_{kind}_{new_ulid()}"
