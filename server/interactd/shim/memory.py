"""What the shim must be able to say again when the daemon behind it is another one."""

from __future__ import annotations

import json
import sys
import threading

from interactd.shim import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PRIVATE = "interactd/"
_AGAIN = PRIVATE + "again/"
_FROM = PRIVATE + "from/"
BODIES_MAX = 32 * 1024 * 1024
UNANSWERED_MAX = 100_000
SUBSCRIPTIONS_MAX = 1000
SEEN_MAX = 1000
SEEN = PRIVATE + "seen"
ATTEMPTS = 3

_ANSWERS = ("result", "error")
_STATEFUL = frozenset({"initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


class Request:
    """A request of the host without an answer. `line` is None when it was too large to keep."""

    __slots__ = ("attempts", "generation", "id", "line", "method", "size")

    def __init__(self, id_: int | str, method: str, line: bytes | None) -> None:
        self.id = id_
        self.method = method
        self.line = line
        self.size = len(line) if line else 0
        self.attempts = 0
        self.generation = 0


class Memory:
    """The state of one MCP connection, as far as it must outlive a daemon. Used by both directions at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int | str, Request] = {}
        self._bodies = 0
        self._initialize: dict[str, Any] | None = None
        self._initialize_answered = False
        self._initialized: bytes | None = None
        self._level: dict[str, Any] | None = None
        self._subscriptions: dict[str, dict[str, Any]] = {}
        self._again: dict[str, str] = {}
        self._seen: dict[int | str, Any] = {}
        self.generation = 0
        """Counts the daemons this connection has had; 1 is the first."""

    def __len__(self) -> int:
        return len(self._open)

    def unanswered(self) -> list[Request]:
        """Return the requests that have no answer, oldest first."""
        with self._lock:
            return list(self._open.values())

    def due(self) -> bool:
        """True when an answer is still to come that a host waits for (a subscription's never comes)."""
        with self._lock:
            return any(request.method != "subscriptions/listen" for request in self._open.values())

    def holds(self, request: Request) -> bool:
        """True while the request has neither been answered nor cancelled."""
        return self._open.get(request.id) is request

    def forget(self, request: Request) -> bool:
        """Drop a request; False when it was answered meanwhile."""
        with self._lock:
            return self._drop(request.id) is not None if self._open.get(request.id) is request else False

    def from_host(self, line: bytes) -> tuple[bytes | None, list[Request]]:
        """Note a line of the host. Returns what to send (None: nothing) and the requests in it."""
        kind, key, method = lines.peek(line)
        if kind == "request" and key is not None and method not in _STATEFUL:
            return line, [self._note(Request(key, method, line))]
        if kind in _ANSWERS and self.generation <= 1:
            return line, []
        messages = lines.parse(line)
        if len(messages) == 1:
            return self._one_from_host(line, messages[0])
        requests: list[Request] = []
        for message in messages:
            _, found = self._one_from_host(lines.dump(message), message)
            requests += found
        return line, requests

    def from_daemon(self, line: bytes) -> bytes | None:
        """Note a line of the daemon. Returns what to pass on to the host, None for the answers to our own."""
        kind, key, _ = lines.peek(line)
        if kind in _ANSWERS and key is not None:
            if isinstance(key, str) and key.startswith(_AGAIN):
                return self._own_answer(key, line, kind == "error")
            self._answered(key, kind == "error")
            return line
        messages = lines.parse(line)
        if len(messages) != 1:
            for message in messages:
                self._answer_in(message)
            return line
        message = messages[0]
        own = message.get("id")
        if isinstance(own, str) and own.startswith(_AGAIN):
            return self._own_answer(own, line, "error" in message)
        if "method" in message and own is not None and self.generation > 1:
            # A later daemon counts its own requests from 0 again; the host may still be busy with an earlier 0.
            return lines.dump({**message, "id": f"{_FROM}{self.generation}/{json.dumps(own)}"})
        if message.get("method") == "notifications/progress":
            self._progressed(message)
        self._answer_in(message)
        return line

    def again(self, request: Request) -> bytes | None:
        """Return the request's line for the next daemon: with how far its progress came, so that nothing of it is
        told twice."""
        if request.line is None or not self._seen:
            return request.line
        messages = lines.parse(request.line)
        params: Any = messages[0].get("params") if len(messages) == 1 else None
        meta: Any = params.get("_meta") if isinstance(params, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        token = _key(meta.get("progressToken")) if isinstance(meta, dict) else None  # pyright: ignore[reportUnknownMemberType]
        if token not in self._seen:
            return request.line
        meta[SEEN] = self._seen[token]
        return lines.dump(messages[0])

    def handshake(self) -> tuple[bytes | None, str]:
        """Return the `initialize` to say to the next daemon under a private id, and that id; None when there is
        none to repeat."""
        with self._lock:
            if self._initialize is None or not self._initialize_answered:
                return None, ""
            key = self._private("initialize")
            return lines.dump({**self._initialize, "id": key}), key

    def setup(self) -> list[bytes]:
        """Return what follows the handshake: `initialized`, the log level and the subscriptions."""
        with self._lock:
            if self._initialize is None or not self._initialize_answered:
                return []
            out = [self._initialized] if self._initialized else []
            for message in [self._level] if self._level else []:
                out.append(lines.dump({**message, "id": self._private("logging/setLevel")}))
            for message in self._subscriptions.values():
                out.append(lines.dump({**message, "id": self._private("resources/subscribe")}))
            return out

    def settled(self, key: str) -> bool:
        """True when the private request `key` has been answered."""
        return key not in self._again

    def next_generation(self) -> None:
        """A new daemon is about to be spoken to: what was asked of the last one on our own account is void."""
        with self._lock:
            self.generation += 1
            self._again.clear()

    def _one_from_host(self, line: bytes, message: dict[str, Any]) -> tuple[bytes | None, list[Request]]:
        key, method = message.get("id"), message.get("method")
        if not isinstance(method, str):
            return self._answer_of_host(line, message), []
        params: Any = message.get("params")
        fields: dict[str, Any] = params if isinstance(params, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        with self._lock:
            if method == "initialize":
                self._initialize, self._initialize_answered, self._initialized = message, False, None
            elif method == "notifications/initialized":
                self._initialized = line
            elif method == "logging/setLevel":
                self._level = message
            elif method == "resources/subscribe" and len(self._subscriptions) < SUBSCRIPTIONS_MAX:
                self._subscriptions[str(fields.get("uri"))] = message
            elif method == "resources/unsubscribe":
                self._subscriptions.pop(str(fields.get("uri")), None)
            elif method == "notifications/cancelled":
                # The daemon owes no answer to a cancelled request, and the next one must not be asked again.
                cancelled = _key(fields.get("requestId"))
                if cancelled is not None:
                    self._drop(cancelled)
        number = _key(key)
        return line, [] if number is None else [self._note(Request(number, method, line))]

    def _answer_of_host(self, line: bytes, message: dict[str, Any]) -> bytes | None:
        key = message.get("id")
        if self.generation <= 1 or key is None:
            return line
        mine = f"{_FROM}{self.generation}/"
        if not isinstance(key, str) or not key.startswith(mine):
            return None  # an earlier daemon's question
        try:
            return lines.dump({**message, "id": json.loads(key[len(mine) :])})
        except ValueError:
            return None

    def _note(self, request: Request) -> Request:
        with self._lock:
            self._drop(request.id)
            if len(self._open) >= UNANSWERED_MAX:
                self._drop(next(iter(self._open)))
            if self._bodies + request.size > BODIES_MAX:
                request.line, request.size = None, 0
            self._bodies += request.size
            self._open[request.id] = request
        return request

    def _drop(self, key: int | str) -> Request | None:
        request = self._open.pop(key, None)
        if request:
            self._bodies -= request.size
        return request

    def _answered(self, key: int | str, failed: bool) -> None:
        with self._lock:
            request = self._drop(key)
            if request and self._initialize is not None and request.id == self._initialize.get("id"):
                if request.method == "initialize" and failed:
                    self._initialize = None
                elif request.method == "initialize":
                    self._initialize_answered = True

    def _progressed(self, message: dict[str, Any]) -> None:
        params: Any = message.get("params")
        meta: Any = params.get("_meta") if isinstance(params, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        token = _key(params.get("progressToken")) if isinstance(params, dict) else None  # pyright: ignore[reportUnknownMemberType]
        if token is not None and isinstance(meta, dict) and SEEN in meta:
            self._seen.pop(token, None)
            self._seen[token] = meta[SEEN]
            if len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]

    def _answer_in(self, message: dict[str, Any]) -> None:
        key = _key(message.get("id"))
        if "method" not in message and key is not None:
            self._answered(key, "error" in message)

    def _own_answer(self, key: str, line: bytes, failed: bool) -> None:
        with self._lock:
            method = self._again.pop(key, "")
        if failed and method:
            sys.stderr.write(f"interactd: the new daemon did not accept {method} again: {line[:300]!r}\n")

    def _private(self, method: str) -> str:
        key = f"{_AGAIN}{self.generation}/{len(self._again)}"
        self._again[key] = method
        return key


def _key(value: Any) -> int | str | None:
    """Return an id as a key: 1 and 1.0 are one id, 1 and "1" are two."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else str(value)
    return value if isinstance(value, int | str) else None
