"""The ledger of sessions that an archive brings in.

Its lines are put in as nobody's, and become the owner's when their sessions come to be. A session that was deleted here
is in the sums that name none: what comes back is taken out of them, or it would count twice.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.money.folding import SUMS

_KEY: Final = ("owner", "day", "agent", "provider", "model")
_SUMS: Final = (
    *("calls", "cost_nano", "unsure_nano", "unpriced", "tokens"),
    *("input", "output", "thought", "cached", "active_ms", "sandbox_ms"),
)


def show(connection: sqlite3.Connection, session_id: str, owner: str) -> None:
    """Let a session's lines count."""
    connection.execute("UPDATE ledger SET owner = ? WHERE session_id = ? AND owner = ''", (owner, session_id))


def unfold(connection: sqlite3.Connection, session_id: str) -> None:
    """Take what a session cost out of the sums of deleted ones, as far as it is in them."""
    where = " AND ".join(f"{name} = ?" for name in _KEY)
    less = ", ".join(f"{name} = max(0, {name} - ?)" for name in _SUMS)
    for row in connection.execute(SUMS, (session_id,)).fetchall():
        key, sums = row[: len(_KEY)], row[len(_KEY) :]
        connection.execute(f"UPDATE ledger_folded SET {less} WHERE {where}", (*sums, *key))
        nothing = " AND ".join(f"{name} = 0" for name in _SUMS)
        connection.execute(f"DELETE FROM ledger_folded WHERE {where} AND {nothing}", key)


def move(connection: sqlite3.Connection, interaction_id: str, session_id: str) -> None:
    """A turn goes to another session, with its lines. Called before it does."""
    connection.execute(
        "UPDATE ledger SET session_id = ?1 WHERE interaction_id = ?2"
        " AND session_id = (SELECT session_id FROM interactions WHERE id = ?2)",
        (session_id, interaction_id),
    )


def drop(connection: sqlite3.Connection, session_id: str) -> None:
    """Forget what was put in for a session that did not come to be. Called while its turns are there."""
    id = rows.exact(session_id)
    connection.execute("DELETE FROM ledger WHERE session_id = ? AND owner = ''", (id,))
    connection.execute(
        "DELETE FROM spent WHERE scope = 'interaction' AND key IN (SELECT id FROM interactions WHERE session_id = ?)",
        (id,),
    )
    connection.execute("DELETE FROM spent WHERE scope = 'session' AND key = ?", (id,))
