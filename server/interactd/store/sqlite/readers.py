"""Readers: a few threads, each with a connection of its own, so that a long search holds up nobody's turn."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from interactd.errors import Overloaded, StorageError
from interactd.store.sqlite.connect import connect, translate

T = TypeVar("T")

THREADS: Final = 3
WAITING: Final = 32_768
BUSY_S: Final = 10.0


class Readers:
    """Runs read jobs, each in one snapshot of the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="interactd-store-reader")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._waiting = 0
        self._closed = False

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `run` returns; all its statements see the same state.

        Raises:
            Overloaded: too many reads are waiting.
            StorageError: the database cannot be read.
        """
        if self._closed:
            raise StorageError("the store is closed", repair="Make the call again: the daemon is restarting.")
        if self._waiting >= WAITING:
            raise Overloaded(
                f"{self._waiting} reads are waiting",
                repair="Make the same call again in a few seconds, and fewer at once.",
            )
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._run, run)
        future.add_done_callback(self._done)
        return await future

    def _done(self, _: object) -> None:
        self._waiting -= 1

    def _run(self, run: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = connect(self.path, busy_s=BUSY_S, read_only=True)
                with self._lock:
                    self._connections.append(connection)
            connection.execute("BEGIN")
            try:
                return run(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def aclose(self) -> None:
        """Stop running reads and close the connections."""
        self._closed = True
        with self._lock:
            for connection in self._connections:
                connection.interrupt()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        for connection in self._connections:
            connection.close()
