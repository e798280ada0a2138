"""The first connection to a store's file: made, looked over, and brought to this version's schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from interactd.errors import StorageError
from interactd.store.sqlite import connect, migrations

CHECKED_AT_OPEN_BYTES: Final = 8 << 20
"""A file up to this size is checked for damage when it is opened (about 10 ms); a larger one when it is read."""


def prepared(file: Path, take_spare: Callable[[], bool]) -> sqlite3.Connection:
    """Return a connection to write with. Blocking. `take_spare` sets room aside for the moment when the disk is full.

    Raises:
        StorageError: the file is damaged, of a newer version, or cannot be written.
    """
    connection: sqlite3.Connection | None = None
    try:
        connect.make_file(file)
        connection = connect.connect(file, busy_s=30.0)
        migrations.version(connection, file)
        if file.stat().st_size <= CHECKED_AT_OPEN_BYTES:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise connect.damaged(file, verdict)
        connect.use_wal(connection, file)
        migrations.migrate(connection, file)
        connection.execute("PRAGMA busy_timeout = 1000")
        take_spare()
    except (sqlite3.Error, OSError, StorageError) as error:
        if connection is not None:
            connection.close()
        raise connect.translate(error, file) from error
    return connection
