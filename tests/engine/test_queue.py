from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.kit import Rig, ScriptedModel, rig
from interactd.errors import Conflict, KeyRefused, Overloaded

pytestmark = pytest.mark.anyio


async def test_queued_turns_run_one_by_one_in_order(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    sent = [await it.engine.send_turn(session.id, f"t{n}", if_busy="queue") for n in range(4)]
    assert [result.interaction.status for result in sent] == ["in_progress", "queued", "queued", "queued"]
    assert [result.queue_position for result in sent] == [None, 1, 2, 3]
    assert it.engine.busy == 4
    it.model.gate.set()
    for result in sent:
        assert (await it.ended(result.interaction.id)).interaction.status == "completed"
    assert it.model.most_running == 1
    assert [request.steps[-1].text for request in it.model.requests] == ["t0", "t1", "t2", "t3"]
    assert [step.text for step in it.model.requests[3].steps] == ["t0", "ok", "t1", "ok", "t2", "ok", "t3"]
    _, turns = await it.engine.transcript(session.id)
    assert [turn.interaction.id for turn in turns] == [result.interaction.id for result in sent]


async def test_a_turn_runs_although_the_one_before_it_failed_or_was_cancelled(it: Rig) -> None:
    session = await it.engine.create_session()
    gate = asyncio.Event()
    it.model.script([gate, KeyRefused("No.")])
    first = await it.engine.send_turn(session.id, "a", if_busy="queue")
    second = await it.engine.send_turn(session.id, "b", if_busy="queue")
    third = await it.engine.send_turn(session.id, "c", if_busy="queue")
    await it.engine.cancel(second.interaction.id)
    gate.set()
    assert (await it.ended(third.interaction.id)).interaction.status == "completed"
    statuses = [(await it.engine.get_interaction(r.interaction.id)).interaction.status for r in (first, second)]
    assert statuses == ["failed", "cancelled"]
    assert [step.text for step in it.model.requests[1].steps] == ["c"]


async def test_a_queued_turn_is_in_the_way_of_one_that_would_not_queue(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    await it.engine.send_turn(session.id, "a")
    last = await it.engine.send_turn(session.id, "b", if_busy="queue")
    with pytest.raises(Conflict):
        await it.engine.send_turn(session.id, "c")
    it.model.gate.set()
    await it.ended(last.interaction.id)
    assert (await it.turn(session.id, "c")).interaction.status == "completed"


async def test_turns_sent_at_once_make_one_line_and_not_a_bush(it: Rig) -> None:
    session = await it.engine.create_session()
    sent = await asyncio.gather(*(it.engine.send_turn(session.id, f"t{n}", if_busy="queue") for n in range(20)))
    for result in sent:
        assert (await it.ended(result.interaction.id)).interaction.status == "completed"
    session, turns = await it.engine.transcript(session.id, limit=50)
    assert session.turns == 20
    assert {turn.interaction.id for turn in turns} == {result.interaction.id for result in sent}
    assert it.model.most_running == 1


async def test_of_turns_sent_at_once_without_queueing_one_is_taken(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    sending = (it.engine.send_turn(session.id, f"t{n}") for n in range(20))
    outcomes = await asyncio.gather(*sending, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
    it.model.gate.set()
    assert (await it.engine.get_session(session.id)).turns == 1


async def test_a_line_has_an_end(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_queued=2) as it:
        session = await it.engine.create_session()
        it.model.gate = asyncio.Event()
        for n in range(3):
            await it.engine.send_turn(session.id, str(n), if_busy="queue")
        with pytest.raises(Overloaded):
            await it.engine.send_turn(session.id, "x", if_busy="queue")
        it.model.gate.set()


async def test_only_so_many_are_at_the_model_at_once_and_all_get_there(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=3) as it:
        sessions = [await it.engine.create_session() for _ in range(10)]
        it.model.gate = asyncio.Event()
        sent = [await it.engine.send_turn(session.id, "x") for session in sessions]
        await it.model.asked(3)
        it.model.gate.set()
        for result in sent:
            assert (await it.ended(result.interaction.id)).interaction.status == "completed"
        assert it.model.most_running == 3


async def test_a_session_with_many_turns_waiting_does_not_keep_the_others_out(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=1) as it:
        greedy, modest = await it.engine.create_session(), await it.engine.create_session()
        it.model.gate = asyncio.Event()
        for n in range(5):
            last = await it.engine.send_turn(greedy.id, f"greedy {n}", if_busy="queue")
        await it.engine.send_turn(modest.id, "modest")
        it.model.gate.set()
        await it.ended(last.interaction.id)  # pyright: ignore[reportPossiblyUnboundVariable]
        order = [request.steps[-1].text for request in it.model.requests]
    assert order[:2] == ["greedy 0", "modest"]


async def test_a_turn_that_waits_for_a_slot_can_be_cancelled(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=1) as it:
        a, b = await it.engine.create_session(), await it.engine.create_session()
        it.model.gate = asyncio.Event()
        first = await it.engine.send_turn(a.id, "a")
        await it.model.asked(1)
        second = await it.engine.send_turn(b.id, "b")
        assert (await it.engine.cancel(second.interaction.id)).interaction.status == "cancelled"
        it.model.gate.set()
        assert (await it.ended(first.interaction.id)).interaction.status == "completed"
        assert (await it.turn(b.id, "again")).interaction.status == "completed"
    assert len(it.model.requests) == 2


async def test_the_line_survives_a_restart_in_order(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session()
        sent = [await it.engine.send_turn(session.id, f"t{n}", if_busy="queue") for n in range(4)]
        await model.asked(1)
    model.gate = None
    model.requests.clear()
    async with rig(tmp_path / "db", model=model) as it:
        for result in sent:
            assert (await it.ended(result.interaction.id)).interaction.status == "completed"
    assert [request.steps[-1].text for request in model.requests] == ["t0", "t1", "t2", "t3"]


async def test_a_thousand_sessions_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        sessions = await asyncio.gather(*(it.engine.create_session() for _ in range(1_000)))
        done = await asyncio.gather(*(it.turn(session.id, f"in {session.id}") for session in sessions))
        assert {result.interaction.status for result in done} == {"completed"}
        assert {result.steps[0].text for result in done} == {f"in {session.id}" for session in sessions}
        assert it.engine.busy == 0
        assert it.model.most_running <= 256
        assert len(it.model.requests) == 1_000


async def test_ten_thousand_calls_at_one_busy_session_are_each_answered(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session = await it.engine.create_session()
        it.model.gate = asyncio.Event()
        first = await it.engine.send_turn(session.id, "x")
        outcomes = await asyncio.gather(
            *(it.engine.send_turn(session.id, "y") for _ in range(10_000)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {Conflict}
        it.model.gate.set()
        await it.ended(first.interaction.id)
        assert (await it.engine.get_session(session.id)).turns == 1
