"""Finding the user's daemon, or starting it. Election is by the daemon's lock; what is here only saves work."""

from __future__ import annotations

import os
import sys
import time

from interactd._version import __version__
from interactd.shim import link, record, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from interactd.paths import Paths

START_S = 30.0
SILENT_S = 10.0
_ABSENT_S = 0.5
_FAILURES = 3
_STARTS = 6


def connect(
    paths: Paths,
    *,
    face: str,
    start: bool = True,
    connection: str | None = None,
    options: dict[str, Any] | None = None,
    command: list[str] | None = None,
    timeout_s: float | None = None,
) -> tuple[socket.socket, dict[str, Any]]:
    """Connect to the daemon, starting one if there is none.

    Args:
        paths: where it lives.
        face: `mcp`, `control` or `daemon`.
        start: False never starts one.
        connection: the id to keep over reconnections; made here when not given.
        options: for the face.
        command: what to start instead of this installation's daemon.
        timeout_s: for the whole; default 30 s, or INTERACTD_START_TIMEOUT_S.

    Returns:
        A connected blocking socket, and the daemon's answer to the hello (`version`, `pid`).

    Raises:
        DaemonUnavailable: none answers and none could be started. `field` names `pid` of one that hangs.
    """
    limit = timeout_s if timeout_s is not None else _start_timeout()
    deadline = time.monotonic() + limit
    hello = make_hello(paths, face, connection or new_connection(), options or {})
    try:
        return _connect(paths, hello, start, command, deadline, min(SILENT_S, limit))
    except link.Silent as error:
        raise unavailable(
            paths,
            str(error),
            f"It is stopped or stuck. `interactd stop --now` ends it; the next call starts a new one. "
            f"Its log is {paths.log_file}.",
            pid=error.pid,
        ) from None
    except link.Refused as error:
        raise unavailable(paths, str(error), error.error.get("repair"), cause=error.error.get("code")) from None
    except spawn.StartFailed as error:
        raise unavailable(paths, f"the daemon could not be started: {error}", error.repair) from None
    except link.Absent as error:
        if not start:
            raise unavailable(paths, "no daemon is running", "It starts by itself with the next command.") from None
        raise unavailable(paths, f"the daemon did not come up within {limit:.0f} s ({error})") from None
    except OSError as error:
        # A full disk, a read-only home, a folder of somebody else's.
        repair = (
            "Free some space if the disk is full; make the folder yours and writable; or set INTERACTD_HOME to another."
        )
        raise unavailable(paths, f"the daemon could not be started: {error}", repair) from None


def unavailable(paths: Paths, message: str, repair: str | None = None, **fields: Any) -> Exception:
    """Return the error a caller gets; it names the log and the command that finds out more."""
    from interactd.errors import DaemonUnavailable

    if repair is None:
        repair = f"Run `interactd doctor`; the log is {os.path.join(paths.logs_dir, 'daemon.log')}."
    return DaemonUnavailable(message, repair=repair, **{k: v for k, v in fields.items() if v is not None})


def new_connection() -> str:
    """Return an id for this process's connection."""
    return "con_" + os.urandom(12).hex()


def make_hello(paths: Paths, face: str, connection: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the first line to the daemon: who we are, and what of the environment it may know."""
    try:
        cwd = os.getcwd()
    except OSError:  # the folder was removed under us
        cwd = None
    return {
        "interactd": 1,
        "face": face,
        "version": __version__,
        "connection": connection,
        "pid": os.getpid(),
        "cwd": cwd,
        "env": _allowed(paths),
        "options": options,
    }


def _allowed(paths: Paths) -> dict[str, str]:
    from interactd import envnames

    try:
        with open(os.path.join(paths.config_dir, "config.toml"), encoding="utf-8", errors="replace") as file:
            extra = envnames.mentioned(file.read(1_000_000))
    except OSError:
        extra = set[str]()
    return envnames.select(dict(os.environ), extra)


def _start_timeout() -> float:
    try:
        return min(max(float(os.environ.get("INTERACTD_START_TIMEOUT_S", START_S)), 0.5), 600.0)
    except ValueError:
        return START_S


def _connect(
    paths: Paths, hello: dict[str, Any], start: bool, command: list[str] | None, deadline: float, silent_s: float
) -> tuple[socket.socket, dict[str, Any]]:
    turn = _Turn(paths)
    delay, failures, starts = 0.005, 0, 0
    began = time.monotonic()
    try:
        while True:
            try:
                return link.dial(paths, hello, deadline=deadline, silent_s=silent_s)
            except link.Refused as error:
                if not error.retry or time.monotonic() > deadline:
                    raise
            except link.Absent:
                if time.monotonic() > (deadline if start else min(deadline, began + _ABSENT_S)):
                    raise
                # One shim starts it and the others wait, so that thirty at once do not make thirty interpreters.
                # If that one is stopped or slow the others try all the same: the daemon's own lock decides.
                if start and (turn.taken() or time.monotonic() - began > 3.0):
                    paths.make()
                    best = record.newest(paths, __version__, command or spawn.own_command())[1]
                    if failures:
                        best = command or spawn.own_command()  # the newest one on record may be half uninstalled
                    try:
                        starts += 1
                        if spawn.start(paths, best):
                            if starts > _STARTS:
                                raise spawn.StartFailed("it ends as soon as it starts" + spawn.last_words(paths))
                            continue
                        starts -= 1
                    except spawn.StartFailed:
                        failures += 1
                        if failures >= _FAILURES:
                            raise
            time.sleep(min(delay, max(deadline - time.monotonic(), 0)))
            delay = min(delay * 1.6, 0.2)
    finally:
        turn.release()


class _Turn:
    """Whose turn it is to start a daemon, among processes that want one now. A courtesy, not the election."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._fd = -1

    def taken(self) -> bool:
        """Return True when it is ours, taking it if nobody has it. Never blocks."""
        if self._fd >= 0 or sys.platform == "win32":
            return True
        import fcntl

        self._paths.make()
        fd = os.open(os.path.join(self._paths.state_dir, "start.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
