from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S, Clock, Rig, ScriptedModel, called, ended, rig, texts, until
from interactd.engine.dispatch.sweeper import sweep
from interactd.engine.run.note import Note
from interactd.errors import Expired, MissingKey, Overloaded, StorageFull
from interactd.ids import new_id
from interactd.models.port import StepDelta
from interactd.nouns import Caller, Interaction, Usage, user_input
from interactd.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


async def left_behind(it: Rig, *, note: Note | None = None, session_id: str | None = None) -> str:
    """Put an interaction in progress into the store that nobody runs: what a killed daemon leaves."""
    session = await it.store.get_session(session_id or (await it.engine.create_session()).id)
    interaction = Interaction(
        new_id("interaction"),
        session.id,
        "in_progress",
        it.clock.now,
        previous_interaction_id=session.head,
        model=session.model,
        depth=session.turns + 1,
        epoch=1,
        attempt=1,
    )
    await it.store.accept(interaction, [user_input("left")], expires_at=None, pending=note and note.as_dict())
    return interaction.id


async def restarted(path: Path, model: ScriptedModel, interaction_id: str, **settings: Any) -> Any:
    async with rig(path, model=model, **settings) as it:
        return await it.ended(interaction_id)


async def test_a_turn_left_in_progress_is_taken_up_and_completed_once(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model, start=False) as it:
        await it.store.open()
        left = await left_behind(it)
    done = await restarted(tmp_path / "db", model, left)
    assert done.interaction.status == "completed"
    assert (done.interaction.epoch, done.interaction.attempt) == (2, 2)
    assert texts(done) == ["user_input: left", "model_output: ok"]
    assert len(model.requests) == 1


async def test_after_three_deaths_a_turn_is_given_up_and_says_why(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model, start=False) as it:
        await it.store.open()
        left = await left_behind(it, note=Note(deaths=2, usage=Usage(input=3)))
        other = await left_behind(it, note=Note(deaths=1))
    async with rig(tmp_path / "db", model=model) as it:
        given_up, done = await it.ended(left), await it.ended(other)
        next_turn = await it.turn(given_up.session.id, "again")
    assert given_up.interaction.status == "failed"
    assert (given_up.interaction.error or {})["code"] == "crashed"
    assert (given_up.interaction.error or {})["repair"]
    assert given_up.interaction.usage == Usage(input=3)
    assert done.interaction.status == "completed"
    assert next_turn.interaction.status == "completed"


async def test_a_death_counts_once_and_a_hand_over_not_at_all() -> None:
    note = Note(connection="c", usage=Usage(input=1))
    assert Note.read(note.as_dict()) == note
    assert note.after_death().deaths == 1
    assert Note(handed_over=True).after_death() == Note()
    assert Note(waiting=True, deaths=1).after_death() == Note(deaths=1)
    assert Note.read(None) == Note()


async def test_leaving_on_purpose_is_resumed_any_number_of_times(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session()
        sent = await it.engine.send_turn(session.id, "x", idempotency_key="k")
        await model.asked(1)
    for n in range(4):
        async with rig(tmp_path / "db", model=model) as it:
            await model.asked(n + 2)
            again = await it.engine.send_turn(session.id, "x", idempotency_key="k")
            assert (again.interaction.id, again.replayed) == (sent.interaction.id, True)
    model.gate = None
    done = await restarted(tmp_path / "db", model, sent.interaction.id)
    assert done.interaction.status == "completed"
    assert texts(done) == ["user_input: x", "model_output: ok"]
    assert model.running == 0


async def test_draining_lets_a_running_answer_finish_and_takes_nothing_new(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session, other = await it.engine.create_session(), await it.engine.create_session()
        it.model.gate = asyncio.Event()
        sent = await it.engine.send_turn(session.id, "x")
        queued = await it.engine.send_turn(session.id, "y", if_busy="queue")
        await it.model.asked(1)
        draining = asyncio.create_task(it.engine.drain(PATIENCE_S))
        await asyncio.sleep(0)
        for work in (
            it.engine.send_turn(other.id, "z"),
            it.engine.create_session(),
            it.engine.fork_session(other.id),
            it.engine.respond(sent.interaction.id, [{"call_id": "c", "result": "x"}]),
        ):
            with pytest.raises(Overloaded) as caught:
                await work
            assert caught.value.fields["retry"] is True
        it.model.gate.set()
        assert await draining is True
        assert (await it.engine.get_interaction(sent.interaction.id)).interaction.status == "completed"
        assert (await it.engine.get_interaction(queued.interaction.id)).interaction.status == "queued"
    done = await restarted(tmp_path / "db", ScriptedModel(), queued.interaction.id)
    assert done.interaction.status == "completed"


async def test_draining_stops_an_answer_that_takes_too_long_and_the_next_daemon_makes_it(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session()
        model.script([StepDelta(0, "text", "half"), asyncio.Event()])
        sent = await it.engine.send_turn(session.id, "x")
        waiter = asyncio.create_task(it.engine.wait(sent.interaction.id, PATIENCE_S))
        await model.asked(1)
        assert await it.engine.drain(0.05) is True
        assert (await waiter).interaction.status == "in_progress"
        assert model.running == 0
    done = await restarted(tmp_path / "db", model, sent.interaction.id)
    assert done.interaction.status == "completed"
    assert texts(done) == ["user_input: x", "model_output: ok"]


async def test_a_resumed_turn_waits_for_the_host_that_has_the_key(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session()
        sent = await it.engine.send_turn(session.id, "x", caller=Caller(connection="con_1"))
        await model.asked(1)
    model.gate = None
    async with rig(tmp_path / "db", model=model, start=False) as it:
        it.catalog.refuse = MissingKey("No key for scripted.")
        await it.engine.start()

        async def asked_again() -> bool:
            return len(it.catalog.resolved) >= 2

        await until(asked_again)
        it.catalog.refuse = None
        assert (await it.ended(sent.interaction.id)).interaction.status == "completed"
        assert {connection for _, connection in it.catalog.resolved} == {"con_1"}


async def test_a_key_that_never_comes_is_a_failure_that_says_so(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model, start=False) as it:
        await it.store.open()
        left = await left_behind(it)
    async with rig(tmp_path / "db", model=model, start=False, resume_key_wait_s=0.1) as it:
        it.catalog.refuse = MissingKey("No key for scripted.")
        await it.engine.start()
        done = await it.ended(left)
    assert done.interaction.status == "failed"
    assert (done.interaction.error or {})["code"] == "missing_key"
    assert model.requests == []


async def test_a_crash_between_claim_and_answers_asks_for_the_answers_again(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session(tools=[TOOL])
        asked = await it.turn(session.id)
        assert await it.store.claim(asked.interaction.id, from_status=("requires_action",), now=it.clock.now)
    async with rig(tmp_path / "db", model=model) as it:
        again = await it.ended(asked.interaction.id)
        assert again.interaction.status == "requires_action"
        await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
        assert (await it.ended(asked.interaction.id)).interaction.status == "completed"
    assert len(model.requests) == 2


async def test_a_daemon_that_lost_its_claim_writes_nothing(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "x")
    await it.model.asked(1)
    taken = await it.store.claim(sent.interaction.id, from_status=("in_progress",), now=it.clock.now)
    assert taken is not None
    it.model.gate.set()
    await it.events(sent.interaction.id)
    seen = await it.engine.get_interaction(sent.interaction.id)
    assert (seen.interaction.status, texts(seen)) == ("in_progress", ["user_input: x"])
    await it.store.settle(taken.id, taken.epoch, "completed", now=it.clock.now)


async def test_an_outcome_that_the_disk_refuses_for_a_while_is_not_lost(
    it: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, refusals = it.store.settle, [StorageFull("The disk is full."), StorageFull("The disk is full.")]

    async def refusing(*args: Any, **more: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await settle(*args, **more)

    monkeypatch.setattr(it.store, "settle", refusing)
    session = await it.engine.create_session()
    done = await it.turn(session.id)
    assert done.interaction.status == "completed"
    assert len(it.model.requests) == 1


async def test_the_sweeper_takes_up_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tmp_path / "db", journal_patience_s=0, sweep_every_s=0.05) as it:
        settle, refusals = it.store.settle, [StorageFull("The disk is full.")]

        async def refusing(*args: Any, **more: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return await settle(*args, **more)

        monkeypatch.setattr(it.store, "settle", refusing)
        session = await it.engine.create_session()
        sent = await it.engine.send_turn(session.id, "x")
        done = await it.ended(sent.interaction.id)
    assert done.interaction.status == "completed"
    assert texts(done) == ["user_input: x", "model_output: ok"]
    assert len(it.model.requests) == 2


async def test_sessions_are_swept_at_the_start_and_then_regularly(tmp_path: Path) -> None:
    clock = Clock()
    async with rig(tmp_path / "db", clock=clock) as it:
        old = await it.engine.create_session(ttl_s=10)
        kept = await it.engine.create_session(ttl_s=0)
        turn = await it.turn(old.id)
    clock.now += 11
    async with rig(tmp_path / "db", clock=clock, sweep_every_s=0.02) as it:
        late = await it.engine.create_session(ttl_s=10)
        clock.now += 11

        async def swept() -> bool:
            return (await it.store.stats())["sessions"] == 1

        await until(swept)
        for gone in (old, late):
            with pytest.raises(Expired):
                await it.engine.get_session(gone.id)
        with pytest.raises(Expired):
            await it.engine.get_interaction(turn.interaction.id)
        assert (await it.engine.get_session(kept.id)).state == "active"


async def test_a_session_whose_turn_outlives_its_time_is_not_swept_before_it_was_read(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=10)
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "x")
    await it.model.asked(1)
    it.clock.now += 60
    assert await sweep(it.engine._core) == 0  # pyright: ignore[reportPrivateUsage]
    it.model.gate.set()
    await it.events(sent.interaction.id)
    assert await sweep(it.engine._core) == 0  # pyright: ignore[reportPrivateUsage]
    assert (await it.engine.get_interaction(sent.interaction.id)).interaction.status == "completed"
    it.clock.now += 11
    assert await sweep(it.engine._core) == 1  # pyright: ignore[reportPrivateUsage]


async def test_closing_twice_is_fine_and_leaves_the_file_whole(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session = await it.engine.create_session()
        await it.turn(session.id)
        await it.engine.aclose()
    assert it.catalog.closed
    with sqlite3.connect(tmp_path / "db") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
    store = SqliteStore(tmp_path / "db")
    await store.open()
    assert (await store.get_session(session.id)).turns == 1
    await store.aclose()
