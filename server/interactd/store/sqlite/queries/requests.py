"""What runs asked of the network: kept with their interactions, and gone with them."""

from __future__ import annotations

import sqlite3

from interactd.nouns import Json
from interactd.store.sqlite.queries import rows


def add(connection: sqlite3.Connection, interaction_id: str, entries: str) -> None:
    """Keep what one attempt asked for. Of an interaction that is gone meanwhile nothing is kept."""
    connection.execute(
        "INSERT INTO requests (interaction_id, entries) SELECT id, ? FROM interactions WHERE id = ?",
        (entries, rows.exact(interaction_id)),
    )


def listed(connection: sqlite3.Connection, interaction_id: str) -> list[Json]:
    """All of an interaction's, oldest first."""
    found = connection.execute(
        "SELECT entries FROM requests WHERE interaction_id = ? ORDER BY id", (rows.exact(interaction_id),)
    )
    return [entry for row in found for entry in rows.load(row[0])]


def drop(connection: sqlite3.Connection, session_id: str, _: float) -> dict[str, int]:
    """Remove those of a session's interactions; see `removal.HOOKS`."""
    gone = connection.execute(
        "DELETE FROM requests WHERE interaction_id IN (SELECT id FROM interactions WHERE session_id = ?)", (session_id,)
    ).rowcount
    return {"request_logs": gone} if gone else {}
