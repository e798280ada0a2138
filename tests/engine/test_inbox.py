"""Results that nobody read are kept until somebody does, and for a while after; keys outlive what they started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S, Rig, called, ended, rig, until
from interactd.engine.port import Result
from interactd.errors import Conflict, Deleted, Expired, NotFound, ProviderRejected
from interactd.nouns import Caller, Session

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}
YEAR = 366 * 86_400.0


async def background(it: Rig, session: Session, content: str = "go") -> str:
    """A background turn that has ended and nobody read."""
    sent = await it.engine.send_turn(session.id, content, background=True)

    async def over() -> bool:
        return (await it.store.get_interaction(sent.interaction.id)).terminal

    await until(over)
    return sent.interaction.id


async def swept(it: Rig) -> list[str]:
    return [receipt.session_id for receipt in await it.store.sweep(it.clock.now)]


async def test_an_unread_result_outlives_its_session_however_far_the_clock_jumps(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=60)
    unread = await background(it, session)
    it.clock.now += YEAR
    assert await swept(it) == []
    assert [one.id for one in (await it.engine.inbox()).unread] == [unread]
    result = await it.engine.wait(unread, 0)
    assert result.interaction.status == "completed"


async def test_what_was_read_is_kept_for_a_while_and_can_be_gone_on_with(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=60)
    unread = await background(it, session)
    it.clock.now += 7200
    read = await it.engine.wait(unread, 0)
    assert read.session.state == "active"
    it.clock.now += 3000
    assert await swept(it) == []
    again = await it.engine.get_interaction(unread)
    assert again.interaction.status == "completed"
    it.clock.now += 3700
    with pytest.raises(Expired):
        await it.engine.get_interaction(unread)
    assert await swept(it) == [session.id]


async def test_a_session_in_which_something_was_read_is_used_again_as_before(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=60)
    unread = await background(it, session)
    it.clock.now += 7200
    with pytest.raises(Expired):
        await it.engine.send_turn(session.id, "too early")
    await it.engine.wait(unread, 0)
    assert (await it.turn(session.id, "go on")).interaction.status == "completed"


async def test_a_foreground_turn_nobody_waited_for_is_no_unread_result(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=60)
    await it.turn(session.id)
    assert (await it.engine.inbox()).unread == []
    it.clock.now += 61
    assert await swept(it) == [session.id]


async def test_failed_and_cancelled_background_turns_are_unread_results_too(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script([ProviderRejected("no")])
    failed = await background(it, session)
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "x", background=True)
    await it.model.asked(2)
    assert await it.engine.cancel_all() == [sent.interaction.id]
    assert [one.id for one in (await it.engine.inbox()).unread] == [failed, sent.interaction.id]


async def test_the_oldest_comes_first_and_the_rest_is_counted(it: Rig) -> None:
    one, other = await it.engine.create_session(), await it.engine.create_session()
    first, second = await background(it, one), await background(it, one)
    third = await background(it, other)
    found = await it.engine.inbox(limit=2)
    assert ([each.id for each in found.unread], found.unread_total) == ([first, second], 3)
    found = await it.engine.inbox(session_id=other.id[:-1])
    assert ([each.id for each in found.unread], found.unread_total) == ([third], 1)
    await it.engine.wait(first, 0)
    assert (await it.engine.inbox()).unread_total == 2
    assert (await it.engine.status())["unread"] == 2


async def test_what_waits_for_an_answer_waits_for_you(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    it.model.script([*called("add", {"a": 1}, "c1"), *ended("tool_calls")])
    asked = await it.turn(session.id)
    found = await it.engine.inbox()
    assert [one.waiting_for[0]["id"] for one in found.waiting] == ["c1"]
    assert (await it.engine.status())["waiting"] == 1
    await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    await it.ended(asked.interaction.id)
    assert (await it.engine.inbox()).waiting_total == 0


async def test_an_inbox_is_its_owners(it: Rig) -> None:
    session = await it.engine.create_session()
    await background(it, session)
    other = Caller(owner="other")
    assert (await it.engine.inbox(caller=other)).unread_total == 0
    with pytest.raises(NotFound):
        await it.engine.inbox(session_id=session.id, caller=other)
    assert await it.engine.cancel_all(caller=other) == []


async def test_sessions_with_unread_results_are_listed_also_when_their_time_is_over(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=60)
    await background(it, session)
    other = await it.engine.create_session()
    await it.store.set_expiry(session.id, 60, it.clock.now - 5)
    assert [one.id for one in (await it.engine.list_sessions(unread=True)).items] == [session.id]
    assert [one.id for one in (await it.engine.list_sessions()).items] == [other.id]


@pytest.mark.parametrize("gone", ["deleted", "expired"])
async def test_a_key_of_something_that_is_gone_starts_nothing_for_a_day(it: Rig, gone: str) -> None:
    session = await it.engine.create_session(ttl_s=60, idempotency_key="s")
    fork = await it.engine.fork_session(session.id, idempotency_key="f")
    turn = await it.turn(session.id, "x", idempotency_key="t")
    if gone == "deleted":
        await it.engine.delete_session(session.id)
        await it.engine.delete_session(fork.id)
    else:
        it.clock.now += 61
        assert set(await swept(it)) == {session.id, fork.id}
    assert (await it.engine.create_session(ttl_s=60, idempotency_key="s")).id == session.id
    with pytest.raises((Deleted, Expired)) as caught:
        await it.engine.send_turn(session.id, "x", idempotency_key="t")
    assert turn.interaction.id in str(caught.value)
    assert (await it.engine.fork_session(session.id, idempotency_key="f")).id == fork.id
    with pytest.raises(Conflict):
        await it.engine.create_session(title="other", ttl_s=60, idempotency_key="s")
    assert len(it.model.requests) == 1


async def test_a_key_for_one_answer_is_not_good_for_another_interaction(it: Rig) -> None:
    asked: list[Result] = []
    for _ in range(2):
        session = await it.engine.create_session(tools=[TOOL])
        it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
        asked.append(await it.turn(session.id))
    answer: Any = [{"call_id": "c1", "result": "3"}]
    await it.engine.respond(asked[0].interaction.id, answer, idempotency_key="k")
    with pytest.raises(Conflict):
        await it.engine.respond(asked[1].interaction.id, answer, idempotency_key="k")
    again = await it.engine.respond(asked[0].interaction.id, answer, idempotency_key="k")
    assert again.replayed
    assert (await it.engine.get_interaction(asked[1].interaction.id)).interaction.status == "requires_action"


async def test_one_key_answers_once_however_often_at_once(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    asked = await it.turn(session.id)
    answer: Any = [{"call_id": "c1", "result": "3"}]
    sent = await asyncio.gather(
        *(it.engine.respond(asked.interaction.id, answer, idempotency_key="k") for _ in range(12))
    )
    assert sum(not one.replayed for one in sent) == 1
    done = await it.engine.wait(asked.interaction.id, PATIENCE_S)
    assert len([step for step in done.steps if step.body.get("call_id") == "c1"]) == 1


async def test_unread_results_are_kept_over_a_restart(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session = await it.engine.create_session(ttl_s=60)
        unread = await background(it, session)
        clock = it.clock
    clock.now += YEAR
    async with rig(tmp_path / "db", clock=clock) as it:
        assert (await it.engine.wait(unread, 0)).interaction.status == "completed"


async def test_looking_may_wait_until_a_background_run_has_ended(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "go", background=True)
    await it.model.asked(1)
    now = await it.engine.inbox()
    assert ([one.id for one in now.running], now.running_total, now.unread) == ([sent.interaction.id], 1, [])
    looking = asyncio.create_task(it.engine.inbox(wait_s=PATIENCE_S))
    gate.set()
    found = await looking
    assert ([one.id for one in found.unread], found.running) == ([sent.interaction.id], [])
    async with asyncio.timeout(PATIENCE_S):
        assert (await it.engine.inbox(session_id=session.id, wait_s=10 * PATIENCE_S)).unread, "there is one already"
        await it.engine.wait(sent.interaction.id, 0)
        assert not (await it.engine.inbox(wait_s=10 * PATIENCE_S)).running, "nothing to wait for"
