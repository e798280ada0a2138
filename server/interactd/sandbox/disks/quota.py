"""What the kernel holds an environment to, and what can go wrong beneath it. Cheap: three system calls a look."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESERVE: Final = 64 << 20
"""So much stays free on the disk that holds an image: what the kernel has accepted must still find room there."""
_LEAST: Final = 128 << 10


@dataclass(frozen=True, slots=True)
class Quota:
    """A mounted file system of an environment's own, and the sparse image that it lies in."""

    mounted: Path
    image: Path

    def used_up(self) -> bool:
        """Whether the environment has used all the room, or all the files, that it may."""
        try:
            found = os.statvfs(self.mounted)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < _LEAST or found.f_favail == 0

    def trouble(self) -> str | None:
        """What is wrong beneath, for people: no room on the disk that holds the image, or it could not be written.

        Programs in the sandbox are told of success as soon as the kernel has taken their bytes. Those have to find
        room later, so this says so while there still is some.
        """
        try:
            inside, outside, image = os.statvfs(self.mounted), os.statvfs(self.image.parent), self.image.stat()
        except OSError as error:
            return f"its workspace cannot be reached: {error.strerror}"
        if inside.f_flag & os.ST_RDONLY:
            return "the disk beneath its workspace could not be written, and the workspace is read-only since"
        used = (inside.f_blocks - inside.f_bfree) * inside.f_frsize
        coming = max(0, used - image.st_blocks * 512)
        free = outside.f_bavail * outside.f_frsize
        if free - coming < RESERVE:
            return f"the disk that holds interactd's data is full ({max(0, free - coming) >> 20} MB are left)"
        return None
