"""What a deleted session leaves outside of the database: environments that were made for it, copies of agents.

They are noted in the transaction that deletes the session and taken off the note when they are gone, so that a crash
in between forgets none.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any, Final

from interactd.nouns import Json
from interactd.store.sqlite.queries import rows, sessions

_NAME: Final = "store.leftovers"


def note(connection: sqlite3.Connection, id: str) -> None:
    """Note what the session used and perhaps nobody else does; called while its rows are there."""
    row = connection.execute("SELECT environment, agent_pins FROM sessions WHERE id = ?", (id,)).fetchone()
    where: Any = rows.load(row[0])
    used = {where} if isinstance(where, str) else set[str]()
    of_turns = connection.execute(
        "SELECT DISTINCT environment_id FROM interactions WHERE session_id = ? AND environment_id IS NOT NULL", (id,)
    )
    used |= {one[0] for one in of_turns}
    # A daemon that died before its turn had the new environment leaves one that no row of the session names.
    made = connection.execute("SELECT id FROM environments WHERE json_extract(body, '$.made_for') = ?", (id,))
    used |= {one[0] for one in made}
    made_for_turns = [one for one in sorted(used) if _made_for_turns(connection, one)]
    hashes = sorted(set(rows.texts(row[1]).values()))
    if made_for_turns or hashes:
        _write(connection, {**read(connection), id: {"environments": made_for_turns, "agents": hashes}})


def read(connection: sqlite3.Connection) -> dict[str, Json]:
    """What is noted: session id -> `{"environments": [...], "agents": [...]}`."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_NAME,)).fetchone()
    return {} if row is None else rows.load(row[0])


def unused(connection: sqlite3.Connection) -> dict[str, Json]:
    """As `read`, for sessions that are gone, without what a session that is there refers to."""
    out: dict[str, Json] = {}
    for id, noted in read(connection).items():
        if connection.execute("SELECT 1 FROM sessions WHERE id = ?", (id,)).fetchone() is None:
            out[id] = {
                "environments": [one for one in noted["environments"] if not _used(connection, "environment", one)],
                "agents": [one for one in noted["agents"] if not _used(connection, "agent_pins", one)],
            }
    return out


def settle(connection: sqlite3.Connection, id: str, removed: dict[str, int]) -> None:
    """Take a session off the note, and add to its receipt what went."""
    left = {other: noted for other, noted in read(connection).items() if other != id}
    if left:
        _write(connection, left)
    else:
        connection.execute("DELETE FROM settings WHERE name = ?", (_NAME,))
    amend(connection, id, removed)


def amend(connection: sqlite3.Connection, id: str, removed: dict[str, int]) -> None:
    """Add to a deleted session's receipt."""
    receipt = sessions.receipt(connection, id)
    if receipt is not None and any(removed.values()):
        for name, count in removed.items():
            if count:
                receipt.removed[name] = receipt.removed.get(name, 0) + count
        plain = dataclasses.asdict(receipt)
        connection.execute("UPDATE tombstones SET receipt = ? WHERE id = ?", (rows.dump(plain), rows.exact(id)))


def pinned(connection: sqlite3.Connection) -> set[str]:
    """The hashes of all agents that some session pins or an open turn runs with."""
    found = connection.execute("SELECT agent_pins FROM sessions WHERE agent_pins IS NOT NULL")
    pins = {hash for row in found for hash in rows.texts(row[0]).values()}
    noted = connection.execute(
        "SELECT agent_hash FROM interactions WHERE agent_hash IS NOT NULL"
        " AND status IN ('queued', 'in_progress', 'requires_action')"
    )
    return pins | {row[0] for row in noted}


def _made_for_turns(connection: sqlite3.Connection, id: str) -> bool:
    row = connection.execute("SELECT body FROM environments WHERE id = ? AND status = 'active'", (id,)).fetchone()
    return row is not None and "made_for" in rows.texts(row[0])


def _used(connection: sqlite3.Connection, column: str, text: str) -> bool:
    # Ids and hashes have no character that LIKE or JSON would read as anything else, but for the underscore.
    found = connection.execute(f"SELECT 1 FROM sessions WHERE {column} LIKE ? LIMIT 1", (f'%"{text}"%',)).fetchone()
    return found is not None


def _write(connection: sqlite3.Connection, noted: dict[str, Json]) -> None:
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (_NAME, rows.dump(noted)))
