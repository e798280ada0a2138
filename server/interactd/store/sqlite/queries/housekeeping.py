"""What is noted of the housekeeping that a delete leaves to be done (`removal` does it)."""

from __future__ import annotations

import sqlite3
from typing import Final

from interactd.store.sqlite.queries import rows

DUE: Final = "store.removal_due"
"""The setting that names its stage: entries, merge, merging, vacuum, truncate."""


def set_due(connection: sqlite3.Connection, stage: str) -> None:
    """Note the stage that comes next."""
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (DUE, rows.dump(stage)))


def rewrite_due(connection: sqlite3.Connection) -> None:
    """Note that unused parts of pages hold what was deleted. What is noted already ends with the same, but for the last
    stage, which comes after it."""
    connection.execute(
        "INSERT INTO settings (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value = ?",
        (DUE, rows.dump("vacuum"), rows.dump("truncate")),
    )
