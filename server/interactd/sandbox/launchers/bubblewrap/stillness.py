"""Holding still what is in a sandbox while nobody uses it. From outside, since what it says of itself may be a lie: a
kernel whose code was told to end its threads can answer that it did."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from interactd.sandbox.launchers.bubblewrap.watch import usage

_LOOKS = 3
_STILL = frozenset("TtZX")


def hold(first: int, patience_s: float = 1.0) -> bool:
    """Stop everything below a sandbox's first process; returns whether nothing moves. Blocking, milliseconds.

    One look is not enough: what forks while it is taken can be where it has looked already.
    """
    deadline, good = time.monotonic() + patience_s, 0
    while good < _LOOKS:
        moving = [pid for pid in _below(first) if _moves(pid)]
        good = 0 if moving else good + 1
        if moving and time.monotonic() > deadline:
            return False
        for pid in moving:
            _send(pid, signal.SIGSTOP)
        time.sleep(0.001)
    return True


def release(first: int) -> None:
    """Let it go on. Blocking."""
    for pid in _below(first):
        _send(pid, signal.SIGCONT)


def _below(first: int) -> list[int]:
    return usage(first)[0][1:]


def _moves(pid: int) -> bool:
    # Thread by thread: a process whose first thread has ended looks dead while others of it run.
    return any(state not in _STILL for state in _states(pid))


def _states(pid: int) -> Iterator[str]:
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
