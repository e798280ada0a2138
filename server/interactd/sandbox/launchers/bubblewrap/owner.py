"""Whose files a workspace's are. When we are root every environment has a uid of its own, that no other user has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from interactd.sandbox.folder import sweep

_FIRST, _COUNT = 0x70000000, 0x0FFFFFFF  # the range that systemd's table of uids leaves to nobody


def uid_for(environment_id: str) -> int:
    """Return the uid of an environment: always the same one, in 1879048192 .. 2147483646."""
    digest = hashlib.sha256(environment_id.encode()).digest()
    return _FIRST + int.from_bytes(digest[:8], "big") % _COUNT


def give(folder: Path, uid: int, *, linked: bool = False) -> None:
    """Make everything in a folder belong to `uid`. Blocking. Follows no link, changes nothing that has other names,
    unless `linked` says that those are in the folder too.

    Raises:
        OSError: the folder itself cannot be changed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sweep.give(fd, uid, uid, linked=linked)
    finally:
        os.close(fd)
