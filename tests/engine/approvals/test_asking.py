"""A run that must ask waits as a state, and goes on by what was answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.agents.kit import Folder, Rig, calls, result_of, rig, runs, several, shown
from engine.kit import until
from interactd.engine.port import Result
from interactd.errors import Conflict, InvalidArgument
from interactd.nouns import Json

pytestmark = pytest.mark.anyio

ASK: Json = {"policy": "always_ask"}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


@pytest.fixture
async def it(tmp_path: Path, anyio_backend: str) -> Any:
    async with rig(tmp_path) as made:
        yield made


async def answer(it: Rig, asked: Result, *said: Any) -> Result:
    """Answer the open questions in order and wait for what comes of it."""
    results = [{"call_id": one["id"], "result": word} for one, word in zip(asked.waiting_for, said, strict=True)]
    await it.engine.respond(asked.interaction.id, results)
    return await it.ended(asked.interaction.id)


def write(path: str, call_id: str = "c1") -> Any:
    return calls("write_file", {"path": path, "content": "x"}, call_id)


async def test_a_call_that_has_to_be_asked_about_waits_and_runs_when_it_is_allowed(it: Rig) -> None:
    it.model.script(runs("open('a', 'w').write('x'); print(6 * 7)"), "done")
    asked = await it.turn(approvals="always_ask")
    assert asked.interaction.status == "requires_action"
    (question,) = asked.waiting_for
    assert (question["kind"], question["name"]) == ("approval", "code_execution")
    assert "Agent helper wants to run this python" in question["question"]
    assert question["default"] == "deny"
    assert question["deadline"].endswith("Z")
    assert it.engine.busy == 0, "it holds no worker"
    assert await it.files(asked) == {}
    done = await answer(it, asked, "allow")
    assert done.interaction.status == "completed"
    assert result_of(done)["result"].strip() == "42"
    assert await it.files(done) == {"a": b"x"}
    assert not any(kind == "function_call" and "approve" in text for kind, text in shown(it.model))


async def test_another_session_works_in_the_same_environment_while_one_waits(it: Rig) -> None:
    it.model.script(runs("print(1)"), runs("print('other')"), "ok")
    asked = await it.turn(approvals=ASK)
    other = await it.session(environment=asked.environment_id)
    done = await it.turn(session=other)
    assert done.interaction.status == "completed"
    assert done.environment_id == asked.environment_id


async def test_a_denied_call_gives_the_model_the_reason(it: Rig) -> None:
    it.model.script(runs("print(1)"), "I see.")
    asked = await it.turn(approvals=ASK)
    done = await answer(it, asked, {"decision": "deny", "reason": "not on a Friday"})
    assert done.interaction.status == "completed"
    assert result_of(done)["is_error"] is True
    assert "not on a Friday" in result_of(done)["result"]
    assert "not on a Friday" in shown(it.model)[-1][1]


async def test_several_are_asked_together_the_allowed_run_and_the_others_do_not(it: Rig) -> None:
    it.model.script(
        several(
            ("write_file", {"path": "a", "content": "1"}, "a"),
            ("write_file", {"path": "b", "content": "2"}, "b"),
            ("write_file", {"path": "c", "content": "3"}, "c"),
        ),
        "ok",
    )
    asked = await it.turn(approvals=ASK)
    assert [one["arguments"]["path"] for one in asked.waiting_for] == ["a", "b", "c"]
    done = await answer(it, asked, "allow", {"decision": "deny", "reason": "no b"}, "allow")
    assert set(await it.files(done)) == {"a", "c"}
    assert "no b" in result_of(done, "b")["result"]
    assert len(it.model.requests) == 2


async def test_calls_in_front_of_the_question_run_first_and_those_behind_it_wait(it: Rig) -> None:
    it.model.script(
        several(
            ("write_file", {"path": "first", "content": "1"}, "1"),
            ("code_execution", {"language": "bash", "code": "mv first second"}, "2"),
            ("view_file", {"path": "second"}, "3"),
        ),
        "ok",
    )
    asked = await it.turn(approvals={"tools": {"code_execution": "always_ask"}})
    assert [one["name"] for one in asked.waiting_for] == ["code_execution"]
    assert any(step.body.get("call_id") == "1" for step in asked.steps)
    assert not any(step.body.get("call_id") == "3" for step in asked.steps)
    done = await answer(it, asked, "allow")
    assert "1" in result_of(done, "3")["result"]
    assert not result_of(done, "3").get("is_error")


async def test_functions_of_the_callers_are_not_asked_about(it: Rig) -> None:
    await it.session(tools=[LOOK], approvals="always_ask")
    it.model.script(several(("look", {}, "theirs"), ("list_dir", {}, "ours")), "ok")
    asked = await it.turn()
    assert [one.get("kind") for one in asked.waiting_for] == [None, "approval"]
    done = await answer(it, asked, "a bird", "allow")
    assert done.interaction.status == "completed"


async def test_allowed_for_the_run_holds_for_the_run_and_for_no_other(it: Rig) -> None:
    it.model.script(write("a", "1"), write("b", "2"), runs("print(1)", "3"), "ok", write("c", "4"))
    await it.session(approvals="always_ask")
    asked = await it.turn()
    asked = await answer(it, asked, {"decision": "allow", "scope": "run"})
    assert [one["name"] for one in asked.waiting_for] == ["code_execution"], "b was written unasked"
    done = await answer(it, asked, "allow")
    assert set(await it.files(done)) == {"a", "b"}
    again = await it.turn("another")
    assert again.interaction.status == "requires_action"


async def test_allowed_for_the_session_holds_for_its_turns_after_a_restart_and_for_no_fork(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put()
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("a"), "ok")
        session = await it.session(approvals="always_ask")
        asked = await it.turn()
        done = await answer(it, asked, {"decision": "allow", "scope": "session"})
        assert done.interaction.status == "completed"
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("b"), "ok", write("c"))
        done = await it.turn(session=session)
        assert done.interaction.status == "completed"
        fork = await it.engine.fork_session(session.id)
        assert (await it.turn(session=fork)).interaction.status == "requires_action"


async def test_who_answered_and_how_is_in_the_journal(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    asked = await it.turn(approvals=ASK)
    done = await answer(it, asked, {"decision": "allow", "scope": "run", "reason": "fine"})
    given = next(step for step in done.steps if step.body.get("call_id") == asked.waiting_for[0]["id"])
    assert given.body["result"] == {"decision": "allow", "scope": "run", "reason": "fine"}


async def test_an_unclear_answer_is_an_error_and_changes_nothing(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    asked = await it.turn(approvals=ASK)
    call_id = asked.waiting_for[0]["id"]
    for wrong in (
        "maybe",
        5,
        {"decision": "alow"},
        {"decision": "allow", "scope": "ever"},
        {"decision": "allow", "scop": "run"},
        {"decision": "deny", "reason": 5},
    ):
        with pytest.raises(InvalidArgument):
            await it.engine.respond(asked.interaction.id, [{"call_id": call_id, "result": wrong}])
    still = await it.engine.get_interaction(asked.interaction.id)
    assert (still.interaction.status, len(still.steps)) == ("requires_action", len(asked.steps))


async def test_an_answer_given_twice_is_one_and_another_one_is_a_conflict(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    asked = await it.turn(approvals=ASK)
    call_id = asked.waiting_for[0]["id"]
    await answer(it, asked, "allow")
    again = await it.engine.respond(asked.interaction.id, [{"call_id": call_id, "result": "yes"}])
    assert again.replayed
    with pytest.raises(Conflict):
        await it.engine.respond(asked.interaction.id, [{"call_id": call_id, "result": "deny"}])


async def test_two_who_answer_at_once_make_one_run(it: Rig) -> None:
    it.model.script(runs("open('log', 'a').write('x')"), "ok")
    asked = await it.turn(approvals=ASK)
    results = [{"call_id": asked.waiting_for[0]["id"], "result": "allow"}]
    await asyncio.gather(*(it.engine.respond(asked.interaction.id, results) for _ in range(6)))
    done = await it.ended(asked.interaction.id)
    assert await it.files(done) == {"log": b"x"}


async def test_rules_allow_ask_and_deny_by_tool_and_arguments(it: Rig) -> None:
    policy: Json = {
        "rules": [
            {"tools": "code_execution", "command": ".*rm -rf.*", "decision": "deny", "reason": "too dangerous"},
            {"tools": "code_execution", "command": "echo [a-z]+", "decision": "allow"},
            {"paths": ["notes/**"], "decision": "allow"},
            {"read_only": True, "decision": "allow"},
        ]
    }
    it.model.script(
        several(
            ("write_file", {"path": "notes/a", "content": "1"}, "1"),
            ("list_dir", {}, "2"),
            ("code_execution", {"language": "bash", "code": "echo hi"}, "3"),
            ("code_execution", {"language": "bash", "code": "rm -rf notes"}, "4"),
            ("write_file", {"path": "elsewhere", "content": "1"}, "5"),
        )
    )
    asked = await it.turn(approvals=policy)
    assert [one["arguments"]["path"] for one in asked.waiting_for] == ["elsewhere"]
    assert "too dangerous" in result_of(asked, "4")["result"]
    assert result_of(asked, "3")["result"] == "hi"
    assert set(await it.files(asked)) == {"notes/a"}


async def test_the_agents_policy_holds_and_a_caller_cannot_loosen_it(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put(approvals=({"tools": {"files": "always_ask"}},))
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("a"))
        await it.session(approvals="always_allow")
        asked = await it.turn(approvals="always_allow")
        assert asked.interaction.status == "requires_action"


async def test_the_environments_policy_holds_for_whoever_works_in_it_and_in_its_forks(it: Rig) -> None:
    made = await it.environments.create({"approvals": "always_ask"})
    fork = await it.environments.create({"from_environment": made.id, "approvals": "always_allow"})
    for place in (made, fork):
        it.model.script(write("a"))
        await it.session(environment=place.id)
        assert (await it.turn()).interaction.status == "requires_action"


async def test_only_the_users_configuration_loosens_and_a_caller_can_tighten_that_again(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put(approvals=({"policy": "always_ask"},))
    async with rig(tmp_path, agents=agents, approvals={"tools": {"files": "always_allow"}}) as it:
        it.model.script(write("a"), runs("print(1)", "c2"), "ok", write("b"))
        await it.session()
        asked = await it.turn()
        assert [one["name"] for one in asked.waiting_for] == ["code_execution"]
        await answer(it, asked, "allow")
        tightened = await it.turn(approvals={"tools": {"write_file": "always_ask"}})
        assert tightened.interaction.status == "requires_action"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("never", "approvals"),
        (5, "approvals"),
        ({"tools": {"code_exection": "always_ask"}}, "approvals.tools.code_exection"),
        ({"tools": {"files": "sometimes"}}, "approvals.tools.files"),
        ({"rules": [{"decision": "allow", "command": "("}]}, "approvals.rules[0].command"),
        ({"rules": [{"tools": "files"}]}, "approvals.rules[0].decision"),
        ({"deadline_s": -1}, "approvals.deadline_s"),
        ({"default": "maybe"}, "approvals.default"),
        ({"ruls": []}, "approvals"),
    ],
)
async def test_a_policy_of_the_wrong_shape_is_refused_by_its_field(it: Rig, given: Any, field: str) -> None:
    session = await it.session()
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.send_turn(session.id, "x", approvals=given)
    assert caught.value.fields["field"] == field
    with pytest.raises(InvalidArgument):
        await it.session(approvals=given)


async def test_a_turn_of_a_model_has_nothing_to_ask(it: Rig) -> None:
    session = await it.engine.create_session(model="m1")
    with pytest.raises(InvalidArgument):
        await it.engine.send_turn(session.id, "x", approvals="always_ask")


async def test_questions_survive_a_restart_and_are_answered_after_it(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put()
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("a"))
        asked = await it.turn(approvals=ASK)
    async with rig(tmp_path, agents=agents) as it:
        it.model.script("ok")
        still = await it.engine.get_interaction(asked.interaction.id)
        assert still.waiting_for == asked.waiting_for
        done = await answer(it, still, "allow")
        assert set(await it.files(done)) == {"a"}


async def test_a_waiting_turn_is_given_up_by_a_cancel_and_its_calls_are_closed(it: Rig) -> None:
    it.model.script(write("a"), "next")
    asked = await it.turn(approvals=ASK)
    done = await it.engine.cancel(asked.interaction.id)
    assert done.interaction.status == "cancelled"
    assert "cancelled" in result_of(done)["result"]
    after = await it.turn("go on")
    assert after.interaction.status == "completed"


async def test_what_was_answered_by_default_is_recorded_and_told_to_the_model(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 60})
    it.clock.now += 61
    it.engine._core.asked.set()  # pyright: ignore[reportPrivateUsage]
    await until(lambda: moved_on(it, asked))
    done = await it.ended(asked.interaction.id)
    assert done.interaction.status == "completed"
    assert await it.files(done) == {}
    given = next(step for step in done.steps if step.body.get("call_id") == asked.waiting_for[0]["id"])
    assert given.body["result"]["by"] == "default"
    assert given.body["result"]["decision"] == "deny"
    assert "Nobody answered in time" in result_of(done)["result"]
    with pytest.raises(Conflict) as caught:
        await it.engine.respond(asked.interaction.id, [{"call_id": asked.waiting_for[0]["id"], "result": "allow"}])
    assert "deadline" in caught.value.message


async def test_the_default_can_be_to_allow(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 1, "default": "allow"})
    it.clock.now += 2
    it.engine._core.asked.set()  # pyright: ignore[reportPrivateUsage]
    await until(lambda: moved_on(it, asked))
    assert set(await it.files(await it.ended(asked.interaction.id))) == {"a"}


async def test_a_deadline_that_passed_while_no_daemon_was_there_is_kept_once_at_the_next_start(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put()
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("a"))
        asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 3600})
        clock = it.clock
    clock.now += 90_000
    for _ in range(2):
        async with rig(tmp_path, agents=agents, clock=clock) as it:
            await until(lambda it=it: moved_on(it, asked))
            done = await it.ended(asked.interaction.id)
            assert done.interaction.status == "completed"
            given = [step for step in done.steps if step.body.get("call_id") == asked.waiting_for[0]["id"]]
            assert len(given) == 1


async def test_of_an_answer_and_the_deadline_one_holds(it: Rig) -> None:
    it.model.script(runs("open('log', 'a').write('x')"), "ok")
    asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 5, "default": "allow"})
    it.clock.now += 6
    it.engine._core.asked.set()  # pyright: ignore[reportPrivateUsage]
    results = [{"call_id": asked.waiting_for[0]["id"], "result": "allow"}]
    said = await asyncio.gather(
        *(it.engine.respond(asked.interaction.id, results) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(one, Conflict | Result) for one in said)
    await until(lambda: moved_on(it, asked))
    done = await it.ended(asked.interaction.id)
    assert await it.files(done) == {"log": b"x"}
    assert sum(step.body.get("call_id") == asked.waiting_for[0]["id"] for step in done.steps) == 1


async def test_the_strictest_deadline_and_default_hold(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put(approvals=({"policy": "always_ask", "deadline_s": 7200, "default": "allow"},))
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(write("a"))
        asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 600})
        (due,) = [due for _, due in await it.store.due()]
        assert due == pytest.approx(it.clock.now + 600)
        assert asked.waiting_for[0]["default"] == "deny"


async def test_a_session_whose_time_is_over_is_kept_while_it_waits_and_can_be_answered(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    await it.session(ttl_s=10)
    asked = await it.turn(approvals=ASK)
    it.clock.now += 3600
    assert await it.store.sweep(it.clock.now) == []
    done = await answer(it, asked, "allow")
    assert done.interaction.status == "completed"


async def moved_on(it: Rig, asked: Result) -> bool:
    return (await it.store.get_interaction(asked.interaction.id)).status != "requires_action"


async def test_a_deadline_is_something_to_stay_for_until_it_is_answered(it: Rig) -> None:
    it.model.script(write("a"), "ok")
    assert it.engine.holding == 0
    asked = await it.turn(approvals={"policy": "always_ask", "deadline_s": 3600})

    async def holds(number: int) -> bool:
        return it.engine.holding == number

    await until(lambda: holds(1))
    assert it.engine.busy == 0, "nothing runs all the same"
    await answer(it, asked, "allow")
    it.engine._core.asked.set()  # pyright: ignore[reportPrivateUsage]
    await until(lambda: holds(0))
