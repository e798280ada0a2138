"""A clock that nobody sets: it runs while the machine sleeps and begins again when it is started."""

from __future__ import annotations

import sys
import time
from pathlib import Path

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)
# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC goes on during sleep, which Linux's does not.


def boottime() -> float:
    """Seconds since the machine was started, those asleep included. Setting the clock does not move it."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def boot_id() -> str:
    """What tells this start of the machine from all others; empty where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
