from __future__ import annotations

import asyncio
import time

import pytest

from interactd.errors import Conflict, Deleted, Fenced, InvalidArgument, NotFound
from interactd.ids import new_id
from interactd.nouns import TERMINAL, GenerationConfig, Step, Usage, user_input
from interactd.store.port import IdempotencyKey, Store

from .kit import FAR, an_interaction, chain, create, said, start, turn

pytestmark = pytest.mark.anyio


async def test_an_interaction_comes_back_as_it_was_accepted(store: Store) -> None:
    session = await create(store)
    one = an_interaction(
        session.id,
        model="m",
        agent="a",
        system_instruction="s",
        generation_config=GenerationConfig(seed=7),
        tools=[{"type": "function", "name": "f"}],
        background=True,
        started_at=5.0,
    )
    await store.accept(one, [user_input("hi")], expires_at=77.0 + time.time(), pending={"call": "model"})
    assert await store.get_interaction(one.id) == one
    assert await store.pending(one.id) == {"call": "model"}
    kept = await store.get_session(session.id)
    assert (kept.head, kept.turns, kept.updated_at) == (one.id, 1, one.created_at)
    steps = await store.get_steps(one.id)
    assert [(step.seq, step.type, step.text, step.created_at) for step in steps] == [
        (0, "user_input", "hi", one.created_at)
    ]


async def test_a_second_turn_while_one_runs_is_a_conflict(store: Store) -> None:
    session = await create(store)
    running = await start(store, session.id)
    with pytest.raises(Conflict) as caught:
        await start(store, session.id)
    assert caught.value.fields == {"interaction_id": running, "status": "in_progress"}
    assert (await store.get_session(session.id)).head == running
    assert (await store.stats())["steps"] == 1


async def test_a_turn_that_waits_for_an_answer_holds_its_session(store: Store) -> None:
    session = await create(store)
    waiting = await start(store, session.id)
    await store.settle(waiting, 1, "requires_action", now=1.0)
    with pytest.raises(Conflict) as caught:
        await start(store, session.id)
    assert caught.value.fields["status"] == "requires_action"
    queued = await start(store, session.id, status="queued", epoch=0, attempt=0)
    assert await store.claim(queued, from_status=["queued"], now=2.0) is None
    again = await store.claim(waiting, from_status=["requires_action"], now=2.0)
    assert again is not None
    assert (again.status, again.epoch, again.attempt) == ("in_progress", 2, 2)


async def test_queued_turns_wait_in_order(store: Store) -> None:
    session = await create(store)
    first = await start(store, session.id)
    second = await start(store, session.id, previous=first, status="queued", epoch=0, attempt=0)
    third = await start(store, session.id, previous=second, status="queued", epoch=0, attempt=0)
    assert [one.id for one in await store.active(session.id)] == [first, second, third]
    assert await store.claim(second, from_status=["queued"], now=1.0) is None
    await store.settle(first, 1, "completed", now=1.0)
    taken = await store.claim(second, from_status=["queued"], now=9.0)
    assert taken is not None
    assert (taken.epoch, taken.attempt, taken.started_at, taken.status) == (1, 1, 9.0, "in_progress")
    assert [one.id for one in await store.unfinished()] == [second, third]


async def test_turns_wait_in_the_order_they_came_in_whatever_the_clock_did(store: Store) -> None:
    session = await create(store)
    ids = [
        # As two processes name them, the second of which has an earlier clock.
        await start(store, session.id, id=f"int_{letter * 26}", created_at=moment, status="queued", epoch=0, attempt=0)
        for letter, moment in (("5", 5000.0), ("9", 9000.0), ("1", 100.0), ("7", 7000.0))
    ]
    assert [one.id for one in await store.active(session.id)] == ids
    assert [one.id for one in await store.unfinished()] == ids


async def test_the_same_key_gives_the_same_turn_also_while_it_runs(store: Store) -> None:
    session = await create(store)
    key = IdempotencyKey("k", "d")
    first = await store.accept(an_interaction(session.id), [user_input("x")], expires_at=FAR, key=key)
    again = await store.accept(an_interaction(session.id), [user_input("x")], expires_at=FAR, key=key)
    assert (again.id, again.created) == (first.id, False)
    assert (await store.stats())["interactions"] == 1


async def test_a_turn_in_no_session_or_after_no_turn_is_not_found(store: Store) -> None:
    session = await create(store)
    with pytest.raises(NotFound):
        await start(store, new_id("session"))
    with pytest.raises(NotFound):
        await start(store, session.id, previous=new_id("interaction"))
    await store.delete_session(session.id, time.time())
    with pytest.raises(Deleted):
        await start(store, session.id)
    assert (await store.stats())["interactions"] == 0


async def test_steps_are_numbered_without_a_gap(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    kept = await store.append(id, 1, [said("a"), said("b")], pending={"call": "tool", "n": 1})
    assert [step.seq for step in kept] == [1, 2]
    assert await store.pending(id) == {"call": "tool", "n": 1}
    kept = await store.append(id, 1, [said("c")], durable=True)
    assert [step.seq for step in kept] == [3]
    assert kept == (await store.get_steps(id, after=2))
    assert await store.pending(id) is None
    await store.settle(id, 1, "completed", steps=[said("d")], now=1.0)
    assert [step.seq for step in await store.get_steps(id)] == [0, 1, 2, 3, 4]
    assert [step.text for step in await store.get_steps(id, after=1, limit=2)] == ["b", "c"]
    assert await store.get_steps(id, after=99) == []
    assert await store.get_steps(id, limit=0) == []


async def test_an_older_runner_is_fenced_and_writes_nothing(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    claimed = await store.claim(id, from_status=["in_progress"], now=2.0)
    assert claimed is not None
    with pytest.raises(Fenced):
        await store.append(id, 1, [said("late")])
    with pytest.raises(Fenced):
        await store.settle(id, 1, "completed", now=3.0)
    assert len(await store.get_steps(id)) == 1
    assert (await store.settle(id, 2, "completed", now=3.0)).status == "completed"


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_terminal_status_is_the_last(store: Store, status: str) -> None:
    session = await create(store)
    id = await start(store, session.id)
    settled = await store.settle(id, 1, status, now=3.0)  # type: ignore[arg-type]
    assert settled == await store.get_interaction(id)
    assert (settled.status, settled.finished_at) == (status, 3.0)
    for late in (
        store.settle(id, 1, "failed", now=4.0),
        store.settle(id, None, "cancelled", now=4.0),
        store.append(id, 1, [said("late")]),
    ):
        with pytest.raises(Fenced):
            await late
    assert await store.claim(id, from_status=["in_progress", "completed", "failed"], now=5.0) is None
    assert (await store.get_interaction(id)).finished_at == 3.0
    assert await store.active(session.id) == []


async def test_a_cancel_from_outside_fences_the_runner(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    cancelled = await store.settle(id, None, "cancelled", now=1.0)
    assert (cancelled.status, cancelled.epoch) == ("cancelled", 2)
    with pytest.raises(Fenced):
        await store.append(id, 1, [said("late")])
    await turn(store, session.id, previous=id)


async def test_an_answer_and_its_claim_are_one_and_only_for_who_saw_all_of_it(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    waits = await store.settle(id, 1, "requires_action", steps=[said("a?"), said("b?")], now=1.0)
    seen = len(await store.get_steps(id))
    half = await store.answer(waits, seen, [said("a")], pending={"n": 1}, goes_on=False, now=2.0)
    assert half is not None
    assert (half[0].status, half[0].epoch, half[1][0].seq) == ("requires_action", 1, seen)
    # It was read before the first half came.
    assert await store.answer(waits, seen, [said("b")], pending={"n": 2}, goes_on=True, now=3.0) is None
    assert (await store.get_interaction(id)).status == "requires_action"
    whole = await store.answer(waits, seen + 1, [said("b")], pending={"n": 2}, goes_on=True, now=3.0)
    assert whole is not None
    assert (whole[0].status, whole[0].epoch, whole[1][0].seq) == ("in_progress", 2, seen + 1)
    assert await store.pending(id) == {"n": 2}
    assert await store.answer(waits, seen + 2, [said("c")], pending={}, goes_on=True, now=4.0) is None
    assert len(await store.get_steps(id)) == seen + 2


async def test_usage_adds_up_over_runs(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    await store.settle(id, 1, "requires_action", usage=Usage(input=10, output=2), now=1.0)
    await store.claim(id, from_status=["requires_action"], now=2.0)
    settled = await store.settle(
        id,
        2,
        "failed",
        usage=Usage(input=5, thought=3),
        error={"code": "x"},
        finish_reason="error",
        model="p/other",
        now=3.0,
    )
    assert settled.usage == Usage(input=15, output=2, thought=3)
    assert (settled.error, settled.finish_reason, settled.model) == ({"code": "x"}, "error", "p/other")
    assert settled == await store.get_interaction(id)


async def test_a_run_cannot_be_settled_as_running(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id)
    with pytest.raises(InvalidArgument):
        await store.settle(id, 1, "queued", now=1.0)
    with pytest.raises(InvalidArgument):
        await store.accept(an_interaction(session.id, status="completed"), [], expires_at=None)


async def test_ids_that_do_not_exist_are_not_found(store: Store) -> None:
    id = new_id("interaction")
    for call in (
        store.get_interaction(id),
        store.get_steps(id),
        store.pending(id),
        store.append(id, 1, []),
        store.settle(id, 1, "failed", now=1.0),
        store.claim(id, from_status=["queued"], now=1.0),
        store.path(id, limit=5),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    "text",
    ["lone \ud800 surrogate", "nul \0 inside", "\x1b[31m\x7f\u202e", "x" * 1_500_000, "😀" * 10, "\udfff\ud83d", ""],
    ids=["surrogate", "nul", "control", "long", "emoji", "reversed", "empty"],
)
async def test_any_text_is_kept_exactly_in_steps(store: Store, text: str) -> None:
    session = await create(store)
    step = Step("function_call", {"id": text, "name": text, "arguments": {text: [text]}}, {"signature": text})
    one = an_interaction(session.id, system_instruction=text, model=text)
    await store.accept(
        one, [user_input(text), step], expires_at=None, pending={"n": text}, key=IdempotencyKey(text, text)
    )
    kept = await store.get_steps(one.id)
    assert kept[0].text == text
    assert (kept[1].body, kept[1].state) == (step.body, step.state)
    assert await store.pending(one.id) == {"n": text}
    await store.settle(one.id, 1, "failed", error={"message": text}, finish_reason=text, model=text, now=1.0)
    assert (await store.get_interaction(one.id)).error == {"message": text}
    await store.search(text[:2000])
    for ask in (store.get_session(text), store.get_interaction(text), store.delete_session(text, 1.0)):
        with pytest.raises(NotFound):
            await ask
    titled = await create(store, title=text, labels={text: text}, owner=text or "o")
    listed = await store.list_sessions(owner=text or "o", labels={text: text})
    assert [session.id for session in listed.items] == [titled.id]


async def test_numbers_of_any_size_are_kept_in_steps(store: Store) -> None:
    session = await create(store)
    body = {"id": "c", "name": "f", "arguments": {"n": 2**100, "m": -(2**64), "f": 1e308}}
    id = await start(store, session.id)
    await store.settle(id, 1, "completed", steps=[Step("function_call", body)], usage=Usage(input=2**70), now=1.0)
    assert (await store.get_steps(id))[1].body == body
    assert (await store.get_interaction(id)).usage == Usage(input=2**70)
    assert await store.get_steps(id, after=2**70) == []
    assert len(await store.get_steps(id, limit=2**70)) == 2


async def test_what_is_no_json_is_refused_before_anything_is_written(store: Store) -> None:
    session = await create(store)
    loop: list[object] = []
    loop.append(loop)
    for bad in (object(), b"bytes", {1, 2}, loop):
        with pytest.raises(InvalidArgument):
            await store.accept(an_interaction(session.id), [Step("thought", {"summary": bad})], expires_at=None)
    assert (await store.stats())["interactions"] == 0


async def test_a_cancelled_caller_breaks_nothing(store: Store) -> None:
    session = await create(store)
    previous: str | None = None
    for _ in range(20):
        one = an_interaction(session.id, previous)
        task = asyncio.create_task(store.accept(one, [user_input("x")], expires_at=None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # A call that was made is carried out, whoever still waits for it.
        await store.settle(one.id, 1, "completed", now=1.0)
        previous = one.id
    assert previous is not None
    assert len(await store.path(previous, limit=100)) == 20


async def test_many_tasks_write_many_turns_at_once(store: Store) -> None:
    async def talk(number: int) -> list[str]:
        session = await create(store, title=str(number))
        return await chain(store, session.id, 40)

    chains = await asyncio.gather(*(talk(number) for number in range(8)))
    for ids in chains:
        path = await store.path(ids[-1], limit=100)
        assert [one.interaction.id for one in path] == ids
        assert [one.steps[1].text for one in path] == [f"answer {n}" for n in range(40)]
    assert (await store.stats())["steps"] == 8 * 40 * 2


async def test_of_many_turns_at_once_in_one_session_one_runs(store: Store) -> None:
    session = await create(store)
    results = await asyncio.gather(*(start(store, session.id) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 199
    assert (await store.stats())["steps"] == 1
