from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S, Rig, ScriptedModel, called, ended, rig, said, texts
from interactd.errors import (
    Conflict,
    Deleted,
    Expired,
    InvalidArgument,
    KeyRefused,
    MissingKey,
    NotFound,
    Overloaded,
    RateLimited,
    UnknownModel,
)
from interactd.models.port import Finished, StepDelta, StepStarted
from interactd.nouns import Caller, GenerationConfig, Step, Usage

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


async def test_a_turn_is_accepted_at_once_and_ends_by_itself(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "hello")
    assert (sent.interaction.status, texts(sent)) == ("in_progress", ["user_input: hello"])
    assert (sent.session.head, sent.session.turns) == (sent.interaction.id, 1)
    it.model.gate.set()
    done = await it.ended(sent.interaction.id)
    assert done.interaction.status == "completed"
    assert texts(done) == ["user_input: hello", "model_output: ok"]
    assert [step.seq for step in done.steps] == [0, 1]
    assert done.interaction.usage == Usage(input=10, output=5, total=15)
    assert (done.interaction.finish_reason, done.interaction.error) == ("stop", None)
    assert done.interaction.model == "scripted/m1"
    assert done.partial_text == ""


async def test_the_second_turn_is_asked_with_the_first(it: Rig) -> None:
    session = await it.engine.create_session(system_instruction="Be brief.")
    it.model.script("Nice to meet you, Ada.", "Ada.")
    await it.turn(session.id, "I am Ada.")
    second = await it.turn(session.id, "Who am I?")
    request = it.model.requests[1]
    assert [step.text for step in request.steps] == ["I am Ada.", "Nice to meet you, Ada.", "Who am I?"]
    assert (request.system_instruction, request.cache_key) == ("Be brief.", session.id)
    assert (second.session.turns, second.interaction.depth) == (2, 2)


async def test_a_second_turn_while_one_runs_is_a_conflict(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    first = await it.engine.send_turn(session.id, "one")
    with pytest.raises(Conflict) as caught:
        await it.engine.send_turn(session.id, "two")
    assert caught.value.fields["interaction_id"] == first.interaction.id
    assert caught.value.fields["status"] == "in_progress"
    for way_out in ("get_interaction", "cancel_interaction", 'if_busy="queue"'):
        assert way_out in (caught.value.repair or "")
    it.model.gate.set()
    await it.ended(first.interaction.id)
    assert len((await it.engine.transcript(session.id))[1]) == 1


async def test_a_turn_that_waits_for_results_is_in_the_way_and_says_how_to_go_on(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    waiting = await it.turn(session.id)
    with pytest.raises(Conflict) as caught:
        await it.engine.send_turn(session.id, "two")
    assert caught.value.fields == {"interaction_id": waiting.interaction.id, "status": "requires_action"}
    assert "respond" in (caught.value.repair or "")


async def test_other_sessions_are_not_in_the_way(it: Rig) -> None:
    a, b = await it.engine.create_session(), await it.engine.create_session()
    gate = asyncio.Event()
    it.model.script([gate, *said("slow"), *ended()])
    slow = await it.engine.send_turn(a.id, "one")
    assert (await it.turn(b.id)).interaction.status == "completed"
    gate.set()
    await it.ended(slow.interaction.id)


async def test_cancelling_who_asked_leaves_the_turn_alone(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "hello")
    waiter = asyncio.create_task(it.engine.wait(sent.interaction.id, PATIENCE_S))
    await it.model.asked(1)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    it.model.gate.set()
    assert (await it.ended(sent.interaction.id)).interaction.status == "completed"


async def test_a_send_that_is_cancelled_half_way_still_runs_what_it_accepted(it: Rig) -> None:
    session = await it.engine.create_session()
    for n in range(40):
        sending = asyncio.create_task(it.engine.send_turn(session.id, f"turn {n}", if_busy="queue"))
        # Not a wait for something: the moment of the cancel, moved a little each time.
        await asyncio.wait([sending], timeout=n * 0.0001)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    last = await it.turn(session.id, "last", if_busy="queue")
    assert last.interaction.status == "completed"
    _, turns = await it.engine.transcript(session.id, limit=50)
    assert all(turn.interaction.status == "completed" for turn in turns)


async def test_waiting_is_bounded_and_shows_what_is_there(it: Rig) -> None:
    session = await it.engine.create_session()
    gate = asyncio.Event()
    it.model.script(
        [StepStarted(0, "model_output"), StepDelta(0, "text", "Once upon"), gate, Finished("stop", "stop", None)]
    )
    sent = await it.engine.send_turn(session.id, "tell")
    events = it.engine.events(sent.interaction.id)
    async for event in events:
        if event.type == "step.delta":
            break
    seen = await it.engine.wait(sent.interaction.id, 0.01)
    assert (seen.interaction.status, seen.partial_text) == ("in_progress", "Once upon")
    assert texts(seen) == ["user_input: tell"]
    gate.set()
    done = await it.ended(sent.interaction.id)
    assert (texts(done)[-1], done.partial_text) == ("model_output: Once upon", "")


async def test_the_model_and_the_settings_can_change_for_one_turn(tmp_path: Path) -> None:
    other = ScriptedModel("m2")
    async with rig(tmp_path / "db", others=[other]) as it:
        base = GenerationConfig(temperature=0.5, thinking_level="low")
        session = await it.engine.create_session(generation_config=base, system_instruction="a")
        turn = await it.turn(
            session.id,
            model="m2",
            generation_config=GenerationConfig(thinking_level="high"),
            system_instruction="b",
            tools=[TOOL],
        )
        await it.turn(session.id)
    assert turn.interaction.model == "scripted/m2"
    assert other.requests[0].config == GenerationConfig(temperature=0.5, thinking_level="high")
    assert other.requests[0].system_instruction == "b"
    assert [tool["name"] for tool in other.requests[0].tools] == ["add"]
    assert it.model.requests[0].config == base
    assert it.model.requests[0].system_instruction == "a"
    assert it.model.requests[0].tools == []


async def test_an_empty_tool_list_means_a_turn_without_tools(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    await it.turn(session.id, tools=[])
    await it.turn(session.id)
    assert [request.config.tool_choice for request in it.model.requests] == ["none", None]


async def test_a_turn_can_go_on_from_an_earlier_point_of_its_own_tree(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script("1", "2", "3")
    first = await it.turn(session.id, "a")
    await it.turn(session.id, "b")
    branch = await it.turn(session.id, "c", previous_interaction_id=first.interaction.id)
    assert [step.text for step in it.model.requests[2].steps] == ["a", "1", "c"]
    assert (branch.interaction.depth, branch.session.turns) == (2, 2)
    _, turns = await it.engine.transcript(session.id)
    assert [turn.interaction.id for turn in turns] == [first.interaction.id, branch.interaction.id]


async def test_a_point_of_another_session_is_not_found(it: Rig) -> None:
    a, b = await it.engine.create_session(), await it.engine.create_session()
    foreign = await it.turn(a.id)
    with pytest.raises(NotFound, match="not part of"):
        await it.engine.send_turn(b.id, "x", previous_interaction_id=foreign.interaction.id)


async def test_ids_may_be_shortened(it: Rig) -> None:
    session = await it.engine.create_session()
    turn = await it.turn(session.id[:-2].upper())
    assert turn.session.id == session.id
    assert (await it.engine.get_interaction(turn.interaction.id[:-1])).interaction.id == turn.interaction.id


async def test_somebody_elses_session_is_not_found(it: Rig) -> None:
    session = await it.engine.create_session()
    turn = await it.turn(session.id)
    stranger = Caller(owner="stranger")
    with pytest.raises(NotFound):
        await it.engine.get_session(session.id, caller=stranger)
    with pytest.raises(NotFound):
        await it.engine.send_turn(session.id, "x", caller=stranger)
    with pytest.raises(NotFound):
        await it.engine.get_interaction(turn.interaction.id, caller=stranger)
    with pytest.raises(NotFound):
        await it.engine.delete_session(session.id, caller=stranger)
    assert (await it.engine.list_sessions(caller=stranger)).items == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"content": ""},
        {"content": None},
        {"content": "\ud800"},
        {"content": "x" * 9_000_000},
        {"if_busy": "wait"},
        {"model": ""},
        {"model": 3},
        {"system_instruction": "\x00"},
        {"generation_config": GenerationConfig(temperature=9)},
        {"generation_config": GenerationConfig(tool_choice="any")},
        {"tools": [{"name": "a b"}]},
        {"previous_interaction_id": "ses_00"},
        {"previous_interaction_id": ""},
        {"idempotency_key": ""},
        {"session_id": "int_00"},
        {"session_id": "!"},
        {"session_id": 3},
    ],
)
async def test_bad_input_is_refused_by_name_and_leaves_nothing(it: Rig, wrong: dict[str, Any]) -> None:
    session = await it.engine.create_session()
    call: dict[str, Any] = {"session_id": session.id, "content": "x", **wrong}
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.send_turn(**call)
    assert caught.value.fields["field"]
    after = await it.engine.get_session(session.id)
    assert (after.head, after.turns) == (None, 0)
    assert it.model.requests == []


async def test_an_unknown_model_or_key_fails_before_anything_is_written(it: Rig) -> None:
    session = await it.engine.create_session()
    with pytest.raises(UnknownModel):
        await it.engine.send_turn(session.id, "x", model="nobody")
    it.catalog.refuse = MissingKey("No key.")
    with pytest.raises(MissingKey):
        await it.engine.send_turn(session.id, "x")
    assert (await it.engine.get_session(session.id)).head is None


async def test_ids_that_never_were_are_not_found(it: Rig) -> None:
    nobody = "0" * 26
    with pytest.raises(NotFound):
        await it.engine.send_turn(f"ses_{nobody}", "x")
    with pytest.raises(NotFound):
        await it.engine.get_interaction(f"int_{nobody}")
    with pytest.raises(NotFound):
        await it.engine.cancel(f"int_{nobody}")
    session = await it.engine.create_session()
    with pytest.raises(NotFound):
        await it.engine.send_turn(session.id, "x", previous_interaction_id=f"int_{nobody}")


async def test_a_turn_in_an_expired_or_deleted_session_says_so(it: Rig) -> None:
    gone, old = await it.engine.create_session(), await it.engine.create_session(ttl_s=60)
    await it.engine.delete_session(gone.id)
    it.clock.now += 61
    with pytest.raises(Deleted):
        await it.engine.send_turn(gone.id, "x")
    with pytest.raises(Expired) as caught:
        await it.engine.send_turn(old.id, "x")
    assert "create_session" in (caught.value.repair or "")


async def test_an_error_of_the_model_is_the_turns_outcome_and_keeps_what_came(it: Rig) -> None:
    session = await it.engine.create_session()
    broken = RateLimited("Slow down.", repair="Wait 7 s.", retry_after_s=7)
    it.model.script([StepStarted(0, "model_output"), StepDelta(0, "text", "Half of"), broken])
    turn = await it.turn(session.id)
    assert turn.interaction.status == "failed"
    assert turn.interaction.error == {
        "code": "rate_limited",
        "message": "Slow down.",
        "repair": "Wait 7 s.",
        "retry_after_s": 7,
    }
    assert texts(turn)[1:] == ["model_output: Half of"]
    assert (await it.turn(session.id)).interaction.status == "completed"


async def test_a_stream_that_just_ends_is_not_an_answer(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script(said("Looks whole."))
    turn = await it.turn(session.id)
    assert turn.interaction.status == "failed"
    assert (turn.interaction.error or {})["code"] == "stream_truncated"


async def test_a_bug_in_a_codec_fails_the_turn_and_not_the_daemon(it: Rig, caplog: pytest.LogCaptureFixture) -> None:
    session = await it.engine.create_session()
    it.model.script([ValueError("secret-ish detail")])
    turn = await it.turn(session.id)
    assert turn.interaction.status == "failed"
    assert (turn.interaction.error or {})["code"] == "internal"
    assert "secret-ish" not in str(turn.interaction.error)
    assert "secret-ish" in caplog.text
    assert (await it.turn(session.id)).interaction.status == "completed"


async def test_a_failed_turn_without_output_is_not_shown_to_the_model(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script("1", [KeyRefused("No.")], "3")
    await it.turn(session.id, "a")
    await it.turn(session.id, "b")
    await it.turn(session.id, "c")
    assert [step.text for step in it.model.requests[2].steps] == ["a", "1", "c"]


async def test_an_undeclared_function_is_refused_three_times_and_then_the_turn_fails(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    for n in range(3):
        it.model.script([*called("sub", {}, f"c{n}"), *ended("tool_calls")])
    turn = await it.turn(session.id)
    assert turn.interaction.status == "failed"
    assert (turn.interaction.error or {})["code"] == "bad_tool_calls"
    assert [step.type for step in turn.steps] == ["user_input", *["function_call", "function_result"] * 3]
    assert len(it.model.requests) == 3
    assert turn.interaction.usage == Usage(input=30, output=15, total=45)
    assert [step.type for step in it.model.requests[1].steps][-2:] == ["function_call", "function_result"]


async def test_a_model_that_mends_its_call_goes_on(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    it.model.script([*called("add", "{broken", "c1"), *ended("tool_calls")], "Sorry: 3.")
    sent = await it.engine.send_turn(session.id, "1+2")
    events = await it.events(sent.interaction.id)
    turn = await it.ended(sent.interaction.id)
    assert turn.interaction.status == "completed"
    assert texts(turn) == ["user_input: 1+2", "function_call", "function_result", "model_output: Sorry: 3."]
    assert turn.interaction.usage == Usage(input=20, output=10, total=30)
    starts = [(e.data["index"], e.data["step"]["type"]) for e in events if e.type == "step.start"]
    assert starts == [(0, "function_call"), (1, "function_result"), (2, "model_output")]


async def test_a_runaway_answer_is_stopped(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_output_bytes=100) as it:
        session = await it.engine.create_session()
        it.model.script([*(StepDelta(0, "text", "x" * 30) for _ in range(50)), Finished("stop", "stop", None)])
        turn = await it.turn(session.id)
    assert turn.interaction.status == "incomplete"
    assert (turn.interaction.error or {})["code"] == "output_too_large"
    assert len(turn.steps[1].text) == 120
    assert it.model.stopped == 1


async def test_finish_reasons_become_statuses(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script(
        [*said("half"), *ended("length")],
        [*said("no"), *ended("refusal", detail="policy 7")],
        [*ended("content_filter")],
        [*said("odd"), *ended("unknown", "MOON")],
        [*ended("stop")],
    )
    turns = [await it.turn(session.id) for _ in range(5)]
    assert [(t.interaction.status, (t.interaction.error or {}).get("code")) for t in turns] == [
        ("incomplete", "max_output_tokens"),
        ("incomplete", "content_blocked"),
        ("failed", "content_blocked"),
        ("incomplete", "unknown_finish_reason"),
        ("incomplete", "empty_answer"),
    ]


async def test_finished_turns_count_as_unread_until_somebody_looks(it: Rig) -> None:
    session = await it.engine.create_session()
    sent = await it.engine.send_turn(session.id, "x", background=True)
    await it.events(sent.interaction.id)
    assert (await it.engine.status())["unread"] == 1
    assert len((await it.engine.list_sessions(unread=True)).items) == 1
    assert (await it.ended(sent.interaction.id)).interaction.read_at is not None
    assert (await it.engine.status())["unread"] == 0


async def test_too_many_open_turns_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_open=2) as it:
        it.model.gate = asyncio.Event()
        sessions = [await it.engine.create_session() for _ in range(3)]
        for session in sessions[:2]:
            await it.engine.send_turn(session.id, "x")
        with pytest.raises(Overloaded) as caught:
            await it.engine.send_turn(sessions[2].id, "x")
        assert caught.value.fields["retry"] is True
        assert (await it.engine.get_session(sessions[2].id)).head is None
        it.model.gate.set()


async def test_the_events_of_a_turn_tell_its_whole_story_live_and_afterwards(it: Rig) -> None:
    session = await it.engine.create_session()
    gate = asyncio.Event()
    it.model.script([gate, *said("hello there"), *ended()])
    sent = await it.engine.send_turn(session.id, "x")
    follower = asyncio.create_task(it.events(sent.interaction.id))
    await it.model.asked(1)
    gate.set()
    live = await follower
    later = await it.events(sent.interaction.id)
    for events in (live, later):
        assert "".join(e.data["delta"]["text"] for e in events if e.type == "step.delta") == "hello there"
        assert events[-1].type == "interaction.status"
        assert events[-1].data["status"] == "completed"
        assert events[-1].data["usage"] == {"total_input_tokens": 10, "total_output_tokens": 5, "total_tokens": 15}


async def test_status_and_models_say_what_is_there(it: Rig) -> None:
    status = await it.engine.status()
    assert {"version", "uptime_s", "busy", "queued", "unread", "store", "auto", "home"} <= set(status)
    assert status["version"] == "test"
    assert [model.id for model in await it.engine.models()] == ["scripted/m1"]


async def test_the_callers_keys_are_the_ones_that_are_used(it: Rig) -> None:
    caller = Caller(connection="con_1")
    session = await it.engine.create_session(caller=caller)
    await it.turn(session.id, caller=caller)
    assert {connection for _, connection in it.catalog.resolved} == {"con_1"}


async def test_what_was_said_is_found_again(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script("The capital is Canberra.")
    turn = await it.turn(session.id, "Capital of Australia?")
    hits = (await it.engine.search("canberra")).items
    assert [(hit.session_id, hit.interaction_id) for hit in hits] == [(session.id, turn.interaction.id)]
    assert (await it.engine.search("canberra", session_id=session.id)).items
    assert (await it.engine.search("canberra", caller=Caller(owner="x"))).items == []
    with pytest.raises(InvalidArgument):
        await it.engine.search(" ")


async def test_steps_are_what_the_model_made_with_their_state(it: Rig) -> None:
    session = await it.engine.create_session()
    step = Step("thought", {"summary": []}, {"provider": "scripted", "signature": "s"})
    from interactd.models.port import StepFinished

    it.model.script([StepFinished(0, step), *said("x", 1), *ended()], "y")
    await it.turn(session.id)
    await it.turn(session.id)
    assert it.model.requests[1].steps[1].state == {"provider": "scripted", "signature": "s"}
