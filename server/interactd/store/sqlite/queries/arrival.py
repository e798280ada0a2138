"""Rows of an import: put in piece by piece where nobody sees them, and shown all at once.

A turn without a session is found by nothing: lists, searches and reads go through sessions. So the turns come first,
the sessions last, in one transaction that also ends the journal. What has a journal and no end is removed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from interactd.errors import Conflict
from interactd.nouns import Json
from interactd.store.archive_port import BadRecord, Journal, Last, RecordKind
from interactd.store.sqlite.queries import archive as codec
from interactd.store.sqlite.queries import pieces, requests, rows
from interactd.store.sqlite.queries.housekeeping import set_due
from interactd.store.sqlite.queries.money import carrying
from interactd.store.sqlite.queries.turns import skip

_JOURNAL: Final = "archive.import"
_PARENT: Final = (
    "SELECT p.depth, p.skip_depth, s.skip_id, s.skip_depth, p.session_id"
    " FROM interactions p JOIN interactions s ON s.id = p.skip_id WHERE p.id = ?"
)


def begin(connection: sqlite3.Connection, journal: Journal) -> None:
    """Raises: Conflict: another import is under way."""
    there = _read(connection)
    if there is not None:
        raise Conflict(
            "another import is under way, or being undone",
            repair="Wait until it is done, then make the same call again.",
            import_id=there["id"],
        )
    note = {"id": journal.id, "sessions": journal.sessions, "started_at": journal.started_at, "runner": journal.runner}
    _write(connection, note)


def check(connection: sqlite3.Connection, journal: Journal) -> None:
    """Raises: Conflict: the journal is not there any more, or not this import's."""
    there = _read(connection)
    if there is None or there["id"] != journal.id or there.get("condemned"):
        raise Conflict(
            "the import was given up by another daemon; nothing of it is kept",
            repair="Make the same call again.",
            import_id=journal.id,
        )


def insert(connection: sqlite3.Connection, kind: RecordKind, records: Sequence[Json]) -> None:
    """Insert turns or what belongs to them; turns after those they go on from."""
    known = codec.columns(connection, kind)
    try:
        for record in records:
            made = codec.values(kind, known, record)
            if kind == "interactions":
                made |= _place(connection, record)
            elif kind == "ledger":
                # Nobody's until the end: reports add up an owner's lines, whatever session they are of.
                made["owner"] = ""
            # A total without its turn or session is a left-over.
            _insert(connection, kind, made, replace=kind == "spent")
    except sqlite3.IntegrityError as error:
        raise BadRecord(f"{kind}: {error}") from error


def finish(connection: sqlite3.Connection, last: Last, owner: str) -> None:
    """Show everything, and forget the journal."""
    for id in last.restored:
        connection.execute("DELETE FROM tombstones WHERE session_id = ?", (id,))
    known = codec.columns(connection, "sessions")
    try:
        for record in last.sessions:
            _insert(connection, "sessions", {**codec.values("sessions", known, record), "owner": owner})
    except sqlite3.IntegrityError as error:
        raise BadRecord(f"sessions: {error}") from error
    of_places = codec.columns(connection, "environments")
    for record in last.environments:
        made = {**codec.values("environments", of_places, record), "owner": owner, "status": "active"}
        _insert(connection, "environments", made, replace=True)
    of_triggers = codec.columns(connection, "triggers")
    for record in last.triggers:
        _insert(connection, "triggers", {**codec.values("triggers", of_triggers, record), "owner": owner})
    for record in last.sessions:
        carrying.show(connection, record["id"], owner)
    for id in last.restored:
        carrying.unfold(connection, id)
    for id, session_id in last.moved:
        carrying.move(connection, id, session_id)
        connection.execute("UPDATE interactions SET session_id = ? WHERE id = ?", (session_id, id))
    if last.moved:
        _cross_anew(connection)
    connection.execute("DELETE FROM settings WHERE name = ?", (_JOURNAL,))


def condemn(connection: sqlite3.Connection, journal_id: str | None, living: frozenset[str] = frozenset()) -> bool:
    """Give the import up; returns whether there was one: with this id, or of nobody who is living."""
    there = _read(connection)
    if there is None or (journal_id is not None and there["id"] != journal_id):
        return False
    runner = there.get("runner")
    # One that an earlier version noted may be anybody's.
    if journal_id is None and living and (runner is None or runner in living):
        return False
    _write(connection, {**there, "condemned": True})
    return True


def undo_piece(connection: sqlite3.Connection) -> bool:
    """Remove a little of a given-up import; returns whether there is more."""
    there = _read(connection)
    if there is None or not there.get("condemned"):
        return False
    left: list[str] = there["sessions"]
    while left:
        # One that came to be by other means is not the import's.
        mine = connection.execute("SELECT 1 FROM sessions WHERE id = ?", (left[-1],)).fetchone() is None
        if mine:
            carrying.drop(connection, left[-1])
            requests.drop(connection, left[-1], 0)
        if mine and pieces.remove_some(connection, left[-1]):
            _write(connection, {**there, "sessions": left})
            return True
        left.pop()
    connection.execute("DELETE FROM settings WHERE name = ?", (_JOURNAL,))
    set_due(connection, "entries")
    return False


def _place(connection: sqlite3.Connection, record: Json) -> dict[str, Any]:
    """The columns that say where a turn is in the tree."""
    id, previous = record["id"], record.get("previous_interaction_id")
    if previous is None:
        return {"crosses": 0, "skip_id": id, "skip_depth": 1}
    parent = connection.execute(_PARENT, (previous,)).fetchone()
    if parent is None:
        raise BadRecord(f"interaction {id}: the one it goes on from, {previous}, is not there")
    depth, skip_id, skip_depth = skip(previous, parent)
    if depth != record["depth"]:
        raise BadRecord(f"interaction {id}: depth is {record['depth']}, expected {depth}")
    return {"crosses": int(parent[4] != record["session_id"]), "skip_id": skip_id, "skip_depth": skip_depth}


def _insert(connection: sqlite3.Connection, table: str, made: dict[str, Any], *, replace: bool = False) -> None:
    # Columns that are not given keep their defaults: those of a later schema too.
    given = {name: value for name, value in made.items() if value is not None}
    names, marks = ", ".join(given), ", ".join("?" * len(given))
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    connection.execute(f"{verb} INTO {table} ({names}) VALUES ({marks})", tuple(given.values()))


def _cross_anew(connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE interactions SET crosses = 1 - crosses WHERE previous_interaction_id IS NOT NULL AND crosses <>"
        " (SELECT p.session_id <> interactions.session_id FROM interactions p"
        " WHERE p.id = interactions.previous_interaction_id)"
    )


def _read(connection: sqlite3.Connection) -> Json | None:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (_JOURNAL,)).fetchone()
    return None if row is None else rows.load(row[0])


def _write(connection: sqlite3.Connection, note: Json) -> None:
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (_JOURNAL, rows.dump(note)))
