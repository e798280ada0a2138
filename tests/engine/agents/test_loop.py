"""The loop: model, tools, results, until there is an answer; and everything else that can end it."""

from __future__ import annotations

import asyncio

import pytest

from engine.agents.kit import Rig, calls, result_of, runs, several, shown, steps
from engine.kit import Item, ScriptedModel, called, ended, said
from interactd.errors import ContextOverflow, InvalidArgument, NotFound, ProviderUnavailable
from interactd.models.port import Finished, ModelRequest
from interactd.nouns import Usage

pytestmark = pytest.mark.anyio

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


async def test_an_agent_runs_code_and_answers_and_its_file_is_kept(it: Rig) -> None:
    it.model.script(runs("open('a.txt', 'w').write('hi'); print(6 * 7)"), "It is 42.")
    result = await it.turn("what is 6 * 7?")
    assert result.interaction.status == "completed"
    assert steps(result) == ["user_input", "code_execution_call", "code_execution_result", "model_output"]
    assert result.steps[1].body["arguments"]["language"] == "python"
    assert result_of(result)["result"].strip() == "42"
    assert await it.files(result) == {"a.txt": b"hi"}
    assert result.interaction.agent == "helper"
    assert result.interaction.agent_hash
    assert result.interaction.environment_id == result.session.environment
    assert (result.interaction.isolation or {})["launcher"] == "bubblewrap"


async def test_the_model_sees_its_calls_as_functions_and_their_results(it: Rig) -> None:
    it.model.script(runs("print('one')"), "ok")
    await it.turn()
    assert shown(it.model)[1:] == [
        ("function_call", "{'language': 'python', 'code': \"print('one')\"}"),
        ("function_result", "one"),
    ]
    names = [tool["name"] for tool in it.model.requests[-1].tools]
    assert names == sorted(names)
    assert "url_fetch" not in names, "there is no network"


async def test_variables_and_files_are_there_in_the_next_turn(it: Rig) -> None:
    it.model.script(runs("x = 41; open('kept', 'w').write('y')"), "ok", runs("print(x + 1, open('kept').read())"), "ok")
    first = await it.turn()
    second = await it.turn()
    assert result_of(second)["result"].strip() == "42 y"
    assert first.interaction.environment_id == second.interaction.environment_id


async def test_earlier_turns_of_the_agent_are_replayed_to_the_model(it: Rig) -> None:
    it.model.script(runs("print('one')"), "done", "again")
    await it.turn("first")
    await it.turn("second")
    kinds = [kind for kind, _ in shown(it.model)]
    assert kinds == ["user_input", "function_call", "function_result", "model_output", "user_input"]


async def test_model_and_agent_turns_mix_in_one_session(it: Rig) -> None:
    it.model.script(runs("print(1)"), "from the agent", "from the model", "agent again")
    await it.turn("one")
    plain = await it.turn("two", model="m1")
    assert plain.interaction.agent is None
    assert it.model.requests[-1].tools == []
    assert [kind for kind, _ in shown(it.model)].count("function_result") == 1
    again = await it.turn("three")
    assert again.interaction.agent == "helper"


async def test_a_model_session_takes_an_agents_turn(it: Rig) -> None:
    session = await it.engine.create_session(model="m1")
    it.model.script("plain", runs("print(2)"), "agent")
    await it.turn(session=session)
    result = await it.turn(session=session, agent="helper")
    assert result.interaction.agent == "helper"
    assert result.session.agent is None
    assert result.session.agent_pins == {"helper": result.interaction.agent_hash}


async def test_model_and_agent_together_are_refused(it: Rig) -> None:
    session = await it.session()
    with pytest.raises(InvalidArgument) as caught:
        await it.engine.send_turn(session.id, "x", model="m1", agent="helper")
    assert caught.value.fields["field"] == "agent"
    with pytest.raises(InvalidArgument):
        await it.engine.send_turn(session.id, "x", model="m1", environment="remote")


async def test_an_unknown_agent_or_environment_is_refused_before_anything_is_kept(it: Rig) -> None:
    with pytest.raises(NotFound):
        await it.session(agent="nobody")
    session = await it.session()
    with pytest.raises(NotFound):
        await it.engine.send_turn(session.id, "x", environment="env_00000000000000000000000000")
    assert (await it.engine.get_session(session.id)).turns == 0


async def test_a_session_keeps_the_agent_it_began_with(it: Rig) -> None:
    session = await it.session()
    it.agents.put(instructions="Somebody else.")
    await it.turn(session=session)
    assert "You help." in (it.model.requests[-1].system_instruction or "")
    await it.turn(session=await it.session())
    assert "Somebody else." in (it.model.requests[-1].system_instruction or "")


async def test_the_system_prompt_is_the_same_bytes_at_every_turn(it: Rig) -> None:
    await it.session(system_instruction="Be brief.")
    it.model.script(runs("print(1)"), "a", "b")
    await it.turn()
    await it.turn()
    prompts = {request.system_instruction for request in it.model.requests}
    assert len(prompts) == 1
    prompt = prompts.pop() or ""
    assert prompt.startswith("You help.")
    assert prompt.endswith("Be brief.")
    assert "No network." in prompt
    assert "- Python 3." in prompt


async def test_calls_that_only_read_run_at_once_and_keep_their_results_apart(it: Rig) -> None:
    it.model.script(
        several(("write_file", {"path": "a", "content": "A"}, "1"), ("write_file", {"path": "b", "content": "B"}, "2")),
        several(("view_file", {"path": "a"}, "3"), ("view_file", {"path": "b"}, "4")),
        "ok",
    )
    result = await it.turn()
    assert result_of(result, "3")["result"] == "1\tA"
    assert result_of(result, "4")["result"] == "1\tB"


async def test_functions_of_the_callers_wait_for_it_after_the_built_in_ones_ran(it: Rig) -> None:
    await it.session(tools=[LOOK])
    it.model.script(
        several(("look", {}, "theirs"), ("code_execution", {"language": "bash", "code": "echo hi"}, "ours")), "ok"
    )
    result = await it.turn()
    assert result.interaction.status == "requires_action"
    assert [call["id"] for call in result.waiting_for] == ["theirs"]
    assert result_of(result, "ours")["result"] == "hi"
    await it.engine.respond(result.interaction.id, [{"call_id": "theirs", "result": "a bird"}])
    done = await it.ended(result.interaction.id)
    assert done.interaction.status == "completed"
    assert ("function_result", "a bird") in shown(it.model)
    assert ("function_result", "hi") in shown(it.model)


async def test_the_callers_limits_hold_after_it_answered(it: Rig) -> None:
    await it.session(tools=[LOOK])
    it.model.script(calls("look", {}, "1"), calls("look", {}, "2"), calls("look", {}, "3"))
    asked = await it.turn(limits={"steps": 2})
    for call_id in "12":
        await it.engine.respond(asked.interaction.id, [{"call_id": call_id, "result": f"bird {call_id}"}])
        asked = await it.ended(asked.interaction.id)
    assert (asked.interaction.error or {})["code"] == "steps_exceeded"
    assert len(it.model.requests) == 2


async def test_a_function_under_a_built_in_name_is_refused(it: Rig) -> None:
    with pytest.raises(InvalidArgument):
        await it.session(tools=[{**LOOK, "name": "view_file"}])


async def test_unknown_tools_and_bad_arguments_are_explained_to_the_model(it: Rig) -> None:
    it.model.script(
        calls("read_file", {"path": "a"}, "1"),
        calls("view_file", {"pathh": "a"}, "2"),
        calls("code_execution", {"language": "perl", "code": "1"}, "3"),
        "I give up politely.",
    )
    result = await it.turn()
    assert result.interaction.status == "completed"
    assert "Use view_file instead." in result_of(result, "1")["result"]
    assert "Did you mean path?" in result_of(result, "2")["result"]
    assert '"python" | "bash"' in result_of(result, "3")["result"]
    assert all(result_of(result, one)["is_error"] for one in "123")


async def test_a_model_that_only_makes_garbage_calls_is_given_up_with_its_work_kept(it: Rig) -> None:
    it.model.script(runs("open('f', 'w').write('x')", "c0"))

    def garbage(request: ModelRequest) -> list[Item]:
        return calls(f"nonsense{len(request.steps)}", {}, f"g{len(request.steps)}")

    it.model.default = garbage
    result = await it.turn()
    assert result.interaction.status == "failed"
    assert (result.interaction.error or {})["code"] == "bad_tool_calls"
    assert await it.files(result) == {"f": b"x"}
    assert len(it.model.requests) == 6


async def test_the_same_failing_call_three_times_is_a_loop(it: Rig) -> None:

    def failing(request: ModelRequest) -> list[Item]:
        return runs("1 / 0", f"c{len(request.steps)}")

    it.model.default = failing
    result = await it.turn()
    assert result.interaction.status == "incomplete"
    assert (result.interaction.error or {})["code"] == "loop_detected"
    assert len(it.model.requests) == 3


async def test_failing_calls_that_alternate_are_a_loop_too(it: Rig) -> None:
    def turn_about(request: ModelRequest) -> list[Item]:
        n = len(it.model.requests)
        return runs("1 / 0" if n % 2 else "int('x')", f"c{n}")

    it.model.default = turn_about
    result = await it.turn()
    assert (result.interaction.error or {})["code"] == "loop_detected"
    assert len(it.model.requests) == 5


async def test_testing_and_fixing_again_and_again_is_no_loop(it: Rig) -> None:
    for n in range(5):
        it.model.script(runs("1 / 0", f"t{n}"), calls("write_file", {"path": "a", "content": str(n)}, f"w{n}"))
    it.model.script("I tried.")
    result = await it.turn()
    assert result.interaction.status == "completed"


async def test_steps_are_limited_and_the_work_is_kept(it: Rig) -> None:

    def writing(request: ModelRequest) -> list[Item]:
        return runs(f"open('n', 'w').write('{len(request.steps)}')", f"c{len(request.steps)}")

    it.model.default = writing
    result = await it.turn(limits={"steps": 4})
    assert result.interaction.status == "incomplete"
    error = result.interaction.error or {}
    assert error["code"] == "steps_exceeded"
    assert "go on" in error["repair"]
    assert len(it.model.requests) == 4
    assert await it.files(result) == {"n": b"7"}
    it.model.default = "done"
    assert (await it.turn("go on")).interaction.status == "completed"


async def test_tokens_are_limited_also_where_the_provider_does_not_count(it: Rig) -> None:
    def silent(request: ModelRequest) -> list[Item]:
        n = len(it.model.requests)
        return [
            *called("list_dir", {"path": "."} | ({"recursive": True} if n % 2 else {}), f"c{n}"),
            Finished("tool_calls", None, None),
        ]

    it.model.default = silent
    result = await it.turn(limits={"tokens": 1})
    assert (result.interaction.error or {})["code"] == "tokens_exceeded"
    assert len(it.model.requests) == 1


async def test_time_is_limited_and_what_was_printed_is_kept(it: Rig) -> None:
    it.model.script(runs("import time\nprint('begun', flush=True)\ntime.sleep(60)"), "never")
    result = await it.turn(limits={"seconds": 3})
    assert (result.interaction.error or {})["code"] == "time_exceeded"
    assert "begun" in result_of(result)["result"]
    assert len(it.model.requests) == 1


async def test_a_cancel_stops_the_code_within_two_seconds_and_keeps_what_there_is(it: Rig) -> None:
    session = await it.session()
    code = "open('half', 'w').write('1')\nprint('begun', flush=True)\nimport time\ntime.sleep(60)\nopen('whole', 'w')"
    it.model.script(runs(code))
    sent = await it.engine.send_turn(session.id, "x")
    await it.model.asked(1)
    for _ in range(500):
        environments = await it.environments.list()
        if environments and await it.environments.files(environments[0].id):
            break
        await asyncio.sleep(0.02)
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await it.engine.cancel(sent.interaction.id)
    assert loop.time() - began < 2.5
    assert result.interaction.status == "cancelled"
    assert "begun" in result_of(result)["result"]
    assert await it.files(result) == {"half": b"1"}
    it.model.script(runs("import os; print(os.path.exists('whole'))", "c2"), "ok")
    assert result_of(await it.turn(), "c2")["result"].startswith("False")


async def test_a_cancel_while_the_model_speaks_keeps_its_words(it: Rig) -> None:
    session = await it.session()
    hold = asyncio.Event()
    it.model.script([*said("half an answer")[:-1], hold])
    sent = await it.engine.send_turn(session.id, "x")
    await it.model.asked(1)
    for _ in range(500):
        if (await it.engine.get_interaction(sent.interaction.id)).partial_text == "half an answer":
            break
        await asyncio.sleep(0.01)
    result = await it.engine.cancel(sent.interaction.id)
    assert result.interaction.status == "cancelled"
    assert result.steps[-1].text == "half an answer"


async def test_a_provider_that_fails_in_the_middle_leaves_the_work(it: Rig) -> None:
    it.model.script(runs("open('f', 'w').write('x')"), [ProviderUnavailable("gone")])
    result = await it.turn()
    assert result.interaction.status == "failed"
    assert (result.interaction.error or {})["code"] == "provider_unavailable"
    assert await it.files(result) == {"f": b"x"}
    assert result.interaction.usage is not None


async def test_usage_of_all_calls_is_added_up(it: Rig) -> None:
    it.model.script(runs("print(1)"), runs("print(2)", "c2"), "ok")
    result = await it.turn()
    assert result.interaction.usage == Usage(input=30, output=15, total=45)


async def test_an_empty_answer_after_tools_is_asked_for_once_more(it: Rig) -> None:
    it.model.script(runs("print(1)"), ended(), "Here it is.")
    result = await it.turn()
    assert result.interaction.status == "completed"
    assert result.steps[-1].text == "Here it is."


async def test_long_output_is_cut_in_the_middle_and_whole_in_a_file(it: Rig) -> None:
    it.model.script(
        runs("print('first'); print('x' * 50 + '\\n' * 1, end='')\nfor n in range(4000): print(n)\nprint('last')"), "ok"
    )
    result = await it.turn()
    text = result_of(result)["result"]
    assert text.startswith("first")
    assert "last" in text[-10:]
    assert len(text) < 13_000
    path = next(word for word in text.split() if word.startswith(".outputs/")).rstrip(":")
    assert (await it.files(result))[path].count(b"\n") > 4000


async def test_a_history_longer_than_the_window_is_cut_until_it_fits(it: Rig) -> None:
    it.model.context_window = 6_000
    for n in range(12):
        it.model.script(runs(f"print('line {n} ' * 1500)", f"c{n}"))
    it.model.script("done")
    result = await it.turn("THE TASK")
    assert result.interaction.status == "completed"
    for request in it.model.requests:
        assert request.steps[0].text == "THE TASK"
        size = sum(len(str(step.body)) for step in request.steps)
        assert size < 8 * 6_000, "the scripted model counts little, so the room is taken for twice as large"


async def test_a_context_overflow_is_tried_again_with_less(it: Rig) -> None:
    it.model.script(runs("print('a ' * 5000)"), [ContextOverflow("too long")], "ok")
    result = await it.turn()
    assert result.interaction.status == "completed"


async def test_live_events_name_the_steps_as_the_journal_does(it: Rig) -> None:
    session = await it.session()
    it.model.script(runs("print(1)"), "ok")
    sent = await it.engine.send_turn(session.id, "x")
    events = await it.events(sent.interaction.id)
    started = [e.data["step"]["type"] for e in events if e.type == "step.start"]
    assert started == ["code_execution_call", "code_execution_result", "model_output"]
    indexes = [e.data["index"] for e in events if e.type == "step.stop"]
    assert indexes == [0, 1, 2]
    assert events[-1].data["status"] == "completed"


async def test_a_fresh_environment_can_be_asked_for_and_a_fork_works_on_a_copy(it: Rig) -> None:
    session = await it.session()
    it.model.script(calls("write_file", {"path": "f", "content": "1"}), "ok")
    first = await it.turn(session=session)
    it.model.script(calls("list_dir", {}, "c2"), "ok")
    fresh = await it.turn(session=session, environment="remote")
    assert fresh.interaction.environment_id != first.interaction.environment_id
    assert "empty" in result_of(fresh, "c2")["result"]
    fork = await it.engine.fork_session(session.id, at=first.interaction.id)
    it.model.script(calls("list_dir", {}, "c3"), "ok")
    forked = await it.turn(session=fork)
    assert forked.interaction.environment_id not in (first.interaction.environment_id, fresh.interaction.environment_id)


async def test_an_agent_that_needs_more_isolation_than_there_is_is_refused(it: Rig) -> None:
    weak = {"memory": "enforced", "disk": "enforced", "cpu": "enforced", "syscalls": "enforced", "network": "enforced"}
    it.agents.put(id="strict", requires=weak)
    session = await it.session(agent="strict")
    result = await it.turn(session=session)
    capability = next(one for one in await it.environments.launchers() if one["launcher"] == "bubblewrap")
    if all(capability["isolation"][name] == "enforced" for name in weak):
        assert result.interaction.status == "completed"
    else:
        assert (result.interaction.error or {})["code"] == "sandbox_unavailable"
        assert (result.interaction.error or {})["repair"]


async def test_no_second_environment_is_made_by_a_turn_that_waited(it: Rig) -> None:
    session = await it.session()
    it.model.script(runs("print(1)"), "one", "two")
    first = await it.engine.send_turn(session.id, "a")
    second = await it.engine.send_turn(session.id, "b", if_busy="queue")
    one, two = await it.ended(first.interaction.id), await it.ended(second.interaction.id)
    assert one.interaction.environment_id == two.interaction.environment_id
    assert len(await it.environments.list()) == 1
    assert isinstance(it.model, ScriptedModel)
