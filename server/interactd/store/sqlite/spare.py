"""A little room that is kept free for the day when the disk is full.

What was accepted must be finished, and what is there must be deletable, also then; both write. So a file of some
megabytes lies beside the database and holds nothing: it goes when the database finds no room, and comes back with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from interactd.store.sqlite.connect import free_bytes

log = logging.getLogger(__name__)

BYTES: Final = 4 << 20
LEAST_FREE: Final = 1 << 20
"""With less than this beside the spare room, new work is refused."""
_LOOK_EVERY_S: Final = 0.5


class Spare:
    """The file, and whether new work may come in. For any thread."""

    def __init__(self, database: Path) -> None:
        self.file = database.with_name("spare")
        self._lock = threading.Lock()
        self._held = False
        self._looked_at = -_LOOK_EVERY_S
        self._room = True
        self._given_up = False

    @property
    def held(self) -> bool:
        return self._held

    def take(self) -> bool:
        """Make the file if there is room for it and for some work besides; returns whether it is there."""
        with self._lock:
            self._held = self._take()
            self._given_up = self._given_up and not self._held
            return self._held

    def _take(self) -> bool:
        try:
            if self.file.stat().st_size == BYTES:
                return True
        except OSError:
            pass
        if free_bytes(self.file) < BYTES + LEAST_FREE:
            return False
        try:
            fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, BYTES)
                else:
                    os.write(fd, b"\0" * BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            log.debug("no spare room could be taken: %s", error)
            with contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> bool:
        """Give the room to whoever must write; returns whether there was any."""
        with self._lock:
            try:
                self.file.unlink()
            except OSError:
                self._held = False
                return False
            self._held = False
            self._given_up = True
            self._looked_at = time.monotonic()
            self._room = False
            log.warning("the disk is full; the spare room beside the database is given up to finish what runs")
            return True

    def has_room(self, *, afresh: bool = False) -> bool:
        """Whether new work may come in. Once the spare room was given up, only when it is back, which is tried twice a
        second at most, unless `afresh` or the disk has much room again.

        The free space itself is asked for each time (microseconds): in half a second a fast disk takes the last of it.
        """
        free, now = free_bytes(self.file), time.monotonic()
        # A disk that was full just now and has room again must not be called full.
        freed = not self._room and free >= BYTES + LEAST_FREE
        if not self._held and (afresh or freed or now - self._looked_at >= _LOOK_EVERY_S):
            self._looked_at = now
            self.take()
            free = free_bytes(self.file)
        self._room = (self._held or not self._given_up) and free >= LEAST_FREE
        return self._room
