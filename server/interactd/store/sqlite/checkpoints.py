"""Checkpoints in a thread of their own: PASSIVE while turns come in, TRUNCATE when they stop.

Inside a commit, where SQLite does them by itself, they hold up a turn for up to a quarter of a second.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Final

from interactd.store.sqlite.connect import connect

log = logging.getLogger(__name__)

EVERY_S: Final = 0.25
IDLE_ROUNDS: Final = 4
WAL_LIMIT_BYTES: Final = 64 << 20
"""A longer WAL is begun anew even while turns come in, which holds them up once."""


class Checkpointer:
    """Moves committed pages from the WAL to the database file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = path.with_name(path.name + "-wal")
        self._writes = 0
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interactd-store-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wrote(self) -> None:
        """Note a commit. Called on the writer's thread, so it does next to nothing."""
        self._writes += 1
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = 10.0) -> None:
        """End the thread. Blocks."""
        self._end.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while not self._end.is_set():
                self._wake.wait()
                self._wake.clear()
                if connection is None:
                    connection = self._connect()
                if connection is not None:
                    self._until_idle(connection)
        finally:
            if connection is not None:
                connection.close()

    def _connect(self) -> sqlite3.Connection | None:
        """Open our own connection; None when told to end first."""
        while not self._end.is_set():
            try:
                return connect(self.path, busy_s=0.0)
            except sqlite3.Error as error:
                # Even its settings read the file: somebody may hold it, no descriptor or disk space may be left.
                log.debug("checkpoints wait for the database: %s", error)
                self._end.wait(EVERY_S)
        return None

    def _until_idle(self, connection: sqlite3.Connection) -> None:
        seen, idle = -1, 0
        while not self._end.wait(EVERY_S * min(1 + idle // (4 * IDLE_ROUNDS), 120)):
            idle = idle + 1 if self._writes == seen else 0
            seen = self._writes
            try:
                if idle >= IDLE_ROUNDS:
                    if _checkpoint(connection, "TRUNCATE"):
                        return
                elif idle <= 1:
                    _checkpoint(connection, "PASSIVE")
                    if self._wal.exists() and self._wal.stat().st_size > WAL_LIMIT_BYTES:
                        connection.execute("PRAGMA busy_timeout = 200")
                        _checkpoint(connection, "TRUNCATE")
                        connection.execute("PRAGMA busy_timeout = 0")
            except (sqlite3.Error, OSError) as error:
                # The WAL keeps everything until the next round; a full disk is told to whoever writes.
                log.debug("checkpoint put off: %s", error)


def _checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Run one; False when somebody still reads or writes what it would move."""
    return connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0] == 0


def truncate(connection: sqlite3.Connection) -> bool:
    """Move everything and cut the WAL file to nothing; False when another connection is in the way."""
    return _checkpoint(connection, "TRUNCATE")
