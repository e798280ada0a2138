from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.kit import Rig, ScriptedModel, called, ended, rig, texts
from interactd.engine.port import Result
from interactd.errors import Conflict, InvalidArgument
from interactd.nouns import GenerationConfig, Usage

pytestmark = pytest.mark.anyio
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("add", "now")]


async def asked_for_two(it: Rig) -> Result:
    session = await it.engine.create_session(tools=TOOLS)
    it.model.script([*called("add", {"a": 1}, "c1", 0), *called("now", {}, "c2", 1), *ended("tool_calls")])
    result = await it.turn(session.id, "go")
    assert result.interaction.status == "requires_action"
    return result


async def test_a_turn_with_calls_waits_and_says_for_what(it: Rig) -> None:
    result = await asked_for_two(it)
    assert [(call["id"], call["name"], call["arguments"]) for call in result.waiting_for] == [
        ("c1", "add", {"a": 1}),
        ("c2", "now", {}),
    ]
    assert not result.interaction.terminal


async def test_with_all_results_the_same_interaction_goes_on(it: Rig) -> None:
    asked = await asked_for_two(it)
    it.model.script("3, at noon.")
    it.model.gate = asyncio.Event()
    results = [{"call_id": "c2", "result": "noon"}, {"call_id": "c1", "result": {"sum": 3}}]
    sent = await it.engine.respond(asked.interaction.id, results)
    assert (sent.interaction.id, sent.interaction.status, sent.replayed) == (asked.interaction.id, "in_progress", False)
    it.model.gate.set()
    done = await it.ended(asked.interaction.id)
    assert done.interaction.status == "completed"
    assert [step.type for step in done.steps] == [
        "user_input",
        "function_call",
        "function_call",
        "function_result",
        "function_result",
        "model_output",
    ]
    assert done.steps[3].body == {"call_id": "c2", "name": "now", "result": "noon"}
    assert done.interaction.usage == Usage(input=20, output=10, total=30)
    assert [step.type for step in it.model.requests[1].steps] == [step.type for step in done.steps[:5]]
    assert done.session.turns == 1


async def test_partial_answers_add_up(it: Rig) -> None:
    asked = await asked_for_two(it)
    half = await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    assert half.interaction.status == "requires_action"
    assert [call["id"] for call in half.waiting_for] == ["c2"]
    assert len(it.model.requests) == 1
    await it.engine.respond(asked.interaction.id, [{"call_id": "c2", "result": "noon"}])
    assert (await it.ended(asked.interaction.id)).interaction.status == "completed"


async def test_an_error_is_a_result_too(it: Rig) -> None:
    asked = await asked_for_two(it)
    results = [{"call_id": "c1", "result": "no such file", "is_error": True}, {"call_id": "c2", "result": [1, 2]}]
    await it.engine.respond(asked.interaction.id, results)
    await it.ended(asked.interaction.id)
    given = [step.body for step in it.model.requests[1].steps if step.type == "function_result"]
    assert given[0]["is_error"] is True
    assert given[1]["result"] == {"result": [1, 2]}


@pytest.mark.parametrize(
    "results",
    [
        [],
        None,
        "c1",
        [{}],
        [{"call_id": "c1"}],
        [{"call_id": 1, "result": "x"}],
        [{"call_id": "", "result": "x"}],
        [{"call_id": "c9", "result": "x"}],
        [{"call_id": "c1", "result": "x"}, {"call_id": "c1", "result": "x"}],
        [{"call_id": "c1", "result": "x", "is_error": "no"}],
        [{"call_id": "c1", "result": "x", "error": True}],
        [{"call_id": "c1", "result": {"a": "\ud800"}}],
        [{"call_id": "c1", "result": float("nan")}],
        [{"call_id": "c1", "result": "x" * 9_000_000}],
        [{"call_id": "c1", "result": [{"type": "image", "data": "!", "mime_type": "image/png"}]}],
    ],
)
async def test_results_that_fit_no_call_are_refused_and_change_nothing(it: Rig, results: Any) -> None:
    asked = await asked_for_two(it)
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.respond(asked.interaction.id, results)
    assert str(caught.value.fields["field"]).startswith("results")
    after = await it.engine.get_interaction(asked.interaction.id)
    assert (after.interaction.status, len(after.steps)) == ("requires_action", 3)


async def test_an_unknown_call_is_told_which_ones_wait(it: Rig) -> None:
    asked = await asked_for_two(it)
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.respond(asked.interaction.id, [{"call_id": "c9", "result": "x"}])
    assert caught.value.fields["waiting_for"] == ["c1", "c2"]


async def test_answering_twice_the_same_is_fine_and_differently_is_a_conflict(it: Rig) -> None:
    asked = await asked_for_two(it)
    await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    same = await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    assert len(same.steps) == 4
    with pytest.raises(Conflict):
        await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "4"}])
    all_results = [{"call_id": "c1", "result": "3"}, {"call_id": "c2", "result": "noon"}]
    await it.engine.respond(asked.interaction.id, all_results)
    await it.ended(asked.interaction.id)
    late = await it.engine.respond(asked.interaction.id, all_results)
    assert (late.replayed, late.interaction.status) == (True, "completed")
    assert len(it.model.requests) == 2


async def test_a_turn_that_asked_for_nothing_takes_nothing(it: Rig) -> None:
    session = await it.engine.create_session(tools=TOOLS)
    turn = await it.turn(session.id)
    with pytest.raises(InvalidArgument):
        await it.engine.respond(turn.interaction.id, [{"call_id": "c1", "result": "x"}])


async def test_a_cancelled_turn_takes_no_results_and_its_calls_are_closed_for_the_model(it: Rig) -> None:
    asked = await asked_for_two(it)
    await it.engine.cancel(asked.interaction.id)
    with pytest.raises(Conflict) as caught:
        await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    assert caught.value.fields["status"] == "cancelled"
    await it.turn(asked.session.id, "never mind")
    steps = it.model.requests[1].steps
    assert [step.type for step in steps] == [
        "user_input",
        "function_call",
        "function_call",
        "function_result",
        "function_result",
        "user_input",
    ]
    assert steps[3].body["is_error"] is True


async def test_many_rounds_in_one_turn(it: Rig) -> None:
    session = await it.engine.create_session(tools=TOOLS, generation_config=GenerationConfig(tool_choice="any"))
    for n in range(10):
        it.model.script([*called("add", {}, f"c{n}"), *ended("tool_calls")])
    sent = await it.turn(session.id)
    for n in range(10):
        assert sent.interaction.status == "requires_action"
        await it.engine.respond(sent.interaction.id, [{"call_id": f"c{n}", "result": str(n)}])
        sent = await it.ended(sent.interaction.id)
    assert sent.interaction.status == "completed"
    assert len(sent.steps) == 22
    assert [step.seq for step in sent.steps] == list(range(22))
    assert sent.interaction.usage == Usage(input=110, output=55, total=165)
    # A demand for a call holds until one was made; else the model could never answer.
    assert [request.config.tool_choice for request in it.model.requests] == ["any", *["auto"] * 10]


async def test_waiting_turns_and_half_given_answers_survive_a_restart(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model) as it:
        asked = await asked_for_two(it)
        await it.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
    async with rig(tmp_path / "db", model=model) as it:
        still = await it.engine.get_interaction(asked.interaction.id)
        assert still.interaction.status == "requires_action"
        assert [call["id"] for call in still.waiting_for] == ["c2"]
        await it.engine.respond(asked.interaction.id, [{"call_id": "c2", "result": "noon"}])
        done = await it.ended(asked.interaction.id)
    assert texts(done)[-1] == "model_output: ok"


async def test_an_answer_that_is_faster_than_the_end_of_the_run_that_asked(it: Rig) -> None:
    session = await it.engine.create_session(tools=TOOLS, ttl_s=10)
    it.model.gate = asyncio.Event()
    it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    sent = await it.engine.send_turn(session.id, "go")
    await it.model.asked(1)
    # Long enough for the run to have one more write to do after its outcome: giving the session its time again.
    it.clock.now += 9
    it.model.gate.set()
    while (await it.store.get_interaction(sent.interaction.id)).status == "in_progress":
        pass
    it.model.gate.clear()
    await it.engine.respond(sent.interaction.id, [{"call_id": "c1", "result": "3"}])
    await it.model.asked(2)
    assert it.engine.busy == 1
    assert (await it.engine.cancel(sent.interaction.id)).interaction.status == "cancelled"
    assert it.model.running == 0


async def test_two_who_answer_at_once_make_one_run(it: Rig) -> None:
    asked = await asked_for_two(it)
    results = [{"call_id": "c1", "result": "3"}, {"call_id": "c2", "result": "noon"}]
    await asyncio.gather(*(it.engine.respond(asked.interaction.id, results) for _ in range(8)))
    done = await it.ended(asked.interaction.id)
    assert done.interaction.status == "completed"
    assert len(done.steps) == 6
    assert len(it.model.requests) == 2


async def test_the_next_turn_in_line_starts_when_the_waiting_one_is_done(it: Rig) -> None:
    asked = await asked_for_two(it)
    queued = await it.engine.send_turn(asked.session.id, "next", if_busy="queue")
    assert queued.interaction.status == "queued"
    results = [{"call_id": "c1", "result": "3"}, {"call_id": "c2", "result": "noon"}]
    await it.engine.respond(asked.interaction.id, results)
    assert (await it.ended(queued.interaction.id)).interaction.status == "completed"
    assert len(it.model.requests) == 3
