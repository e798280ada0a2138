"""Whose files a workspace's are. When we are root every environment has a uid of its own, that no other user has."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

_FIRST, _COUNT = 0x70000000, 0x0FFFFFFF  # the range that systemd's table of uids leaves to nobody


def uid_for(environment_id: str) -> int:
    """Return the uid of an environment: always the same one, in 1879048192 .. 2147483646."""
    digest = hashlib.sha256(environment_id.encode()).digest()
    return _FIRST + int.from_bytes(digest[:8], "big") % _COUNT


def give(folder: Path, uid: int) -> None:
    """Make everything in a folder belong to `uid`. Blocking. Follows no link, changes nothing that has other names.

    Raises:
        OSError: the folder itself cannot be changed.
    """
    os.chown(folder, uid, uid, follow_symlinks=False)
    for _path, folders, files, fd in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                linked = stat.S_ISREG(info.st_mode) and info.st_nlink > 1
                if (info.st_uid != uid or info.st_gid != uid) and not linked:
                    os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)
