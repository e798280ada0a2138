"""Checking an archive whole, record by record, before anything of it is kept.

What has to be known of other records is put into a database of its own on the disk, so that an archive of a million
turns takes no more memory than one of ten.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from interactd.engine.archive.layout import jsonl, line
from interactd.engine.archive.opening import Opened, bad
from interactd.nouns import Json
from interactd.store.archive_port import BadRecord, RecordKind, digest_of_steps

_TABLES: Final = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, line INTEGER, head TEXT, turns INTEGER,
    skipped INTEGER DEFAULT 0, record TEXT) WITHOUT ROWID;
CREATE TABLE interactions (
    id TEXT PRIMARY KEY, line INTEGER, session_id TEXT, previous TEXT, depth INTEGER, steps INTEGER, status TEXT,
    skipped INTEGER DEFAULT 0, record TEXT) WITHOUT ROWID;
CREATE TABLE digests (id TEXT PRIMARY KEY, digest BLOB) WITHOUT ROWID;
CREATE INDEX by_line ON interactions (line);
CREATE INDEX by_depth ON interactions (depth, id);
CREATE TABLE artifacts (id TEXT PRIMARY KEY, line INTEGER, interaction_id TEXT, sha256 TEXT, record TEXT) WITHOUT ROWID;
CREATE TABLE captures (interaction_id TEXT PRIMARY KEY, line INTEGER, record TEXT) WITHOUT ROWID;
CREATE TABLE environments (id TEXT PRIMARY KEY, line INTEGER, record TEXT) WITHOUT ROWID;
CREATE TABLE requests (line INTEGER PRIMARY KEY, interaction_id TEXT, record TEXT);
CREATE TABLE ledger (
    id TEXT PRIMARY KEY, line INTEGER, interaction_id TEXT, session_id TEXT, record TEXT) WITHOUT ROWID;
CREATE TABLE spent (scope TEXT, key TEXT, line INTEGER, record TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID;
CREATE TABLE triggers (id TEXT PRIMARY KEY, line INTEGER, record TEXT) WITHOUT ROWID;
CREATE TABLE ids (old TEXT PRIMARY KEY, new TEXT NOT NULL) WITHOUT ROWID;
"""
_WAITING: Final = "SELECT max(line), session_id FROM interactions WHERE status = 'requires_action'"
_CIRCLE_MAX: Final = 100_000

Check = Callable[[RecordKind, Json], None]
Go = Callable[[str, int], None]


class Index:
    """The records of one archive, checked, by id."""

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "index.db", isolation_level=None, check_same_thread=False)
        # It dies with the import: nothing of it need survive anything.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = MEMORY", "cache_size = -16000"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(_TABLES)

    def close(self) -> None:
        self.db.close()

    def records(self, table: str, where: str = "1 ORDER BY line") -> Iterator[Json]:
        """Yield the records of a table."""
        for (text,) in self.db.execute(f"SELECT record FROM {table} WHERE {where}"):
            yield json.loads(text)

    def ids(self, table: str) -> list[str]:
        """All ids of a table, in order."""
        return [row[0] for row in self.db.execute(f"SELECT id FROM {table} ORDER BY id")]


def check_all(archive: Opened, index: Index, check: Check, go: Go) -> None:
    """Check every byte and record, and fill the index. Blocking.

    Raises:
        InvalidArgument: something is wrong; member and line are in the fields.
    """
    index.db.execute("BEGIN")
    for kind in ("sessions", "interactions"):
        _fill(archive, index, kind, check, go)
    _tree(index)
    _steps(archive, index, check, go)
    for kind in ("artifacts", "captures", "environments", "requests", "ledger", "spent", "triggers"):
        _fill(archive, index, kind, check, go)
    _belongings(archive, index)
    _rest(archive, go)
    index.db.execute("COMMIT")


def _fill(archive: Opened, index: Index, kind: RecordKind, check: Check, go: Go) -> None:
    name = jsonl(kind)
    for number, record, _ in archive.records(kind):
        if number % 100 == 0:
            go(kind, number)
        _hold(check, kind, record, name, number)
        try:
            _insert(index, kind, number, record)
        except sqlite3.IntegrityError:
            raise bad("its id is there twice", member=name, line=number) from None


def _hold(check: Check, kind: RecordKind, record: Json, name: str, number: int) -> None:
    try:
        check(kind, record)
    except BadRecord as error:
        raise bad(str(error), member=name, line=number) from None
    except RecursionError:
        raise bad("is nested too deep", member=name, line=number) from None


def _insert(index: Index, kind: RecordKind, number: int, record: Json) -> None:
    text = json.dumps(record)
    values: dict[str, Any] = {"line": number, "record": text}
    match kind:
        case "sessions":
            values |= {"id": record["id"], "head": record.get("head"), "turns": record["turns"]}
        case "interactions":
            values |= {name: record[name] for name in ("id", "session_id", "depth", "steps", "status")}
            values["previous"] = record.get("previous_interaction_id")
        case "artifacts":
            values |= {name: record[name] for name in ("id", "interaction_id", "sha256")}
        case "captures" | "requests":
            values["interaction_id"] = record["interaction_id"]
        case "ledger":
            values |= {name: record[name] for name in ("id", "interaction_id", "session_id")}
        case "spent":
            values |= {name: record[name] for name in ("scope", "key")}
        case _:
            values["id"] = record["id"]
    marks = ", ".join("?" * len(values))
    index.db.execute(f"INSERT INTO {kind} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _tree(index: Index) -> None:
    """Every turn has its session, the one it goes on from, and its place; every head is a turn."""
    execute = index.db.execute
    turns, heads = jsonl("interactions"), jsonl("sessions")
    row = execute(
        "SELECT line, session_id FROM interactions i WHERE NOT EXISTS"
        " (SELECT 1 FROM sessions s WHERE s.id = i.session_id) ORDER BY line LIMIT 1"
    ).fetchone()
    if row:
        raise bad(f"its session {row[1]} is not in the archive", member=turns, line=row[0])
    row = execute(
        "SELECT line, previous FROM interactions i WHERE previous IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM interactions p WHERE p.id = i.previous) ORDER BY line LIMIT 1"
    ).fetchone()
    if row:
        raise bad(f"previous_interaction_id: {row[1]} is not in the archive", member=turns, line=row[0])
    row = execute(
        "SELECT i.line, i.id, i.depth, p.depth FROM interactions i JOIN interactions p ON p.id = i.previous"
        " WHERE i.depth <> p.depth + 1 ORDER BY i.line LIMIT 1"
    ).fetchone()
    if row and _is_circle(index, row[1]):
        raise bad("previous_interaction_id: goes in a circle", member=turns, line=row[0])
    if row:
        raise bad(f"depth: is {row[2]} after one of {row[3]}", member=turns, line=row[0])
    row = execute(
        "SELECT s.line, s.head, i.depth, s.turns FROM sessions s LEFT JOIN interactions i ON i.id = s.head"
        " WHERE s.head IS NOT NULL AND (i.id IS NULL OR i.depth <> s.turns) ORDER BY s.line LIMIT 1"
    ).fetchone()
    if row and row[2] is None:
        raise bad(f"head: {row[1]} is not in the archive", member=heads, line=row[0])
    if row:
        raise bad(f"turns: is {row[3]} where the head is the turn number {row[2]}", member=heads, line=row[0])
    row = execute(f"{_WAITING} GROUP BY session_id HAVING count(*) > 1").fetchone()
    if row:
        raise bad(f"two turns of session {row[1]} wait for an answer at once", member=turns, line=row[0])


def _is_circle(index: Index, id: str) -> bool:
    current: str | None = id
    for _ in range(_CIRCLE_MAX):
        row = index.db.execute("SELECT previous FROM interactions WHERE id = ?", (current,)).fetchone()
        current = row[0] if row else None
        if current is None or current == id:
            return current is not None
    return True


def _steps(archive: Opened, index: Index, check: Check, go: Go) -> None:
    """The steps come turn by turn in the order of the turns, each numbered from 0 without a gap."""
    name = jsonl("steps")
    line_up = _LineUp(index)
    number = 0
    for number, record, _ in archive.records("steps"):
        if number % 200 == 0:
            go("steps", number)
        _hold(check, "steps", record, name, number)
        wrong = line_up.next(record)
        if wrong:
            raise bad(wrong, member=name, line=number)
    if missing := line_up.end():
        raise bad(f"ends before {missing}", member=name, line=number)


class _LineUp:
    """Which step has to come next."""

    def __init__(self, index: Index) -> None:
        self._db = index.db
        self._turns = index.db.execute("SELECT id, steps FROM interactions ORDER BY line")
        self._done: list[tuple[str, bytes]] = []
        self._turn: tuple[str, int] | None = None
        self._seq = 0
        self._digest = digest_of_steps()
        self._advance()

    def _advance(self) -> None:
        self._turn = self._turns.fetchone()
        while self._turn is not None and self._seq == self._turn[1]:
            self._finish(self._turn[0])
            self._turn = self._turns.fetchone()

    def _finish(self, id: str) -> None:
        self._done.append((id, self._digest.digest()))
        self._seq, self._digest = 0, digest_of_steps()
        if len(self._done) >= 1000:
            self._flush()

    def _flush(self) -> None:
        self._db.executemany("INSERT INTO digests (id, digest) VALUES (?, ?)", self._done)
        self._done.clear()

    def next(self, record: Json) -> str | None:
        """Take a step; returns what is wrong with its coming now."""
        given = f"step {record['seq']} of {record['interaction_id']}"
        if self._turn is None:
            return f"{given} belongs to no turn: all turns have their steps"
        if (record["interaction_id"], record["seq"]) != (self._turn[0], self._seq):
            return f"{given} stands where step {self._seq} of {self._turn[0]} belongs"
        self._digest.update(line(record))
        self._seq += 1
        if self._seq == self._turn[1]:
            self._finish(self._turn[0])
            self._advance()
        return None

    def end(self) -> str | None:
        """Note what is left; returns the step that is missing, if one is."""
        self._flush()
        return None if self._turn is None else f"step {self._seq} of {self._turn[0]}"


def _belongings(archive: Opened, index: Index) -> None:
    for kind in ("artifacts", "captures", "requests", "ledger"):
        row = index.db.execute(
            f"SELECT line, interaction_id FROM {kind} a WHERE NOT EXISTS"
            " (SELECT 1 FROM interactions i WHERE i.id = a.interaction_id) ORDER BY line LIMIT 1"
        ).fetchone()
        if row:
            raise bad(f"its turn {row[1]} is not in the archive", member=f"{kind}.jsonl", line=row[0])
    _money(index)
    for at, sha256, text in index.db.execute("SELECT line, sha256, record FROM artifacts ORDER BY line"):
        member = archive.members.get(f"artifacts/{sha256}")
        if member is None:
            raise bad(f"its content {sha256} is not in the archive", member="artifacts.jsonl", line=at)
        if member.bytes != json.loads(text)["size_bytes"]:
            raise bad("size_bytes: is not its content's size", member="artifacts.jsonl", line=at)
    for name in archive.members:
        folder, _, rest = name.partition("/")
        if folder == "artifacts":
            known = index.db.execute("SELECT 1 FROM artifacts WHERE sha256 = ? LIMIT 1", (rest,)).fetchone()
        elif folder == "environments" and rest:
            id = rest.removesuffix(".tar")
            known = index.db.execute("SELECT 1 FROM environments WHERE id = ?", (id,)).fetchone()
        else:
            continue
        if known is None:
            raise bad("belongs to no record", member=name)


def _money(index: Index) -> None:
    """What a turn cost counts in its own session, and totals are those of turns and sessions of the archive."""
    row = index.db.execute(
        "SELECT l.line, i.session_id FROM ledger l JOIN interactions i ON i.id = l.interaction_id"
        " WHERE l.session_id <> i.session_id ORDER BY l.line LIMIT 1"
    ).fetchone()
    if row:
        raise bad(f"session_id: its turn is one of session {row[1]}", member="ledger.jsonl", line=row[0])
    row = index.db.execute(
        "SELECT line, key FROM spent WHERE key NOT IN"
        " (SELECT id FROM interactions UNION ALL SELECT id FROM sessions) ORDER BY line LIMIT 1"
    ).fetchone()
    if row:
        raise bad(f"key: {row[1]} is not in the archive", member="spent.jsonl", line=row[0])


def _rest(archive: Opened, go: Go) -> None:
    """Read every member that holds no records, for its hash's sake."""
    total = 0
    for name in archive.members:
        if "/" not in name:
            continue
        digest = hashlib.sha256()
        with archive.read(name) as stream:
            while data := stream.read():
                digest.update(data)
                total += len(data)
                go("bytes of files", total)
        if name.startswith("artifacts/") and digest.hexdigest() != name.removeprefix("artifacts/"):
            raise bad("is not the content that it is called", member=name)
    hashes = {name.split("/")[1] for name in archive.members if name.startswith("agents/")}
    for hash in sorted(hashes):
        if f"agents/{hash}/definition.json" not in archive.members:
            raise bad("is missing", member=f"agents/{hash}/definition.json")
