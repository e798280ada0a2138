"""How much memory a child may take, so that loading a model never drives the machine into swap or the OOM killer."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes a new process can use now, or None where this system does not say.

    On Linux that is the kernel's own estimate, or what the memory limits of this process's cgroups leave, whichever
    is less.
    """
    if sys.platform != "linux":
        return None
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
        groups = (proc / "self" / "cgroup").read_text()
    except OSError:
        return None
    if not found:
        return None
    room = [int(found[1]) * 1024]
    unified = re.search(r"^0::(/.*)$", groups, re.MULTILINE)
    folder = cgroups / (unified[1].lstrip("/") if unified else "")
    while folder.is_relative_to(cgroups):
        if (left := _left(folder)) is not None:
            room.append(left)
        folder = folder.parent
    return max(0, min(room))


def _left(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        cache = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    # Cached file pages count as used but make way for a process at once.
    return None if limit == "max" else int(limit) - used + (int(cache[1]) if cache else 0)
