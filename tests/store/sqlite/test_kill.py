"""SIGKILL in mid-write: what was acknowledged is there, once, and the next process goes on."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interactd.errors import Deleted
from interactd.store.sqlite import SqliteStore
from interactd.store.sqlite.queries import removal

pytestmark = pytest.mark.anyio
TALKER = Path(__file__).with_name("talker.py")


@dataclass
class Told:
    """What one database's talkers said was done."""

    sessions: set[str] = field(default_factory=set[str])
    turns: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    steps: dict[str, int] = field(default_factory=dict[str, int])
    settled: set[str] = field(default_factory=set[str])
    deleted: set[str] = field(default_factory=set[str])

    def hear(self, line: str) -> None:
        match line.split():
            case ["session", id]:
                self.sessions.add(id)
            case ["accept", id, session, previous]:
                self.turns[id] = (session, previous)
                self.steps[id] = 1
            case ["append", id, seq]:
                assert int(seq) == self.steps[id]
                self.steps[id] += 1
            case ["settle", id, _]:
                self.settled.add(id)
            case ["delete", id]:
                self.deleted.add(id)
            case _:
                pass


async def talk_and_kill(file: Path, seed: int, told: Told) -> int:
    """Run a talker for a random moment, kill it, and return how many lines it got out."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(TALKER), str(file), str(seed), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    lines = 0
    try:
        ready = await asyncio.wait_for(child.stdout.readline(), 60)
        assert ready == b"ready\n", await child.stderr.read()
        # The moment is random in work done and in time, so that it falls into every phase of a write.
        work = random.Random(seed).randrange(400)
        end = time.monotonic() + random.Random(seed).random() * 2
        while lines < work and time.monotonic() < end:
            told.hear((await asyncio.wait_for(child.stdout.readline(), 60)).decode())
            lines += 1
    finally:
        child.kill()
    rest, _ = await asyncio.wait_for(child.communicate(), 60)
    for line in rest.decode().splitlines(keepends=True):
        if line.endswith("\n"):
            told.hear(line.rstrip())
            lines += 1
    return lines


async def check(file: Path, told: Told) -> None:
    store = SqliteStore(file)
    await store.open()
    for id in told.sessions:
        state = (await store.get_session(id)).state
        assert state == "active" or (state == "deleted")
        if id in told.deleted:
            assert state == "deleted"
    for id, (session, previous) in told.turns.items():
        try:
            kept = await store.get_interaction(id)
        except Deleted:
            # A delete may have been committed and not yet told.
            assert (await store.get_session(session)).state == "deleted"
            continue
        assert session not in told.deleted
        assert str(kept.previous_interaction_id) == previous
        steps = await store.get_steps(id)
        assert [step.seq for step in steps] == list(range(len(steps)))
        # One more at most: committed, and killed before it could be told.
        assert told.steps[id] <= len(steps) <= told.steps[id] + 1
        if id in told.settled:
            assert (kept.status, len(steps)) == ("completed", told.steps[id])
    for one in await store.unfinished():
        taken = await store.claim(one.id, from_status=["in_progress"], now=1.0)
        assert taken is not None
        await store.settle(one.id, taken.epoch, "failed", now=1.0)
        # A later talker tells nothing of it, and its outcome is not the one that was told.
    await store.search("question")
    await store.aclose()
    db = sqlite3.connect(file)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.execute("INSERT INTO step_texts (step_texts) VALUES ('integrity-check')")
        orphans = "SELECT count(*) FROM steps WHERE interaction_id NOT IN (SELECT id FROM interactions)"
        assert db.execute(orphans).fetchone() == (0,)
        headless = "SELECT count(*) FROM sessions WHERE head NOT IN (SELECT id FROM interactions)"
        assert db.execute(headless).fetchone() == (0,)
        # Killed between a delete and its housekeeping: what is left in the index is known, and known to be due.
        indexed = set(db.execute("SELECT id FROM step_texts_docsize"))
        steps_kept = set(db.execute("SELECT id FROM steps"))
        waiting = set(db.execute("SELECT id FROM step_texts_gone"))
        assert indexed - steps_kept == waiting
        assert steps_kept <= indexed
        if waiting:
            assert removal.due(db) == "entries"
    finally:
        db.close()


async def rest(file: Path) -> None:
    """Leave the store alone until it has nothing left to do, as a daemon without turns would."""
    store = SqliteStore(file)
    await store.open()
    for _ in range(1200):
        if await store.get_setting("store.removal_due") is None:
            break
        await asyncio.sleep(0.05)
    await store.aclose()


async def kill_many(file: Path, kills: int, first_seed: int) -> None:
    told = Told()
    lines = 0
    for number in range(kills):
        lines += await talk_and_kill(file, first_seed + number, told)
        await check(file, told)
    await rest(file)
    db = sqlite3.connect(file)
    try:
        assert set(db.execute("SELECT id FROM step_texts_docsize")) == set(db.execute("SELECT id FROM steps"))
        deleted = [f"question {id}" for id, (session, _) in told.turns.items() if session in told.deleted]
    finally:
        db.close()
    data = b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    assert deleted
    assert [words for words in deleted if words.encode() in data] == []
    assert lines > kills * 10
    assert told.settled


@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_and_nothing_doubled_over_twenty_kills(tmp_path: Path) -> None:
    await kill_many(tmp_path / "interactd.db", 20, random.randrange(1 << 30))


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_nothing_acknowledged_is_lost_over_two_hundred_kills(tmp_path: Path) -> None:
    for folder in range(4):
        await kill_many(tmp_path / f"{folder}.db", 50, random.randrange(1 << 30))
