"""The pure parts of the loop: circles, windows, prompts, questions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from interactd.agents.port import AgentDefinition, RunLimits, Skill
from interactd.builtins.port import Outcome
from interactd.engine.agents.limits import Spent, exceeded, tokens_of
from interactd.engine.agents.loops import hint_for, loop_of
from interactd.engine.agents.prompt import system_prompt
from interactd.engine.agents.steps import (
    answer_of,
    for_model,
    open_calls,
    own_call,
    own_result,
    question,
    rounds,
    waiting_for,
)
from interactd.engine.agents.window import fit
from interactd.engine.run.history import repaired
from interactd.engine.run.outcome import unanswered
from interactd.engine.run.tokens import estimate_step
from interactd.nouns import Json, Step, Usage, text_content, user_input
from interactd.sandbox.environments_port import Environment


def call(name: str, arguments: Json, call_id: str) -> Step:
    return own_call(Step("function_call", {"id": call_id, "name": name, "arguments": arguments}), arguments)


_numbers = itertools.count()


def made(name: str, arguments: Json, result: str, *, failed: bool = False) -> list[Step]:
    step = call(name, arguments, f"c{next(_numbers)}")
    return [step, own_result(step, Outcome(result, failed))]


CODE: Json = {"language": "python", "code": "1/0"}


@pytest.mark.parametrize("name", ["code_execution", "url_fetch", "view_file"])
def test_a_built_in_call_comes_back_to_the_model_as_it_was_made(name: str) -> None:
    arguments: dict[str, Json] = {
        "code_execution": CODE,
        "url_fetch": {"url": "https://example.org"},
        "view_file": {"path": "a"},
    }
    state = {"provider": "gemini", "part": {"thoughtSignature": "abc"}}
    given = Step("function_call", {"id": "c", "name": name, "arguments": arguments[name]}, state)
    kept = own_call(given, arguments[name])
    result = own_result(kept, Outcome("seen", is_error=True))
    back, heard = for_model([kept, result])
    assert back.body == given.body
    assert (back.state or {})["part"] == state["part"]
    assert heard.body == {"call_id": "c", "name": name, "result": "seen", "is_error": True}
    # The journal holds plain JSON.
    assert json.loads(json.dumps(kept.body)) == kept.body


def test_open_calls_are_the_engines_and_unanswered_ones_the_callers() -> None:
    ours = call("view_file", {"path": "a"}, "1")
    theirs = Step("function_call", {"id": "2", "name": "look", "arguments": {}})
    assert open_calls([ours, theirs]) == [ours]
    assert unanswered([ours, theirs]) == [theirs]
    assert open_calls([ours, theirs, own_result(ours, Outcome("x"))]) == []


@pytest.mark.parametrize(
    ("said", "allow"),
    [
        ("allow", True),
        ("Yes.", True),
        (True, True),
        ({"decision": "allow"}, True),
        ({"result": True}, True),
        ([{"type": "text", "text": "allow"}], True),
        ("deny", False),
        ("perhaps", False),
        ("", False),
        (None, False),
        ({"decision": "deny", "reason": "no"}, False),
        ({}, False),
        (1, False),
    ],
)
def test_only_a_clear_yes_allows(said: object, allow: bool) -> None:
    doubtful = call("bump", {}, "1")
    asked = question(doubtful, "replay", "Again?")
    steps = [doubtful, asked]
    assert answer_of(steps, "1") is None
    assert waiting_for(unanswered(steps)) == [
        {"id": asked.body["id"], "name": "bump", "arguments": {}, "kind": "replay", "question": "Again?"}
    ]
    steps.append(Step("function_result", {"call_id": asked.body["id"], "result": said}))
    answer = answer_of(steps, "1")
    assert answer is not None
    assert answer.allow is allow
    assert [step.type for step in for_model(steps)] == ["function_call"], "the model never sees the question"


def test_a_no_that_is_marked_as_an_error_is_a_no_whatever_it_says() -> None:
    doubtful = call("bump", {}, "1")
    asked = question(doubtful, "replay", "Again?")
    given = Step("function_result", {"call_id": asked.body["id"], "result": "allow", "is_error": True})
    answer = answer_of([doubtful, asked, given], "1")
    assert answer is not None
    assert not answer.allow


def test_rounds_count_the_models_answers() -> None:
    steps = [user_input("x"), Step("thought", {"summary": []}), *made("list_dir", {}, "a"), *made("list_dir", {}, "b")]
    assert rounds(steps) == 2
    assert rounds([*steps, Step("model_output", {"content": [text_content("done")]})]) == 3


def test_three_identical_failures_are_a_circle_and_two_are_not() -> None:
    fail = [step for _ in range(2) for step in made("code_execution", CODE, "ZeroDivisionError", failed=True)]
    assert loop_of(fail) is None
    assert "Do something else" in (hint_for(fail, "code_execution", CODE, "ZeroDivisionError", True) or "")
    circle = loop_of([*fail, *made("code_execution", CODE, "other words", failed=True)])
    assert circle is not None
    assert circle.name == "code_execution"


def test_reading_the_same_thing_in_between_does_not_hide_a_circle() -> None:
    steps: list[Step] = []
    for _ in range(4):
        steps += made("view_file", {"path": "a"}, "text") + made("code_execution", CODE, "bad", failed=True)
    assert loop_of(steps) is not None


def test_something_new_that_works_begins_the_count_anew() -> None:
    steps: list[Step] = []
    for n in range(8):
        steps += made("write_file", {"path": "a", "content": str(n)}, "Wrote")
        steps += made("code_execution", CODE, "bad", failed=True)
    assert loop_of(steps) is None


def test_the_same_success_without_end_is_a_circle_after_a_hint() -> None:
    steps = [step for _ in range(5) for step in made("list_dir", {}, "a")]
    assert loop_of(steps) is None
    assert "You have this result already" in (hint_for(steps, "list_dir", {}, "a", False) or "")
    assert loop_of([*steps, *made("list_dir", {}, "a")]) is not None


def test_limits_are_reached_at_their_figure() -> None:
    limits = RunLimits(steps=3, tokens=100, seconds=10)
    assert exceeded(limits, Spent(2, 99, 9.9)) is None
    assert (exceeded(limits, Spent(3, 0, 0)) or {})["code"] == "steps_exceeded"
    assert (exceeded(limits, Spent(0, 100, 0)) or {})["code"] == "tokens_exceeded"
    assert (exceeded(limits, Spent(0, 0, 10)) or {})["code"] == "time_exceeded"
    assert tokens_of(Usage(input=1, output=2, thought=4, cached=8)) == 7


def history(results: int, size: int) -> list[Step]:
    steps = [user_input("THE TASK")]
    for n in range(results):
        steps += made(
            "code_execution", {"language": "python", "code": f"# {n}\n" + "y = 1\n" * 50}, f"{n} " + "word " * size
        )
    return repaired(steps)


@pytest.mark.parametrize("room", [400, 2_000, 10_000, 100_000])
def test_a_long_run_fits_and_keeps_its_task_and_its_newest_result(room: int) -> None:
    steps = history(40, 400)
    cut = fit(steps, room)
    assert sum(map(estimate_step, cut)) <= room * 1.2 + 100
    assert cut[0].text == "THE TASK"
    assert cut[-1].body["result"].startswith("39 ")
    calls = [s.body["id"] for s in cut if s.type == "function_call"]
    assert calls == [s.body["call_id"] for s in cut if s.type == "function_result"], "each call with its result"


def test_what_was_cut_stays_cut_for_many_calls_so_that_prompt_caches_hold() -> None:
    steps = history(60, 200)
    changes = 0
    before: list[Step] | None = None
    for n in range(20, 60):
        cut = fit(steps[: 1 + 2 * n], 6_000)
        if before is not None and [s.body for s in cut[: len(before)]] != [s.body for s in before]:
            changes += 1
        before = cut
    assert changes <= 12, changes


def agent(**more: Any) -> AgentDefinition:
    given: Json = {"id": "a", "hash": "h", "description": "d", "folder": Path("/x"), "instructions": "Do it.\n"}
    return AgentDefinition(**(given | more))


def environment(**more: Any) -> Environment:
    given: Json = {"id": "env_1", "owner": "local", "created_at": 0.0, "last_used_at": 0.0, "expires_at": 1.0}
    return Environment(**(given | more))


def test_the_prompt_names_skills_but_does_not_hold_them() -> None:
    skills = (Skill("b", "does  b\nwell", "/agent/skills/b/SKILL.md"), Skill("a", "does a", "/agent/skills/a/SKILL.md"))
    prompt = system_prompt(
        agent(skills=skills), environment(), tools=["code_execution", "view_file"], python="3.11", instruction=None
    )
    assert prompt.index("- a: does a (/agent/skills/a/SKILL.md)") < prompt.index("- b: does b well (")
    assert "Python 3.11" in prompt


def test_the_prompt_tells_the_truth_about_the_network() -> None:
    def network(rules: Json | None) -> str:
        return system_prompt(agent(), environment(network=rules), tools=["list_dir"], python=None, instruction=None)

    assert "No network." in network(None)
    assert "No network." in network({"allowlist": []})
    assert "only a.org, b.org" in network({"allowlist": [{"domain": "b.org"}, {"domain": "a.org"}]})
    assert "open" in network({"allowlist": [{"domain": "*"}]})


def test_an_agent_without_tools_is_told_of_no_place() -> None:
    assert system_prompt(agent(), environment(), tools=[], python=None, instruction="Be brief.") == (
        "Do it.\n\n# From the user\nBe brief."
    )
