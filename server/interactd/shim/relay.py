"""The relay: two threads, one for each direction, so that a slow reader on one side never stops the other.

The main thread reads the host and is the only one that sends what it reads. The receiver connects, reads the daemon
and connects again. Whoever sends holds `_sending`; after a reconnection the unanswered requests are sent again by a
helper that holds it, while the receiver already reads: a daemon that answers while it is being asked cannot make
both sides wait for each other.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

from interactd.shim import connect, lines, record
from interactd.shim.memory import ATTEMPTS, Memory, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from interactd.paths import Paths
    from interactd.shim.stdio import Host

CHUNK = 64 * 1024
DRAIN_S = 5.0
QUIET_S = 20.0
_ERROR = -32000


class Relay:
    """One host on one side, on the other whichever daemon there is."""

    def __init__(self, host: Host, paths: Paths, options: dict[str, Any], command: list[str] | None = None) -> None:
        self._host = host
        self._paths = paths
        self._options = options
        self._command = command
        self._connection = connect.new_connection()
        self._memory = Memory()
        self._state = threading.Condition()
        self._link: socket.socket | None = None
        self._sending = False
        self._wanted = True
        self._trouble: tuple[float, str, dict[str, Any]] | None = None

    def run(self) -> None:
        """Relay until the host closes its end, then give answers that are due a few seconds. Never raises."""
        threading.Thread(target=self._receive, name="daemon to host", daemon=True).start()
        cut = lines.Lines(spill=False)
        while True:
            chunk = self._host.read(CHUNK)
            for line, whole in cut.feed(chunk) if chunk else [(cut.rest(), True)]:
                if not whole:
                    self._too_long(line)
                elif line.strip():
                    self._from_host(line if line.endswith(b"\n") else line + b"\n")
            if not chunk:
                return self._finish()

    def _from_host(self, line: bytes) -> None:
        forward, requests = self._memory.from_host(line)
        if forward is None:
            return
        if requests and self._refuse(requests):
            return
        while True:
            with self._state:
                while self._link is None or self._sending:
                    if self._trouble and not self._wanted:
                        return  # answered by whoever set it, or a notification that nobody can take
                    if self._link is None and not self._wanted:
                        self._wanted = True
                        self._state.notify_all()
                    self._state.wait()
                generation = self._memory.generation
                self._sending = True
                link = self._link
            try:
                for request in requests:
                    request.attempts += 1
                link.sendall(forward)
                sent = True
            except OSError:
                sent = False
            with self._state:
                self._sending = False
                if sent:
                    for request in requests:
                        request.generation = generation
                elif self._link is link:
                    self._lose(link)
                self._state.notify_all()
            # What failed goes to the next daemon; this one saw at most a part of a line.
            if sent:
                return

    def _refuse(self, requests: list[Request]) -> bool:
        """Answer at once what comes while the last attempt to get a daemon has only just failed."""
        with self._state:
            trouble = self._trouble
            if trouble and time.monotonic() - trouble[0] >= 1.0:
                trouble = self._trouble = None
        if trouble:
            self._answer(requests, trouble[1], trouble[2])
        return trouble is not None

    def _receive(self) -> None:
        try:
            self._keep_connected()
        except Exception as error:  # noqa: BLE001 - the top level of this thread
            # Without this thread the host would wait for ever; its end is something every host can handle.
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)

    def _keep_connected(self) -> None:
        """The receiver's whole life."""
        hurry, short = True, 0
        while True:
            with self._state:
                while not (hurry or self._wanted or self._memory.due()):
                    self._state.wait()
                self._wanted = True
            if short:
                time.sleep(min(0.1 * 2**short, 5.0))
            try:
                link, answer = connect.connect(
                    self._paths,
                    face="mcp",
                    connection=self._connection,
                    options=self._options,
                    command=self._command,
                )
            except Exception as error:  # noqa: BLE001 - the top level of this thread: the host must be told
                self._give_up(error)
                hurry, short = False, 0
                continue
            began = time.monotonic()
            try:
                self._talk(link)
            except TimeoutError:
                self._give_up(connect.unavailable(self._paths, "the daemon does not answer to initialize"))
            except OSError as error:
                _say(f"interactd: the connection to the daemon broke ({error}); connecting again")
            with self._state:
                self._lose(link)
                while self._sending:
                    self._state.wait()
                link.close()
            # Who was told to leave stays away until it is needed; who died is missed, for it may have had work.
            last = record.read(self._paths)
            hurry = not (last.get("pid") == answer.get("pid") and last.get("left"))
            short = short + 1 if time.monotonic() - began < 1.0 and hurry else 0
            if short > 6:
                hurry, short = False, 0

    def _talk(self, link: socket.socket) -> None:
        """Repeat what the daemon must know, then pass on what it says until it hangs up."""
        memory = self._memory
        cut = lines.Lines(spill=True)
        memory.next_generation()
        first, key = memory.handshake()
        if first:
            link.settimeout(connect.START_S)
            link.sendall(first)
            while not memory.settled(key):
                chunk = link.recv(CHUNK)
                if not chunk:
                    return
                self._to_host(cut.feed(chunk))
            for line in memory.setup():
                link.sendall(line)
            link.settimeout(None)
        with self._state:
            again = [request for request in memory.unanswered() if request.generation]
            self._link, self._wanted, self._trouble = link, False, None
            self._sending = bool(again)
            self._state.notify_all()
        if again:
            threading.Thread(target=self._repeat, args=(link, again), name="repeat", daemon=True).start()
        try:
            while True:
                ready, _, _ = select.select([link], [], [], QUIET_S)
                if not ready:
                    if self._hangs():
                        return
                    continue
                chunk = link.recv(CHUNK)
                if not chunk:
                    return
                self._to_host(cut.feed(chunk))
        finally:
            if cut.broken:
                self._host.write(b"\n")

    def _repeat(self, link: socket.socket, requests: list[Request]) -> None:
        """Send unanswered requests again. Safe: what starts work takes connection and id as idempotency key."""
        generation = self._memory.generation
        try:
            for request in requests:
                if not self._memory.holds(request):
                    continue
                line = self._memory.again(request)
                if line is None or request.attempts >= ATTEMPTS:
                    why = "is too large to be asked again" if request.line is None else "was asked three times"
                    self._answer([request], f"the daemon ended while it worked on this, and it {why}", {})
                    continue
                request.attempts += 1
                request.generation = generation
                link.sendall(line)
        except OSError:
            return  # the receiver sees it too, and repeats what is left on the next link
        finally:
            with self._state:
                self._sending = False
                self._state.notify_all()

    def _to_host(self, found: list[tuple[bytes, bool]]) -> None:
        out: list[bytes] = []
        for line, whole in found:
            passed = self._memory.from_daemon(line) if whole else line
            if passed is not None:
                out.append(passed)
            if not whole:
                kind, key, _ = lines.peek(line[: lines.HEAD])
                for request in self._memory.unanswered() if kind in ("result", "error") else []:
                    if request.id == key:
                        self._memory.forget(request)
        if out:
            self._host.write(out[0] if len(out) == 1 else b"".join(out))
            if self._host.closing:
                with self._state:
                    self._state.notify_all()

    def _lose(self, link: socket.socket) -> None:
        if self._link is link:
            self._link = None
        self._state.notify_all()
        try:
            link.shutdown(socket.SHUT_RDWR)  # wakes the other thread, whatever it does with it
        except OSError:
            return  # it is down already

    def _hangs(self) -> bool:
        """True when requests wait, nothing came for a while, and the daemon does not answer a new connection either.
        They are answered then, and the link is given up."""
        if not self._memory.due():
            return False
        try:
            probe, _ = connect.connect(self._paths, face="daemon", start=False)
            probe.close()
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the host should read
            if "pid" not in getattr(error, "fields", {}):
                return False
            self._give_up(error)
            return True

    def _give_up(self, error: Exception) -> None:
        message = f"interactd: {error}"
        repair = getattr(error, "repair", None)
        if repair:
            message += f". {repair}"
        as_dict = getattr(error, "as_dict", dict)
        data: dict[str, Any] = as_dict()
        _say(message)
        with self._state:
            self._trouble = (time.monotonic(), message, data)
            self._wanted = False
            self._state.notify_all()
        self._answer(self._memory.unanswered(), message, data)

    def _answer(self, requests: list[Request], message: str, data: dict[str, Any]) -> None:
        for request in requests:
            if self._memory.forget(request):
                error = {"code": _ERROR, "message": message, "data": data}
                self._host.write(lines.dump({"jsonrpc": "2.0", "id": request.id, "error": error}))

    def _too_long(self, head: bytes) -> None:
        _, key, _ = lines.peek(head)
        message = f"interactd: a message may have at most {lines.LINE_MAX // 2**20} MiB"
        self._host.write(lines.dump({"jsonrpc": "2.0", "id": key, "error": {"code": -32600, "message": message}}))

    def _finish(self) -> None:
        """The host said its last word. Whoever piped its requests in still wants the answers; a host that is gone
        wants nothing, and one that waits for our end sends SIGTERM."""
        self._host.closing = True
        limit: float | None = None
        with self._state:
            while self._memory.due() and self._host.listens():
                now = time.monotonic()
                if self._link is not None and limit is None:
                    limit = now + DRAIN_S
                if limit is not None and now >= limit:
                    break
                self._state.wait(0.1)


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # a host may close stderr; it is told over the protocol as well
