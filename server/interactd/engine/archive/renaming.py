"""New ids for everything in an archive, so that it can be put beside what it was made from."""

from __future__ import annotations

from typing import Any, Final, cast

from interactd.engine.archive.checking import Index
from interactd.ids import Kind, new_id
from interactd.nouns import Json
from interactd.store.archive_port import RecordKind

_OWN: Final[dict[str, Kind]] = {
    "sessions": "session",
    "interactions": "interaction",
    "artifacts": "artifact",
    "environments": "environment",
    "triggers": "trigger",
}
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "sessions": ("id", "head", "forked_from", "forked_at", "environment"),
    "interactions": ("id", "session_id", "previous_interaction_id", "parent_id", "environment_id"),
    "steps": ("interaction_id",),
    "artifacts": ("id", "interaction_id"),
    "captures": ("interaction_id", "environment_id"),
    "environments": ("id", "forked_from"),
    "requests": ("interaction_id",),
    "ledger": (),
    "spent": (),
    "triggers": ("id", "session_id", "environment_id"),
}
"""What turns cost never comes in under other ids: a copy was not paid for."""


class Renaming:
    """Old ids to new ones; nothing is renamed where none were made."""

    def __init__(self, index: Index) -> None:
        self._db = index.db
        self._index = index
        self._on = False

    def begin(self) -> None:
        """Make a new id for every record. They sort as the old ones did."""
        self._on = True
        for table, kind in _OWN.items():
            pairs = ((old, new_id(kind)) for old in self._index.ids(table))
            self._db.executemany("INSERT INTO ids (old, new) VALUES (?, ?)", pairs)

    def id(self, old: str) -> str:
        """The new id of a record of the archive, or what was given."""
        if not self._on:
            return old
        row = self._db.execute("SELECT new FROM ids WHERE old = ?", (old,)).fetchone()
        return row[0] if row else old

    def record(self, kind: RecordKind, record: Json) -> Json:
        """Return a record with new ids in the places where ids stand. What is said in a turn stays as it was."""
        if not self._on:
            return record
        out = dict(record)
        for name in _FIELDS[kind]:
            if isinstance(out.get(name), str):
                out[name] = self.id(out[name])
        where: Any = out.get("environment")
        if kind == "sessions" and isinstance(where, dict) and "from_environment" in where:
            body = cast("Json", where)
            out["environment"] = {**body, "from_environment": self.id(str(body["from_environment"]))}
        body = cast("Json", out.get("body") or {})
        if kind == "environments" and isinstance(body.get("made_for"), str):
            out["body"] = {**body, "made_for": self.id(body["made_for"])}
        if kind == "triggers":
            work = cast("Json", out["work"])
            names = [name for name in ("session", "environment") if isinstance(work.get(name), str)]
            out["work"] = work | {name: self.id(work[name]) for name in names}
        return out

    def mapping(self, table: str) -> dict[str, str]:
        """Old id to new id of all records of a table."""
        if not self._on:
            return {}
        found = self._db.execute(f"SELECT i.old, i.new FROM {table} t JOIN ids i ON i.old = t.id ORDER BY i.old")
        return dict(found.fetchall())
