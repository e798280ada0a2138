"""After a delete no file of the home holds a byte of what was deleted, but for what a fork still needs."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.agents.kit import called, ended, runs
from engine.archive.kit import thinking
from engine.archive.world import World, world
from interactd.errors import ProviderUnavailable
from interactd.nouns import GenerationConfig
from interactd.store.sqlite import upkeep
from interactd.store.sqlite.queries import pieces, removal

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

# In a process of its own: closing a file that SQLite has open in this one would take its locks away.
FINDER = """
import os, sys
words = sys.stdin.read().split()
for folder, _, names in os.walk(sys.argv[1]):
    for name in [folder, *(os.path.join(folder, n) for n in names)]:
        data = os.fsencode(name)
        if os.path.isfile(name) and not os.path.islink(name):
            data += open(name, 'rb').read()
        for word in words:
            if word.encode() in data:
                print(word, name)
"""


async def found(home: Path, words: Sequence[str]) -> list[str]:
    """`word file` for every file under the home that has one of the words in it or in its name."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FINDER, str(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate("\n".join(words).encode()), 60)
    return out.decode(errors="replace").splitlines()


class Marks:
    """Words that nothing else has."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def new(self) -> str:
        self.words.append(f"zq{os.urandom(8).hex()}qz")
        return self.words[-1]


async def marked(it: World, marks: Marks, *, agent: bool = True) -> str:
    """A session with a mark in everything that a caller, a model or an agent can put somewhere."""
    word = marks.new
    if agent:
        it.agent("helper", f"You help {word()}.", f"helps {word()}")
        (it.paths.config / "agents" / "helper" / "sources" / "tool.sh").write_text(f"#!/bin/sh\n# {word()}\n")
    session = await it.engine.create_session(
        model="scripted/m1",
        agent="helper" if agent else None,
        title=word(),
        labels={"label": word()},
        system_instruction=f"Be {word()}",
        generation_config=GenerationConfig(stop_sequences=[word()]),
        tools=[{"type": "function", "name": word(), "description": word(), "parameters": {"type": "object"}}],
        environment={"sources": [{"type": "inline", "target": f"{word()}.txt", "content": word()}]} if agent else None,
        idempotency_key=word(),
    )
    it.model.script(thinking(word()))
    await it.turn(session.id, f"say {word()}", model="scripted/m1", idempotency_key=word())
    name = str(session.tools[0]["name"])
    it.model.script([*called(name, {"where": word()}, "c1"), *ended("tool_calls")], f"and {word()}")
    sent = await it.engine.send_turn(session.id, f"call {word()}", model="scripted/m1")
    await it.engine.wait(sent.interaction.id, 30)
    await it.engine.respond(sent.interaction.id, [{"call_id": "c1", "result": {"there": word()}}])
    await it.engine.wait(sent.interaction.id, 30)
    if agent:
        it.model.script(
            runs(f"open('{word()}.txt', 'w').write('{word()}'); print('{word()}'); kept = '{word()}'"), f"made {word()}"
        )
        result = await it.turn(session.id, f"make {word()}")
        assert await it.engine.artifacts(result.interaction.id)
        await it.engine.zip_artifacts(result.interaction.id, [])
    it.model.script([ProviderUnavailable(f"it says {word()}")])
    failed = await it.engine.send_turn(session.id, f"fail {word()}", model="scripted/m1")
    await it.engine.wait(failed.interaction.id, 30)
    await it.engine.search(marks.words[0])
    return session.id


async def test_nothing_of_an_agents_session_is_left_anywhere(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        marks, kept = Marks(), Marks()
        id = await marked(it, marks)
        # The agent's own folder is the user's, and no business of a delete.
        folder = it.paths.config / "agents" / "helper"
        folder.rename(tmp_path.parent / f"{tmp_path.name}-helper")
        other = await marked(it, kept, agent=False)
        before = await found(tmp_path, marks.words)
        assert len({line.split()[0] for line in before}) > len(marks.words) * 0.9
        receipt = await it.engine.delete_session(id)
        assert not receipt.pending
        removed = receipt.removed
        assert removed["sessions"] == 1
        assert removed["interactions"] == 4
        assert removed["artifacts"] == 1
        assert removed["environment_files"] >= 2
        assert removed["environments"] == removed["agent_copies"] == 1
        assert removed["index_entries"] > 0
        assert await found(tmp_path, marks.words) == []
        assert await it.engine.delete_session(id) == receipt
        assert await found(tmp_path, kept.words)
        assert len((await it.engine.transcript(other))[1]) == 3


async def test_an_environment_that_somebody_made_stays_and_one_that_another_session_uses_too(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.agent("helper", "You help.")
        own = await it.environments.create({})
        session = await it.engine.create_session(agent="helper", environment=own.id)
        it.model.script(runs("open('x', 'w').write('x')"), "done")
        await it.turn(session.id)
        second = await it.engine.create_session(agent="helper")
        it.model.script(runs("open('x', 'w').write('x')"), "done")
        await it.turn(second.id)
        made = (await it.engine.get_session(second.id)).environment
        third = await it.engine.create_session(agent="helper", environment=made)
        assert "environments" not in (await it.engine.delete_session(session.id)).removed
        assert "environments" not in (await it.engine.delete_session(second.id)).removed
        assert sorted(one.id for one in await it.environments.list()) == [own.id, str(made)]
        assert (await it.engine.delete_session(third.id)).removed["environments"] == 1
        assert [one.id for one in await it.environments.list()] == [own.id]


async def test_a_fork_keeps_what_it_needs_and_the_last_one_takes_it_along(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        marks, own = Marks(), Marks()
        id = await marked(it, marks, agent=False)
        turns = (await it.engine.transcript(id))[1]
        fork = await it.engine.fork_session(id, at=turns[0].interaction.id, title=own.new())
        receipt = await it.engine.delete_session(id)
        assert receipt.kept == {"interactions": 1, "sessions": [fork.id]}
        shared = str(turns[0].steps[0].text).split()[-1]
        left = {line.split()[0] for line in await found(tmp_path, marks.words)}
        assert shared in left
        assert str(turns[1].steps[0].text).split()[-1] not in left
        assert len((await it.engine.transcript(fork.id))[1]) == 1
        await it.engine.delete_session(fork.id)
        assert await found(tmp_path, [*marks.words, *own.words]) == []


async def test_a_large_session_goes_in_pieces_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "LARGE_STEPS", 4)
    monkeypatch.setattr(pieces, "ROWS", 3)
    async with world(tmp_path) as it:
        marks = Marks()
        id = await marked(it, marks, agent=False)
        small = await it.engine.create_session(model="scripted/m1")
        receipt = await it.engine.delete_session(id)
        assert not receipt.pending
        assert receipt.removed["interactions"] == 3
        assert receipt.removed["steps"] > 6
        assert await found(tmp_path, marks.words) == []
        assert (await it.engine.get_session(small.id)).state == "active"


async def test_a_large_delete_that_was_cut_short_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "LARGE_STEPS", 4)
    monkeypatch.setattr(pieces, "ROWS", 3)
    monkeypatch.setattr(upkeep, "VACUUM_QUIET_S", 0.1)
    marks = Marks()
    async with world(tmp_path) as it:
        id = await marked(it, marks, agent=False)
        monkeypatch.setattr(it.store.upkeep, "chores", [])
        # What a kill after the first piece leaves.
        began = time.time() - 100
        write = it.store._write  # pyright: ignore[reportPrivateUsage]
        await write(lambda db: removal.begin(db, id, began, "deleted"))
        assert await write(lambda db: removal.piece(db, id))
    async with world(tmp_path) as it:
        async with asyncio.timeout(60):
            while (receipt := await it.store.retention.receipt(id)) is None or receipt.pending:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert receipt.removed["interactions"] == 3
        assert receipt.deleted_at == began
        assert await found(tmp_path, marks.words) == []


async def test_files_that_a_crash_left_go_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interactd.engine.retention import leftovers

    marks = Marks()
    async with world(tmp_path) as it:
        id = await marked(it, marks)
        (it.paths.config / "agents" / "helper").rename(tmp_path.parent / f"{tmp_path.name}-helper")
        with monkeypatch.context() as patch:

            async def die(core: object) -> None:
                del core

            patch.setattr(leftovers, "clear", die)
            receipt = await it.engine.delete_session(id)
        assert receipt.pending
        assert await found(tmp_path, marks.words)
    async with world(tmp_path) as it:
        async with asyncio.timeout(60):
            while (receipt := await it.engine.delete_session(id)).pending:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert receipt.removed["environments"] == receipt.removed["agent_copies"] == 1
        assert await found(tmp_path, marks.words) == []


async def test_further_tables_are_cleared_by_their_hooks(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        session = await it.engine.create_session(model="scripted/m1")
        await it.turn(session.id)
        seen: list[int] = []

        def hook(db: sqlite3.Connection, session_id: str, now: float) -> dict[str, int]:
            assert session_id == session.id
            assert now > 0
            found = db.execute("SELECT count(*) FROM interactions WHERE session_id = ?", (session_id,))
            seen.append(found.fetchone()[0])
            return {"further_rows": 7}

        removal.HOOKS.append(hook)
        try:
            receipt = await it.engine.delete_session(session.id)
        finally:
            removal.HOOKS.remove(hook)
        assert seen == [1]
        assert receipt.removed["further_rows"] == 7
