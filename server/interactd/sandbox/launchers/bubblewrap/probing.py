"""The folders that a probe runs in; one whose daemon was killed in the middle of it goes at the next start."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from interactd.sandbox.launchers.bubblewrap import cgroups

_NAME = re.compile(r"probe-(\d+)-(\d+)-")


def folder(cache: Path) -> Path:
    """Make an empty folder. Blocking. Raises: OSError."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    me = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"probe-{me}-{cgroups.started(me) or 0}-", dir=cache))


def reap(cache: Path) -> int:
    """Remove the folders of processes that are no more. Blocking; returns how many."""
    count = 0
    for path in cache.glob("probe-*"):
        named = _NAME.match(path.name)
        if named is not None and cgroups.started(int(named[1])) != named[2]:
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count
