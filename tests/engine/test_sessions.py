from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.kit import Rig, called, ended
from interactd.errors import Conflict, Deleted, Expired, InvalidArgument, NotFound, UnknownModel
from interactd.nouns import GenerationConfig

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


async def test_a_session_keeps_what_it_was_given(it: Rig) -> None:
    made = await it.engine.create_session(
        model="m1",
        system_instruction="Be kind.",
        generation_config=GenerationConfig(thinking_level="high"),
        tools=[TOOL],
        ttl_s=3_600,
        title="A talk",
        labels={"team": "blue"},
    )
    got = await it.engine.get_session(made.id)
    assert got == made
    assert (got.model, got.system_instruction, got.title) == ("scripted/m1", "Be kind.", "A talk")
    assert (got.ttl_s, got.expires_at) == (3_600, it.clock.now + 3_600)
    assert (got.state, got.head, got.turns) == ("active", None, 0)


async def test_auto_is_resolved_when_the_session_is_made(it: Rig) -> None:
    assert (await it.engine.create_session()).model == "scripted/m1"
    with pytest.raises(UnknownModel):
        await it.engine.create_session(model="nobody")


async def test_a_session_lives_a_day_or_as_long_as_told(it: Rig) -> None:
    assert (await it.engine.create_session()).ttl_s == 86_400
    for_ever = await it.engine.create_session(ttl_s=0)
    assert (for_ever.ttl_s, for_ever.expires_at) == (None, None)
    it.clock.now += 10 * 365 * 86_400
    assert (await it.engine.get_session(for_ever.id)).state == "active"


async def test_each_turn_gives_the_session_its_whole_time_again(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=100)
    it.clock.now += 90
    turn = await it.turn(session.id)
    assert turn.session.expires_at == it.clock.now + 100
    it.clock.now += 90
    assert (await it.engine.get_session(session.id)).state == "active"
    it.clock.now += 11
    with pytest.raises(Expired):
        await it.engine.get_session(session.id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl_s": 0.1},
        {"ttl_s": -1},
        {"ttl_s": float("inf")},
        {"title": "x" * 1_001},
        {"title": 3},
        {"labels": {"A": "b"}},
        {"system_instruction": "x" * 1_100_000},
        {"tools": [{"name": "a b"}]},
        {"model": ""},
        {"model": "\ud800"},
        {"idempotency_key": ""},
        {"generation_config": GenerationConfig(top_p=2)},
    ],
)
async def test_bad_arguments_are_refused_by_name(it: Rig, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.create_session(**wrong)
    assert str(caught.value.fields["field"]).startswith(next(iter(wrong)))
    assert (await it.engine.list_sessions()).items == []


async def test_sessions_are_listed_by_state_and_label_in_pages(it: Rig) -> None:
    made = [await it.engine.create_session(labels={"n": str(n % 2)}, ttl_s=100 + n) for n in range(5)]
    page = await it.engine.list_sessions(limit=2)
    seen = [session.id for session in page.items]
    while page.cursor:
        page = await it.engine.list_sessions(limit=2, cursor=page.cursor)
        seen += [session.id for session in page.items]
    assert sorted(seen) == sorted(session.id for session in made)
    assert len((await it.engine.list_sessions(labels={"n": "1"})).items) == 2
    for session in made[:3]:
        await it.store.set_expiry(session.id, 100, it.clock.now - 1)
    assert len((await it.engine.list_sessions(state="expired")).items) == 3
    assert len((await it.engine.list_sessions()).items) == 2
    for wrong in ({"state": "dead"}, {"limit": 0}, {"labels": {"A": "x"}}, {"cursor": 3}):
        with pytest.raises(InvalidArgument):
            await it.engine.list_sessions(**wrong)  # pyright: ignore[reportArgumentType]


async def test_a_fork_shares_the_past_and_nothing_else(it: Rig) -> None:
    session = await it.engine.create_session(system_instruction="s", title="Talk", labels={"a": "b"})
    it.model.script("1", "2", "3", "4")
    first = await it.turn(session.id, "a")
    await it.turn(session.id, "b")
    fork = await it.engine.fork_session(session.id, at=first.interaction.id, title="Other way")
    assert (fork.forked_from, fork.forked_at) == (session.id, first.interaction.id)
    assert (fork.head, fork.turns) == (first.interaction.id, 1)
    assert (fork.system_instruction, fork.title, fork.labels) == ("s", "Other way", {"a": "b"})
    await it.turn(fork.id, "c")
    await it.turn(session.id, "d")
    assert [step.text for step in it.model.requests[2].steps] == ["a", "1", "c"]
    assert [step.text for step in it.model.requests[3].steps] == ["a", "1", "b", "2", "d"]
    assert (await it.engine.get_session(fork.id)).turns == 2


async def test_a_fork_of_a_fork_reaches_back_to_the_root(it: Rig) -> None:
    session = await it.engine.create_session()
    root = await it.turn(session.id, "a")
    fork = await it.engine.fork_session(session.id)
    middle = await it.turn(fork.id, "b")
    again = await it.engine.fork_session(fork.id, at=root.interaction.id)
    assert again.turns == 1
    deep = await it.engine.fork_session(fork.id)
    await it.turn(deep.id, "c", previous_interaction_id=root.interaction.id)
    with pytest.raises(NotFound):
        await it.engine.send_turn(again.id, "x", previous_interaction_id=middle.interaction.id)


async def test_a_session_without_turns_can_be_forked(it: Rig) -> None:
    session = await it.engine.create_session()
    fork = await it.engine.fork_session(session.id)
    assert (fork.head, fork.turns) == (None, 0)
    assert (await it.turn(fork.id)).interaction.status == "completed"


async def test_a_turn_that_is_still_open_cannot_be_forked_at(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    first = await it.turn(session.id)
    it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    waiting = await it.turn(session.id)
    for key in (None, "k"):
        with pytest.raises(Conflict) as caught:
            await it.engine.fork_session(session.id, idempotency_key=key)
        assert caught.value.fields["interaction_id"] == waiting.interaction.id
        assert first.interaction.id in (caught.value.repair or "")
    assert (await it.engine.fork_session(session.id, at=first.interaction.id)).turns == 1


async def test_a_fork_at_a_point_of_another_session_is_not_found(it: Rig) -> None:
    a, b = await it.engine.create_session(), await it.engine.create_session()
    foreign = await it.turn(a.id)
    with pytest.raises(NotFound):
        await it.engine.fork_session(b.id, at=foreign.interaction.id)


async def test_deleting_cancels_what_runs_and_gives_a_receipt_twice(it: Rig) -> None:
    session = await it.engine.create_session()
    await it.turn(session.id, "a")
    it.model.gate = asyncio.Event()
    running = await it.engine.send_turn(session.id, "b")
    queued = await it.engine.send_turn(session.id, "c", if_busy="queue")
    await it.model.asked(2)
    waiter = asyncio.create_task(it.engine.wait(queued.interaction.id, 5))
    await asyncio.sleep(0)
    receipt = await it.engine.delete_session(session.id)
    assert receipt.session_id == session.id
    assert receipt.removed["interactions"] == 3
    assert (await it.engine.delete_session(session.id)) == receipt
    assert (it.model.running, it.engine.busy) == (0, 0)
    with pytest.raises(Deleted):
        await it.engine.get_session(session.id)
    with pytest.raises(Deleted):
        await it.engine.get_interaction(running.interaction.id)
    # Who waited learns one or the other, depending on who was faster.
    (outcome,) = await asyncio.gather(waiter, return_exceptions=True)
    assert isinstance(outcome, Deleted) or outcome.interaction.status == "cancelled"  # pyright: ignore
    with pytest.raises(NotFound):
        await it.engine.delete_session("ses_" + "0" * 26)


async def test_a_fork_outlives_what_it_was_forked_from(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script("1", "2", "3")
    await it.turn(session.id, "a")
    fork = await it.engine.fork_session(session.id)
    await it.engine.delete_session(session.id)
    await it.turn(fork.id, "b")
    assert [step.text for step in it.model.requests[1].steps] == ["a", "1", "b"]
    again = await it.engine.fork_session(fork.id)
    assert again.turns == 2


async def test_a_transcript_comes_in_pages_that_end_before_a_turn(it: Rig) -> None:
    session = await it.engine.create_session()
    assert (await it.engine.transcript(session.id))[1] == []
    ids = [(await it.turn(session.id, f"t{n}")).interaction.id for n in range(5)]
    _, last = await it.engine.transcript(session.id, limit=2)
    assert [turn.interaction.id for turn in last] == ids[3:]
    _, before = await it.engine.transcript(session.id, limit=2, before=last[0].interaction.id)
    assert [turn.interaction.id for turn in before] == ids[1:3]
    _, first = await it.engine.transcript(session.id, limit=2, before=before[0].interaction.id)
    assert [turn.interaction.id for turn in first] == ids[:1]
    assert [step.text for step in first[0].steps] == ["t0", "ok"]
    with pytest.raises(NotFound):
        await it.engine.transcript(session.id, before="int_" + "0" * 26)
    with pytest.raises(InvalidArgument):
        await it.engine.transcript(session.id, limit=0)


async def test_an_expired_sessions_result_is_handed_over_once_and_then_expired(it: Rig) -> None:
    session = await it.engine.create_session(ttl_s=100)
    sent = await it.engine.send_turn(session.id, "hello")
    async with asyncio.timeout(10):
        async for _ in it.engine.events(sent.interaction.id):
            continue
    it.clock.now += 200
    assert (await it.engine.get_interaction(sent.interaction.id)).interaction.terminal
    with pytest.raises(Expired):
        await it.engine.get_interaction(sent.interaction.id)
