from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.kit import Rig, ScriptedModel, called, ended, rig
from interactd.errors import Conflict, MissingKey
from interactd.nouns import Caller

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


async def test_the_same_key_and_body_give_the_same_session(it: Rig) -> None:
    first = await it.engine.create_session(title="a", idempotency_key="k")
    again = await it.engine.create_session(title="a", idempotency_key="k")
    assert again.id == first.id
    with pytest.raises(Conflict):
        await it.engine.create_session(title="b", idempotency_key="k")
    assert len((await it.engine.list_sessions()).items) == 1


async def test_the_same_key_and_body_give_the_same_turn_while_it_runs_and_after(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    first = await it.engine.send_turn(session.id, "x", idempotency_key="k")
    running = await it.engine.send_turn(session.id[:-1], "x", idempotency_key="k")
    it.model.gate.set()
    await it.ended(first.interaction.id)
    after = await it.engine.send_turn(session.id, "x", idempotency_key="k")
    assert {running.interaction.id, after.interaction.id} == {first.interaction.id}
    assert [first.replayed, running.replayed, after.replayed] == [False, True, True]
    assert after.interaction.status == "completed"
    assert len(it.model.requests) == 1


@pytest.mark.parametrize("other", [{"content": "y"}, {"model": "m1"}, {"if_busy": "queue"}, {"background": True}])
async def test_the_same_key_with_another_body_is_a_conflict(it: Rig, other: dict[str, object]) -> None:
    session = await it.engine.create_session()
    await it.turn(session.id, "x", idempotency_key="k")
    with pytest.raises(Conflict):
        await it.engine.send_turn(session.id, **{"content": "x", "idempotency_key": "k", **other})  # pyright: ignore
    assert len((await it.engine.transcript(session.id))[1]) == 1


async def test_a_key_for_one_kind_of_work_is_not_good_for_another(it: Rig) -> None:
    session = await it.engine.create_session(idempotency_key="k")
    with pytest.raises(Conflict):
        await it.engine.send_turn(session.id, "x", idempotency_key="k")
    with pytest.raises(Conflict):
        await it.engine.fork_session(session.id, idempotency_key="k")


async def test_keys_of_different_owners_do_not_meet(it: Rig) -> None:
    first = await it.engine.create_session(idempotency_key="k")
    other = await it.engine.create_session(idempotency_key="k", caller=Caller(owner="other"))
    assert first.id != other.id


async def test_twenty_at_once_with_one_key_are_one_turn(it: Rig) -> None:
    session = await it.engine.create_session()
    sent = await asyncio.gather(
        *(it.engine.send_turn(session.id, "x", idempotency_key="k", if_busy="queue") for _ in range(20))
    )
    assert len({result.interaction.id for result in sent}) == 1
    assert sum(not result.replayed for result in sent) == 1
    await it.ended(sent[0].interaction.id)
    assert len(it.model.requests) == 1


async def test_a_repeated_call_is_answered_even_where_it_could_not_be_started_afresh(it: Rig) -> None:
    session = await it.engine.create_session(idempotency_key="s")
    turn = await it.turn(session.id, "x", idempotency_key="t")
    fork = await it.engine.fork_session(session.id, model="m1", idempotency_key="f")
    it.model.gate = asyncio.Event()
    await it.engine.send_turn(session.id, "y")
    it.catalog.refuse = MissingKey("No key any more.")
    assert (await it.engine.create_session(idempotency_key="s")).id == session.id
    assert (await it.engine.send_turn(session.id, "x", idempotency_key="t")).interaction.id == turn.interaction.id
    assert (await it.engine.fork_session(session.id, model="m1", idempotency_key="f")).id == fork.id
    with pytest.raises(MissingKey):
        await it.engine.create_session(idempotency_key="new")
    it.model.gate.set()


async def test_keys_hold_over_a_restart(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session(tools=[TOOL], idempotency_key="s")
        model.script([*called("add", {}, "c1"), *ended("tool_calls")])
        turn = await it.turn(session.id, "x", idempotency_key="t")
        answer = [{"call_id": "c1", "result": "3"}]
        await it.engine.respond(turn.interaction.id, answer, idempotency_key="r")
        await it.ended(turn.interaction.id)
        fork = await it.engine.fork_session(session.id, idempotency_key="f")
    async with rig(tmp_path / "db", model=model) as it:
        assert (await it.engine.create_session(tools=[TOOL], idempotency_key="s")).id == session.id
        again = await it.engine.send_turn(session.id, "x", idempotency_key="t")
        assert (again.interaction.id, again.replayed) == (turn.interaction.id, True)
        answered = await it.engine.respond(turn.interaction.id, answer, idempotency_key="r")
        assert (answered.interaction.status, answered.replayed) == ("completed", True)
        with pytest.raises(Conflict):
            await it.engine.respond(turn.interaction.id, [{"call_id": "c1", "result": "4"}], idempotency_key="r")
        assert (await it.engine.fork_session(session.id, idempotency_key="f")).id == fork.id
    assert len(model.requests) == 2
