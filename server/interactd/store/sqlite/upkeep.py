"""What the writer does when nothing waits: fill the full-text index, and finish what a delete began."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from interactd.store.sqlite import connect
from interactd.store.sqlite.checkpoints import truncate
from interactd.store.sqlite.queries import arrival, removal, search
from interactd.store.sqlite.writer import Chore, Work, Writer

log = logging.getLogger(__name__)
T = TypeVar("T")

VACUUM_AT_ONCE_BYTES: Final = 32 << 20
"""A file up to this size is rewritten while the delete waits; a larger one when the store is idle."""
VACUUM_QUIET_S: Final = 2.0
WORTHWHILE_BYTES: Final = 16 << 20
"""The file is rewritten for its own sake when this much of it, and a quarter, holds nothing."""
IN_MEMORY_BYTES: Final = 64 << 20
"""A larger file is copied through the disk while it is rewritten, not through memory."""
CLEAR_WAIT_S: Final = 10.0
"""How long a delete waits for the housekeeping that follows it; the rest goes on in idle times."""
_TRUNCATE_TRIES: Final = 5


class Write(Protocol):
    """The store's writer."""

    async def __call__(self, run: Work[T], *, bare: bool = False) -> T: ...


class Upkeep:
    """Chores for a `Writer`, and the same work for a caller who waits for it."""

    def __init__(self, path: Path, is_busy: Callable[[], bool]) -> None:
        self.path = path
        self._is_busy = is_busy
        self.chores = [
            Chore(search.index_piece),
            Chore(removal.resume),
            Chore(arrival.undo_piece),
            Chore(removal.clear_piece),
            Chore(self._rewrite_when_idle, bare=True, after_s=VACUUM_QUIET_S),
        ]

    async def clear(self, writer: Writer) -> None:
        """Leave nothing in the files of what was deleted, as far as that can be done while somebody waits."""
        deadline = time.monotonic() + CLEAR_WAIT_S
        while time.monotonic() < deadline:
            if await writer.submit(removal.clear_piece):
                continue
            if not await writer.submit(self._rewrite_if_small, bare=True):
                return

    async def vacuum(self, write: Write) -> None:
        """Rewrite the file now, whoever waits; what a delete left to be done comes before it."""
        while await write(removal.clear_piece):
            pass
        await write(self._rewrite, bare=True)

    def _rewrite_if_small(self, connection: sqlite3.Connection) -> bool:
        """Returns whether a delete came in between, so that it begins again."""
        due = removal.due(connection)
        if due is None:
            return False
        if due not in ("vacuum", "truncate"):
            return True
        if due == "vacuum" and self.path.stat().st_size <= VACUUM_AT_ONCE_BYTES:
            self._rewrite(connection)
        else:
            _truncate(connection)
        return False

    def _rewrite_when_idle(self, connection: sqlite3.Connection) -> bool:
        """Returns whether it has to be tried again: a turn came in."""
        if removal.due(connection) == "truncate":
            return not _truncate(connection, tries=1)
        if removal.due(connection) != "vacuum" and not _worthwhile(connection):
            return False
        if connect.free_bytes(self.path) < connect.room_for_vacuum(self.path):
            return False
        # In this thread, between two steps of the VACUUM: it gives way to whoever wants to write.
        connection.set_progress_handler(self._is_busy, 10_000)
        try:
            self._rewrite(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return True
        finally:
            connection.set_progress_handler(None, 0)
        return False

    def _rewrite(self, connection: sqlite3.Connection) -> None:
        began = time.monotonic()
        large = self.path.stat().st_size > IN_MEMORY_BYTES
        if large:
            # SQLite asks for this each time; its own choice, /var/tmp or /tmp, may be small, or another's.
            os.environ["SQLITE_TMPDIR"] = str(self.path.parent)
            connection.execute("PRAGMA temp_store = FILE")
        try:
            connection.execute("VACUUM")
        finally:
            if large:
                connection.execute("PRAGMA temp_store = MEMORY")
        if removal.due(connection) in (None, "vacuum"):
            removal.vacuumed(connection)
        _truncate(connection)
        log.debug("rewrote the database in %.0f ms", (time.monotonic() - began) * 1000)


def _worthwhile(connection: sqlite3.Connection) -> bool:
    empty, pages, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count", "page_size")
    )
    return empty * size >= WORTHWHILE_BYTES and empty * 4 >= pages


def _truncate(connection: sqlite3.Connection, tries: int = _TRUNCATE_TRIES) -> bool:
    # The checkpoint thread or a reader can be in the way for a moment; later it is done when the store is idle.
    for attempt in range(tries):
        if truncate(connection):
            if removal.due(connection) == "truncate":
                removal.truncated(connection)
            return True
        time.sleep(0.01 * 2**attempt)
    return False
