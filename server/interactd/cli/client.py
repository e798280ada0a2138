"""The command line's side of the control protocol (docs/architecture.md): blocking, one line of JSON a message."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from interactd.errors import DaemonUnavailable, InteractdError
from interactd.paths import Paths


class RemoteError(InteractdError):
    """An error the daemon answered; `code` is the daemon's own."""

    def __init__(self, error: dict[str, Any]) -> None:
        fields = {k: v for k, v in error.items() if k not in {"code", "message", "repair"}}
        super().__init__(str(error.get("message", "")), repair=error.get("repair"), **fields)
        self.remote_code = str(error.get("code", "internal"))

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "code": self.remote_code}


class ControlClient:
    """One connection to the daemon. Calls are made one after another; `stream` also yields events."""

    def __init__(self, sock: socket.socket, paths: Paths | None = None, connection: str | None = None) -> None:
        self._sock = sock
        self._paths = paths
        self._connection = connection
        self._lines = sock.makefile("rb")
        self._next = 0

    def reconnect(self) -> None:
        """Connect to the next daemon, starting it if need be; nothing that was asked of the last one comes any more.

        Raises:
            DaemonUnavailable: none answers and none could be started.
        """
        from interactd.shim.connect import connect

        if self._paths is None:
            raise _gone()
        self.close()
        # Under the same id, because a turn that is taken up again waits for the keys of who sent it.
        self._sock, _ = connect(self._paths, face="control", connection=self._connection)
        self._lines = self._sock.makefile("rb")

    def call(self, method: str, **params: Any) -> Any:
        """Call and return the result; events in between are dropped.

        Raises:
            RemoteError: the daemon's own error.
            DaemonUnavailable: the connection broke.
        """
        messages = list(self.stream(method, **params))
        return messages[-1][1]

    def stream(self, method: str, **params: Any) -> Iterator[tuple[bool, Any]]:
        """Call; yield `(False, event)` for each event and at last `(True, result)`.

        Raises: as `call`.
        """
        number = self.send(method, **params)
        while True:
            message = self.receive()
            if message.get("id") != number:
                continue
            if "event" in message:
                yield False, message["event"]
            elif "error" in message:
                raise RemoteError(message["error"])
            else:
                yield True, message.get("result")
                return

    def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting; returns its id."""
        self._next += 1
        request = {"id": self._next, "method": method, "params": params}
        try:
            self._sock.sendall(json.dumps(request).encode("ascii") + b"\n")
        except OSError as error:
            raise _gone() from error
        return self._next

    def receive(self) -> dict[str, Any]:
        """Return the next message, whichever request it belongs to."""
        try:
            line = self._lines.readline()
        except OSError as error:
            raise _gone() from error
        if not line:
            raise _gone()
        return json.loads(line)

    def close(self) -> None:
        self._lines.close()
        self._sock.close()


def _gone() -> DaemonUnavailable:
    return DaemonUnavailable(
        "the daemon closed the connection", repair="Call again: it is started anew. `interactd status` says more."
    )


@contextmanager
def connected(paths: Paths, *, start: bool = True) -> Generator[ControlClient]:
    """Connect to the daemon, starting it if there is none (unless `start=False`).

    Raises:
        DaemonUnavailable: none answers and none could be started.
    """
    from interactd.shim.connect import connect, new_connection

    connection = new_connection()
    sock, _hello = connect(paths, face="control", start=start, connection=connection)
    client = ControlClient(sock, paths if start else None, connection)
    try:
        yield client
    finally:
        client.close()
