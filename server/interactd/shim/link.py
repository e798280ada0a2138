"""One connection to a daemon that is there: socket, peer check, hello and its answer."""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from interactd.shim import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from interactd.paths import Paths

ANSWER_MAX = 256 * 1024


class Absent(Exception):
    """Nobody listens, or whoever did hung up before answering: a daemon may be started, or tried again."""


class Silent(Exception):
    """Somebody listens and does not answer. `pid` is known where the kernel tells."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"the daemon (pid {pid}) does not answer" if pid else "the daemon does not answer")
        self.pid = pid


class Refused(Exception):
    """The daemon said no. `error` has code, message and perhaps repair; `retry` says whether to try again."""

    def __init__(self, error: dict[str, Any], retry: bool) -> None:
        super().__init__(str(error.get("message", "refused")))
        self.error = error
        self.retry = retry


def socket_path(paths: Paths) -> str:
    """Return the path of the unix socket."""
    return os.path.join(paths.runtime_dir, "daemon.sock")


def port_path(paths: Paths) -> str:
    """Return the path of the 0600 file that has the loopback port and its token."""
    return os.path.join(paths.runtime_dir, "daemon.port")


def dial(
    paths: Paths, hello: dict[str, Any], *, deadline: float, silent_s: float = 10.0
) -> tuple[socket.socket, dict[str, Any]]:
    """Connect and say hello.

    Args:
        paths: where the daemon is.
        hello: the first line, as docs/architecture.md has it.
        deadline: monotonic time after which a daemon that is still starting is given up.
        silent_s: how long a daemon that has finished starting may take to answer.

    Returns:
        The connected blocking socket, with nothing of it read beyond the answer, and the answer.

    Raises:
        Absent, Silent, Refused.
    """
    sock, pid, token = _open(paths, deadline)
    try:
        if token:
            hello = {**hello, "token": token}
            _knock(sock, token, min(deadline, time.monotonic() + silent_s), pid)
        answer = _say(paths, sock, hello, deadline, silent_s, pid)
        if answer.get("ok") is not True:
            error: Any = answer.get("error")
            raise Refused(error if isinstance(error, dict) else {}, answer.get("retry") is True)  # pyright: ignore[reportUnknownArgumentType]
        sock.settimeout(None)
    except TimeoutError:
        sock.close()
        raise Silent(pid) from None
    except OSError as error:
        sock.close()
        raise Absent(str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock, answer


def _open(paths: Paths, deadline: float) -> tuple[socket.socket, int | None, str]:
    if sys.platform != "win32":
        path = socket_path(paths)
        if os.path.exists(path):
            return _open_unix(path, deadline)
    try:
        with open(port_path(paths), encoding="ascii") as file:
            port, token = file.read().split()
        sock = socket.create_connection(("127.0.0.1", int(port)), timeout=max(deadline - time.monotonic(), 0.05))
    except (OSError, ValueError) as error:
        raise Absent("nobody listens") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pid = record.read(paths).get("pid")
    return sock, pid if isinstance(pid, int) else None, token


def _open_unix(path: str, deadline: float) -> tuple[socket.socket, int | None, str]:
    from interactd.shim import peer

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.05))
            try:
                sock.connect(path)
                break
            except BlockingIOError:
                # The backlog is full: a burst of shims, or a daemon that stands still.
                if time.monotonic() > deadline:
                    raise Silent(None) from None
                time.sleep(0.02)
        uid, pid = peer.identity(sock)
        if uid is not None and uid != os.getuid():
            raise Refused(
                {
                    "code": "daemon_unavailable",
                    "message": f"{path} belongs to a process of another user (uid {uid})",
                    "repair": "Nothing was sent to it. Remove it, or set INTERACTD_HOME to a folder of your own.",
                },
                retry=False,
            )
    except OSError as error:
        sock.close()
        raise Absent(str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock, pid, ""


def _knock(sock: socket.socket, token: str, deadline: float, pid: int | None) -> None:
    """Let the listener prove that it knows the token, before it is told the token or anything else.

    A port number outlives its daemon: any user's process may have it next.
    """
    import hashlib
    import hmac

    challenge = os.urandom(16).hex()
    sock.sendall(json.dumps({"interactd": 1, "challenge": challenge}).encode("ascii") + b"\n")
    line = _line(sock, deadline)
    if line is None:
        raise Silent(pid)
    proof = str((record.json_object(line) or {}).get("proof", ""))
    wanted = hmac.new(token.encode("ascii"), challenge.encode("ascii"), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(proof.encode("utf-8", "replace"), wanted.encode("ascii")):
        raise Absent("the port belongs to something else now")


def _say(
    paths: Paths, sock: socket.socket, hello: dict[str, Any], deadline: float, silent_s: float, pid: int | None
) -> dict[str, Any]:
    sock.settimeout(max(deadline - time.monotonic(), 0.05))
    sock.sendall(json.dumps(hello, separators=(",", ":")).encode("ascii") + b"\n")
    began = time.monotonic()
    while True:
        # A daemon that is still importing gets the whole time; one that said that it was ready does not.
        ready = "ready_at" in record.read(paths)
        line = _line(sock, min(deadline, began + silent_s) if ready else min(deadline, time.monotonic() + 1.0))
        if line is not None:
            break
        if ready or time.monotonic() >= deadline:
            raise Silent(pid)
    answer = record.json_object(line)
    if answer is None or answer.get("interactd") != 1:
        raise Absent("what listens there is not interactd")
    return answer


def _line(sock: socket.socket, deadline: float) -> bytes | None:
    """Read exactly one line, or return None when the time is up first. Raises Absent when the peer hangs up."""
    held = 0
    while True:
        sock.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            # Looking first keeps what follows the line in the socket, for whoever gets it next.
            seen = sock.recv(held + 65536, socket.MSG_PEEK)
        except TimeoutError:
            return None
        if not seen or len(seen) > ANSWER_MAX:
            raise Absent("the daemon hung up")
        end = seen.find(b"\n")
        if end >= 0:
            return sock.recv(end + 1)
        if len(seen) == held:
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.005)
        held = len(seen)
