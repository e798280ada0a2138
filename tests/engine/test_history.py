from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kit import Rig, ScriptedModel, called, ended, rig, said
from interactd.engine.run.history import estimate_request
from interactd.engine.run.pieces import NOT_ANSWERED, repaired
from interactd.engine.run.tokens import IMAGE_TOKENS, Calibration, estimate_step
from interactd.errors import ContextOverflow
from interactd.models.port import Finished, StepDelta
from interactd.nouns import Step, Usage, user_input

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def call(call_id: str) -> Step:
    return Step("function_call", {"id": call_id, "name": "f", "arguments": {}})


def result(call_id: str) -> Step:
    return Step("function_result", {"call_id": call_id, "name": "f", "result": "x"})


def shape(steps: list[Step]) -> list[str]:
    return [
        f"{s.type[9:]}:{s.body.get('id') or s.body.get('call_id')}" if "function" in s.type else s.type for s in steps
    ]


async def test_a_call_without_a_result_gets_one_right_after_its_group() -> None:
    steps = [user_input("a"), call("1"), call("2"), result("2"), Step("model_output", {"content": []}), call("3")]
    out = repaired(steps)
    assert shape(out) == [
        "user_input",
        "call:1",
        "call:2",
        "result:1",
        "result:2",
        "model_output",
        "call:3",
        "result:3",
    ]
    assert out[3].body["result"] == NOT_ANSWERED
    assert repaired(out) == out


async def test_results_stand_in_the_order_of_their_calls() -> None:
    steps = [user_input("a"), call("1"), call("2"), result("2"), result("1")]
    assert shape(repaired(steps)) == ["user_input", "call:1", "call:2", "result:1", "result:2"]


async def test_a_result_without_a_call_is_left_out() -> None:
    assert shape(repaired([user_input("a"), result("9"), call("1"), result("1"), result("1")])) == [
        "user_input",
        "call:1",
        "result:1",
    ]


STEPS = st.lists(
    st.sampled_from("abc").flatmap(
        lambda name: st.sampled_from([user_input("x"), call(name), result(name), Step("model_output", {"content": []})])
    ),
    max_size=12,
)


@given(STEPS)
def test_after_repair_calls_and_results_always_pair_up(steps: list[Step]) -> None:
    open_calls: list[str] = []
    for step in repaired(steps):
        if step.type == "function_call":
            open_calls.append(step.body["id"])
        elif step.type == "function_result":
            assert step.body["call_id"] in open_calls
            open_calls = [one for one in open_calls if one != step.body["call_id"]]
        elif step.type == "user_input":
            assert open_calls == []
    assert open_calls == []


async def test_pictures_count_as_pictures_and_not_as_their_base64() -> None:
    step = user_input([{"type": "image", "data": "A" * 4_000_000, "mime_type": "image/png"}])
    assert IMAGE_TOKENS <= estimate_step(step) < IMAGE_TOKENS + 50
    assert estimate_step(user_input("é" * 400)) > estimate_step(user_input("e" * 400)) > 100


async def test_estimates_follow_what_providers_count() -> None:
    calibration = Calibration()
    assert calibration.factor("m") == 1
    calibration.learn("m", 1_000, 1_500)
    assert calibration.factor("m") == 1.5
    calibration.learn("m", 1_000, 100_000)
    assert calibration.factor("m") == 3
    calibration.learn("m", 1_000, None)
    assert calibration.factor("m") == 3


async def test_a_long_session_is_cut_to_the_window_newest_first_and_rarely(tmp_path: Path) -> None:
    model = ScriptedModel(window=2_000, default="y" * 200)
    model.usage = None
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session()
        for n in range(60):
            await it.turn(session.id, f"turn {n} " + "x" * 200)
    firsts = [request.steps[0].text.split()[1] for request in model.requests]
    for n, request in enumerate(model.requests):
        assert request.steps[-1].text.startswith(f"turn {n} ")
        assert request.steps[0].type == "user_input"
        assert estimate_request(request) <= 1_500
        # No gap between the oldest turn shown and this one.
        shown = [int(step.text.split()[1]) for step in request.steps if step.type == "user_input"]
        assert shown == list(range(shown[0], n + 1))
    assert len(model.requests[-1].steps) > 4
    # The prompt's beginning moves in few, large jumps: that keeps providers' prompt caches warm.
    assert len(set(firsts)) < 20


async def test_a_model_with_a_large_window_sees_more_than_one_with_a_small_one(tmp_path: Path) -> None:
    small, large = ScriptedModel("small", window=500), ScriptedModel("large", window=100_000)
    small.usage = large.usage = None
    async with rig(tmp_path / "db", model=small, others=[large]) as it:
        session = await it.engine.create_session()
        for n in range(10):
            await it.turn(session.id, f"t{n} " + "x" * 300)
        await it.turn(session.id, "all of it?", model="large")
    assert len(small.requests[-1].steps) < 8
    assert len(large.requests[0].steps) == 21


async def test_long_tool_results_of_earlier_turns_are_cut_before_turns_are(tmp_path: Path) -> None:
    model = ScriptedModel(window=20_000)
    model.usage = None
    async with rig(tmp_path / "db", model=model) as it:
        session = await it.engine.create_session(tools=[TOOL])
        for n in range(2):
            model.script([*called("add", {}, f"c{n}"), Finished("tool_calls", None, None)])
            turn = await it.turn(session.id, f"t{n}")
            await it.engine.respond(turn.interaction.id, [{"call_id": f"c{n}", "result": "r" * 35_000}])
            await it.ended(turn.interaction.id)
        await it.turn(session.id, "t2")
    last = model.requests[-1]
    assert [step.text for step in last.steps if step.type == "user_input"] == ["t0", "t1", "t2"]
    results = [step.body["result"] for step in last.steps if step.type == "function_result"]
    assert all(len(one) < 17_000 and "characters left out" in one for one in results)
    # The turn that is under way keeps its own result whole.
    assert len(model.requests[1].steps[-1].body["result"]) == 35_000


async def test_an_overflow_is_tried_once_more_with_half_the_history(it: Rig) -> None:
    it.model.context_window = 4_000
    it.model.usage = None
    session = await it.engine.create_session()
    for n in range(6):
        await it.turn(session.id, f"t{n} " + "x" * 1_000)
    it.model.script([ContextOverflow("Too long.")], "fits")
    turn = await it.turn(session.id, "now")
    assert turn.interaction.status == "completed"
    before, after = it.model.requests[-2:]
    assert len(after.steps) < len(before.steps)
    it.model.script([ContextOverflow("Too long.")], [ContextOverflow("Too long.")])
    turn = await it.turn(session.id, "now")
    assert (turn.interaction.status, (turn.interaction.error or {})["code"]) == ("failed", "context_overflow")


async def test_cancelled_and_incomplete_turns_keep_what_they_made(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.script([StepDelta(0, "text", "half"), *ended("length")], [StepDelta(0, "thought_summary", "hm")], "end")
    await it.turn(session.id, "a")
    await it.turn(session.id, "b")
    await it.turn(session.id, "c")
    assert [step.text for step in it.model.requests[2].steps] == ["a", "half", "c"]


async def test_the_estimate_learns_from_usage(it: Rig) -> None:
    it.model.context_window = 8_000
    session = await it.engine.create_session()
    it.model.script([*said("a"), *ended(usage=Usage(input=2_000))])
    await it.turn(session.id, "x" * 4_000)
    factor = it.engine._core.history.calibration.factor(it.model.label)  # pyright: ignore[reportPrivateUsage]
    assert 1.8 < factor < 2.1


@pytest.mark.parametrize("turns", [70])
async def test_a_history_of_more_than_one_read_is_whole(it: Rig, turns: int) -> None:
    session = await it.engine.create_session()
    for n in range(turns):
        await it.turn(session.id, f"t{n}")
    inputs: list[Any] = [step.text for step in it.model.requests[-1].steps if step.type == "user_input"]
    assert inputs == [f"t{n}" for n in range(turns)]
