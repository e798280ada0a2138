"""Instants at which a daemon can be made to die: before and after every commit, before everything that changes a file.

`arm` counts them from the inside, by audit hooks and a connection that knows its commits. A point is called by what is
done and where in the product: `commit:SqliteStore.accept`, `open:contents.take`. Between two neighbours nothing changes
that a successor could see, but for what SQLite and the kernel do themselves.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

TRACE: Final = "INTERACTD_CHAOS_TRACE"
"""The file that every point is written to, one a line; without it nothing is armed."""
DIE: Final = "INTERACTD_CHAOS_DIE"
"""`point#n`: die at its n-th time. With `!` at the end the file that is about to be written is made, and is empty."""
FULL: Final = "FULL:"
"""Before a point of `DIE`: do not die there; the disk is full from then on, for `FULL_S`."""
FULL_S: Final = 0.7
CHANGES: Final = frozenset(
    (
        "open",
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "subprocess.Popen",
    )
)
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_DULL: Final = ("/dev/", "/proc/", "/sys/")
_NOT_OURS: Final = ("logging", "importlib")


class _Points:
    def __init__(self, trace: str, die: str) -> None:
        self._pid = os.getpid()
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._torn = die.endswith("!")
        self._fills = die.startswith(FULL)
        self._full_until = 0.0
        self._die, _, number = die.removeprefix(FULL).removesuffix("!").rpartition("#")
        self._number = int(number or 0)
        self._seen: Counter[str] = Counter()
        self._lock = threading.RLock()

    def reach(self, point: str, opened: tuple[Any, ...] | None = None) -> None:
        """Note the point; return unless it is the last one."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._seen[point] += 1
            last = point == self._die and self._seen[point] == self._number
            what = (" FULL" if self._fills else " DIED") if last else ""
            os.write(self._trace, f"{point}{what}\n".encode())
            if self._fills:
                if last:
                    self._full_until = time.monotonic() + FULL_S
                if time.monotonic() < self._full_until:
                    _no_room(point)
                return
            if not last:
                return
            # One that is relative to an open folder cannot be told from one in this process's own.
            if self._torn and opened is not None and Path(os.fsdecode(opened[0])).is_absolute():
                self._die = ""
                path, _, flags = opened
                os.close(os.open(path, flags & ~os.O_EXCL, 0o600))
            os.kill(self._pid, signal.SIGKILL)
            time.sleep(60)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event not in CHANGES:
            return
        opened = None
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING or isinstance(path, int):
                return
            if os.fsdecode(path).startswith(_DULL):
                return
            opened = arguments
        where = _where(inspect.currentframe())
        if where:
            self.reach(f"{event.removeprefix('os.')}:{where}", opened)


def _no_room(point: str) -> None:
    """Refuse what needs room, as the kernel and SQLite do."""
    kind = point.partition(":")[0]
    if kind in ("commit", "vacuum"):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        error.sqlite_errorname = "SQLITE_FULL"
        raise error
    if kind in ("open", "mkdir", "link", "symlink", "rename", "fsync"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _where(frame: FrameType | None) -> str:
    """The function of the product that does it; empty for what is not its doing."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("interactd."):
            return f"{name.rpartition('.')[2]}.{frame.f_code.co_name.strip('<>')}"
        if name.startswith(_NOT_OURS):
            return ""
        if name == "concurrent.futures.thread":
            # A thread that was given a call of the standard library's and nothing else.
            return "in_a_thread"
        frame = frame.f_back
    return ""


def _jobs() -> str:
    """What the store's writer commits, as far as this is its thread."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_batch":
            return "+".join(sorted({_name(job.run) for job in frame.f_locals["jobs"]}))
        if frame.f_code.co_name == "_bare":
            return _name(frame.f_locals["job"].run)
        frame = frame.f_back
    return ""


def _name(run: Any) -> str:
    while isinstance(run, partial):
        run = run.func
    name = getattr(run, "__qualname__", type(run).__name__)
    if name == "Runners.beating.<locals>.run" or "beating" in name:
        inner = [cell.cell_contents for cell in run.__closure__ or () if callable(cell.cell_contents)]
        name = next(
            (_name(one) for one in inner if hasattr(one, "__qualname__") and "beating" not in one.__qualname__), name
        )
    return name.replace(".<locals>", "").replace(".<lambda>", "")


def arm() -> None:
    """Count points from now on, if this process was told to."""
    trace = os.environ.get(TRACE)
    if not trace:
        return
    points = _Points(trace, os.environ.get(DIE, ""))

    class Connection(sqlite3.Connection):
        """Tells before and after everything that commits."""

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            word = sql.lstrip()[:12].upper()
            if not word.startswith(("COMMIT", "VACUUM", "PRAGMA WAL_C", "PRAGMA JOURN")):
                return super().execute(sql, *parameters)
            jobs = _jobs() or _where(inspect.currentframe())
            if word.startswith("PRAGMA WAL_C") and not jobs:
                return super().execute(sql, *parameters)
            kind = word.split()[0].lower().rstrip(";")
            points.reach(f"{kind}:{jobs}")
            try:
                return super().execute(sql, *parameters)
            finally:
                points.reach(f"{kind}-done:{jobs}")

    connect = sqlite3.connect

    def connecting(*given: Any, **named: Any) -> sqlite3.Connection:
        return connect(*given, **{"factory": Connection, **named})

    sqlite3.connect = connecting  # type: ignore[assignment]
    fsync = os.fsync

    def syncing(fd: Any) -> None:
        if where := _where(inspect.currentframe()):
            points.reach(f"fsync:{where}")
        fsync(fd)

    os.fsync = syncing  # type: ignore[assignment]
    sys.addaudithook(points.hook)


def passed(trace: Path) -> list[str]:
    """The points that were reached, in order."""
    return trace.read_text().splitlines() if trace.exists() else []
