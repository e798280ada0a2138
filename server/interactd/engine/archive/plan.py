"""What of a checked archive comes in: under which ids, beside what is here, and with which changes.

Changes are these: a turn that was queued or in progress is cancelled, since nobody runs it here, and what was set aside
for it counts as spent; a session whose time is over gets its time to live anew; an environment likewise; a trigger is
paused, so that nothing runs here that nobody here has asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from interactd.engine.archive.checking import Index
from interactd.engine.archive.layout import Manifest
from interactd.engine.archive.opening import Opened
from interactd.engine.archive.renaming import Renaming
from interactd.errors import Conflict
from interactd.nouns import Json
from interactd.store.archive_port import Archive, RecordKind

_PIECE: Final = 200
_SHOWN: Final = 5


@dataclass(slots=True)
class Plan:
    """The records to write, in the order in which they can be."""

    index: Index
    renaming: Renaming
    manifest: Manifest
    owner: str
    now: float
    new: list[str] = field(default_factory=list[str])
    """Sessions of the archive (their old ids) that are not here."""
    skipped_environments: set[str] = field(default_factory=set[str])
    skipped_triggers: set[str] = field(default_factory=set[str])
    as_new: bool = False
    restored: list[str] = field(default_factory=list[str])
    _moved: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def turn(self, record: Json) -> Json:
        """An interaction as it is imported."""
        if record["status"] in ("queued", "in_progress"):
            was = record["status"].replace("_", " ")
            record = {name: value for name, value in record.items() if name != "pending"} | {
                "status": "cancelled",
                "finished_at": self.manifest.created_at,
                "error": {
                    "code": "exported_while_open",
                    "message": f"This turn was {was} when it was exported; what it had made by then is kept.",
                    "repair": "Send the turn again.",
                },
            }
        return self.renaming.record("interactions", record)

    def interactions(self) -> Iterator[Json]:
        """Those that are not here, each after the one that it goes on from."""
        for record in self.index.records("interactions", "skipped = 0 ORDER BY depth, id"):
            yield self.turn(record)

    def step(self, record: Json) -> Json | None:
        """A step as it is imported; None for one of a turn that is here."""
        return None if self._is_here(record["interaction_id"]) else self.renaming.record("steps", record)

    def belongings(self, kind: RecordKind) -> Iterator[Json]:
        """Artifacts, captures or requests of the turns that come in."""
        for record in self.index.records(kind):
            if not self._is_here(record["interaction_id"]):
                yield self.renaming.record(kind, record)

    def ledger(self) -> Iterator[Json]:
        """What the turns that come in have cost; nothing for copies under new ids, which cost nothing."""
        for record in () if self.as_new else self.index.records("ledger"):
            if not self._is_here(record["interaction_id"]):
                yield _settled(record, self.manifest.created_at)

    def spent(self) -> Iterator[Json]:
        """The totals of the turns and sessions that come in."""
        new = set(self.new)
        for record in () if self.as_new else self.index.records("spent"):
            if record["key"] in new or (record["scope"] == "interaction" and not self._is_here(record["key"])):
                yield _no_longer_held(record)

    def triggers(self) -> Iterator[Json]:
        """The triggers that come in."""
        for record in self.index.records("triggers"):
            if record["id"] in self.skipped_triggers:
                continue
            if record["status"] == "active":
                record |= {"status": "paused", "last_pause_at": self.manifest.created_at}
            record.pop("next_run_at", None)
            yield self.renaming.record("triggers", record)

    def contents(self) -> list[str]:
        """Hashes of the contents that come in."""
        found = self.index.db.execute(
            "SELECT DISTINCT a.sha256 FROM artifacts a JOIN interactions i ON i.id = a.interaction_id"
            " WHERE i.skipped = 0 ORDER BY a.sha256"
        )
        return [row[0] for row in found]

    def sessions(self) -> Iterator[Json]:
        """The sessions that come in."""
        wanted = set(self.new)
        for record in self.index.records("sessions"):
            if record["id"] in wanted:
                ttl: float | None = record.get("ttl_s")
                if record.get("expires_at") is not None and record["expires_at"] <= self.now:
                    record["expires_at"] = self.now + (ttl or 86_400.0)
                yield self.renaming.record("sessions", record)

    def environments(self, keep_s: float) -> Iterator[tuple[str, Json]]:
        """The environments that come in, with their old ids."""
        for record in self.index.records("environments"):
            if record["id"] not in self.skipped_environments:
                if record["expires_at"] <= self.now:
                    record["expires_at"] = self.now + keep_s
                yield record["id"], self.renaming.record("environments", record)

    def moved(self) -> list[tuple[str, str]]:
        """Turns that are here under a fork and go back to the session that they were made in, now that it is here."""
        wanted = set(self.new)
        return [(id, session_id) for id, session_id in self._moved if session_id in wanted]

    def counts(self) -> dict[str, int]:
        """How many records come in, by kind."""
        one = self.index.db.execute
        turns, steps = one("SELECT count(*), coalesce(sum(steps), 0) FROM interactions WHERE skipped = 0").fetchone()
        files = one(
            "SELECT count(*) FROM artifacts a JOIN interactions i ON i.id = a.interaction_id WHERE i.skipped = 0"
        ).fetchone()[0]
        places = len(self.index.ids("environments")) - len(self.skipped_environments)
        return {
            "sessions": len(self.new),
            "interactions": turns,
            "steps": steps,
            "artifacts": files,
            "environments": places,
            "triggers": len(self.index.ids("triggers")) - len(self.skipped_triggers),
        }

    def notes(self, archive: Opened) -> list[str]:
        """What somebody should know of what comes in."""
        out: list[str] = []
        opened = self.index.db.execute(
            "SELECT count(*) FROM interactions WHERE skipped = 0 AND status IN ('queued', 'in_progress')"
        ).fetchone()[0]
        if opened:
            out.append(f"{opened} turns were not done when they were exported; they come in as cancelled")
        withheld: set[str] = set()
        bare = folders = 0
        for old, record in self.environments(1.0):
            bare += f"environments/{old}.tar" not in archive.members
            withheld |= _withheld(record.get("body"))
        for record in self.sessions():
            where = record.get("environment")
            withheld |= _withheld(where)
            folders += _takes_local_folders(where)
        for record in self.triggers():
            where = record["work"].get("environment")
            withheld |= _withheld(where)
            folders += _takes_local_folders(where)
        if withheld:
            out.append(f"values that are not in the archive and have to be given again: {', '.join(sorted(withheld))}")
        if bare:
            out.append(f"{bare} environments come in without their files")
        if folders:
            out.append(f"{folders} sessions or triggers will copy or show folders of this machine to their agent")
        if triggers := self.counts()["triggers"]:
            out.append(f"{triggers} triggers come in paused: nothing runs before somebody resumes them")
        if self.restored:
            out.append(f"{len(self.restored)} sessions that were deleted or had expired here come back")
        return out

    def _is_here(self, id: str) -> bool:
        row = self.index.db.execute("SELECT skipped FROM interactions WHERE id = ?", (id,)).fetchone()
        return bool(row[0])

    def note_moved(self, id: str, session_id: str) -> None:
        self._moved.append((id, session_id))


def make(index: Index, renaming: Renaming, manifest: Manifest, owner: str, now: float, *, as_new: bool) -> Plan:
    """Return a plan in which everything comes in."""
    return Plan(index, renaming, manifest, owner, now, new=index.ids("sessions"), as_new=as_new)


async def compare(wanted: Plan, store: Archive, *, restore: bool) -> None:
    """Leave out what is here and equal.

    Raises:
        Conflict: something is here and differs, or was deleted here and is not to be restored.
    """
    if wanted.as_new:
        return
    different: dict[str, str] = {}
    gone: dict[str, str] = {}
    here: set[str] = set()
    for kind in ("sessions", "interactions", "environments", "triggers"):
        for piece in _pieces(wanted, kind):
            found = await store.compare(cast("Any", kind), piece)
            different |= found.different
            gone |= found.gone
            if kind == "sessions":
                here |= found.same
            elif kind == "environments":
                wanted.skipped_environments |= found.same
            elif kind == "triggers":
                wanted.skipped_triggers |= found.same
            else:
                rows = [(id,) for id in found.same]
                wanted.index.db.executemany("UPDATE interactions SET skipped = 1 WHERE id = ?", rows)
                for record, _ in piece:
                    if record["id"] in found.moved:
                        wanted.note_moved(record["id"], record["session_id"])
    _refuse(different, gone, restore=restore)
    execute = wanted.index.db.execute
    wanted.index.db.executemany("UPDATE sessions SET skipped = 1 WHERE id = ?", [(id,) for id in sorted(here)])
    wanted.new = [row[0] for row in execute("SELECT id FROM sessions WHERE skipped = 0 ORDER BY id")]
    wanted.restored = sorted(id for id in gone if id.startswith("ses_"))
    # A turn of a session that is here would be seen before the rest; and how could it be missing?
    row = execute(
        "SELECT i.id, i.session_id FROM interactions i JOIN sessions s ON s.id = i.session_id"
        " WHERE i.skipped = 0 AND s.skipped = 1 ORDER BY i.line LIMIT 1"
    ).fetchone()
    if row is not None:
        _refuse({row[1]: f"turn {row[0]}"}, {}, restore=restore)


def _refuse(different: dict[str, str], gone: dict[str, str], *, restore: bool) -> None:
    if different:
        shown = ", ".join(f"{id} ({name})" for id, name in sorted(different.items())[:_SHOWN])
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise Conflict(
            f"what is here differs from the archive: {shown}{more}; nothing was imported",
            repair="Import it with as_new (--as-new) to have both, or delete the sessions here first.",
            different=sorted(different)[:100],
        )
    if gone and not restore:
        ids = sorted(gone, key=lambda id: (not id.startswith("ses_"), id))
        shown = ", ".join(f"{id} ({gone[id]})" for id in ids[:_SHOWN])
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        raise Conflict(
            f"the archive has what was deleted or had expired here: {shown}{more}; nothing was imported",
            repair="Import it with restore (--restore) to bring it back, or with as_new (--as-new) under new ids.",
            gone=ids[:100],
        )


def _pieces(wanted: Plan, kind: str) -> Iterator[list[tuple[Json, bytes | None]]]:
    digests = kind == "interactions"
    query = (
        "SELECT i.record, d.digest FROM interactions i JOIN digests d ON d.id = i.id ORDER BY i.line"
        if digests
        else f"SELECT record, NULL FROM {kind} ORDER BY line"
    )
    found = wanted.index.db.execute(query)
    while rows := found.fetchmany(_PIECE):
        piece: list[tuple[Json, bytes | None]] = []
        for text, digest in rows:
            record: Json = json.loads(text)
            piece.append((wanted.turn(record) if digests else record, digest))
        yield piece


def _settled(line: Json, at: float) -> Json:
    """A line of the ledger whose call or attempt was under way: it will never be heard of here."""
    if line["state"] != "reserved":
        return line
    if line["kind"] == "time":
        return {**line, "state": "settled", "reserved_ms": 0, "ended_at": at}
    worst: Json = {"state": "unknown", "ended_at": at, "tokens": line["reserved_tokens"]}
    return {**line, **worst, **({"cost_nano": line["reserved_nano"]} if "reserved_nano" in line else {})}


def _no_longer_held(total: Json) -> Json:
    """A total in which nothing is set aside any more: at its worst it was spent."""
    nano, tokens, steps = total["held_nano"], total["held_tokens"], total["held_steps"]
    return {
        **total,
        "nano": total["nano"] + nano,
        "unsure_nano": total["unsure_nano"] + nano,
        "tokens": total["tokens"] + tokens,
        "steps": total["steps"] + steps,
        "held_nano": 0,
        "held_tokens": 0,
        "held_steps": 0,
        "held_ms": 0,
    }


def _withheld(body: Any) -> set[str]:
    given: Json = cast("Json", body).get("withheld") or {} if isinstance(body, dict) else {}
    names: list[str] = given.get("env") or []
    domains: list[str] = given.get("transform") or []
    return set(names) | {f"headers for {one}" for one in domains}


def _takes_local_folders(body: Any) -> bool:
    if not isinstance(body, dict):
        return False
    sources: Any = cast("Json", body).get("sources")
    if not isinstance(sources, list):
        return False
    return any(isinstance(one, dict) and cast("Json", one).get("type") == "local" for one in cast("list[Any]", sources))
