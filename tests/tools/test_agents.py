"""Agents over the tools: started in the background, watched, asked, stopped; who they are and where they work."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from interactd.agents.port import AgentProblem
from interactd.builtins.declare import declare
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.engine.port import Result
from interactd.nouns import Interaction, Json, Session, Step
from interactd_tools.answers.interaction import View, show
from interactd_tools.answers.progress import doing, files_written, progress
from tools.conftest import AgentWorld, World, agents_at, fields
from tools.scripted import Says, ScriptedCatalog

pytestmark = pytest.mark.anyio


async def test_a_run_is_started_at_once_with_its_ids_and_the_exact_next_call(agents: AgentWorld) -> None:
    gate = asyncio.Event()
    agents.says(Says([gate, "Done."]))
    begun = time.monotonic()
    started = await agents.ok("run_agent_background", input="Count the stars.", title="Stars")
    assert time.monotonic() - begun < 2
    ids = fields(started)
    assert ids["status"] in ("queued", "in_progress")
    assert ids["agent"] == "antigravity"
    head = f"{ids['status']} · interaction {ids['interaction_id']} · session {ids['session_id']} · agent antigravity"
    assert started.text.startswith(head)
    following = f'Next: get_interaction(interaction_id="{ids["interaction_id"]}", wait_s=30), or cancel_interaction('
    assert following in started.text
    assert "do not send it again" in started.text
    gate.set()
    done = await agents.ok(ids["next"]["tool"], **ids["next"]["arguments"])
    assert fields(done)["status"] == "completed"
    assert "Done." in done.text
    listed = await agents.ok("list_sessions")
    assert '"Stars" · agent antigravity on scripted/parrot' in listed.text


async def test_a_finished_run_says_what_it_left_where_and_how_closed_off(agents: AgentWorld) -> None:
    agents.runs("open('a.csv', 'w').write('x,y\\n1,2\\n'); open('b.txt', 'w').write('b')", text="Let me write it.")
    agents.says("It is written.")
    started = fields(await agents.ok("run_agent_background", input="Write."))
    done = await agents.ok("get_interaction", interaction_id=started["interaction_id"], wait_s=45)
    assert "It is written." in done.text
    assert "Let me write it." not in done.text, "what it said on the way is no answer"
    assert '2 files kept:\n- "a.csv" · text/csv · 8 bytes\n- "b.txt" · text/plain · 1 byte' in done.text
    ids = fields(done)
    assert f"Environment: {ids['environment_id']} · sandbox bubblewrap: " in done.text
    assert ids["sandbox"].startswith("bubblewrap: ")
    assert re.search(r"Tokens: 104 in .* · \d+\.\d s · 1 step\n", done.text)
    assert [one["name"] for one in ids["artifacts"]] == ["a.csv", "b.txt"]
    assert ids["next"] == {"tool": "fetch_artifacts", "arguments": {"interaction_id": ids["interaction_id"]}}
    assert f'or send_turn(session_id="{ids["session_id"]}", input="...")' in done.text
    detailed = await agents.ok(
        "get_interaction", interaction_id=ids["interaction_id"], response_format="detailed", max_tokens=8000
    )
    for part in ("Let me write it.", "[runs python, call_id=c1]\nopen('a.csv'", "[output, call_id=c1]"):
        assert part in detailed.text


async def test_a_running_agent_says_what_it_does_now(agents: AgentWorld) -> None:
    session_id = fields(await agents.ok("create_session", agent="antigravity"))["session_id"]
    write = {"path": "notes/a.md", "content": "# A"}
    agents.says(Says(calls=[{"id": "w1", "name": "write_file", "arguments": write}]))
    agents.runs("import time\nprint('waiting', flush=True)\nwhile True: time.sleep(0.05)", call_id="r1")
    told: list[tuple[str, str]] = []

    async def hear(message: str, kind: str) -> None:
        told.append((message, kind))

    started = fields(
        await agents.ok("send_turn", session_id=session_id, agent="antigravity", input="Go.", background=True)
    )
    line = ""
    async with asyncio.timeout(30):
        while "Printed so far" not in line:
            arguments = {"interaction_id": started["interaction_id"], "wait_s": 0.5}
            line = (await agents.call("get_interaction", arguments, progress=hear)).text
    assert re.search(r"Running for [\d.]+ s, step 2: running python · files written: notes/a\.md\n", line), line
    assert "Printed so far (the end of it):\nwaiting\n" in line
    await agents.call("get_interaction", {"interaction_id": started["interaction_id"], "wait_s": 1}, progress=hear)
    assert ("step 2: running python · files written: notes/a.md · printed: waiting", "status") in told
    cancelled = await agents.ok("cancel_interaction", interaction_id=started["interaction_id"])
    assert fields(cancelled)["status"] == "cancelled"
    assert '- "notes/a.md" · text/markdown · 3 bytes' in cancelled.text


async def test_a_session_can_change_between_models_and_agents_turn_by_turn(agents: AgentWorld) -> None:
    session_id = await agents.session()
    agents.says("I am a model.")
    assert "agent" not in await agents.turn(session_id)
    agents.runs("print(1)")
    agents.says("I am an agent.")
    by_agent = await agents.turn(session_id, agent="antigravity")
    assert by_agent["agent"] == "antigravity"
    agents.says("A model again.")
    assert "agent" not in await agents.turn(session_id, model="parrot")
    both = await agents.call(
        "send_turn", {"session_id": session_id, "input": "x", "agent": "helper", "model": "scripted/parrot"}
    )
    assert both.is_error
    assert both.text.startswith("invalid_argument: agent: expected either agent or model for a turn, got both. Next: ")
    assert (await agents.ok("get_session", session_id=session_id)).text.count("int_") == 3


async def test_a_run_may_go_on_in_a_session_and_takes_its_agent(agents: AgentWorld) -> None:
    first = await agents.run("open('kept.txt', 'w').write('here')")
    again = await agents.run("print(open('kept.txt').read())", session_id=first["session_id"])
    assert again["session_id"] == first["session_id"]
    assert again["environment_id"] == first["environment_id"]
    made = await agents.session(agent="helper")
    agents.says("Helped.")
    assert fields(await agents.ok("run_agent_background", input="x", session_id=made))["agent"] == "helper"
    plain = await agents.session()
    agents.says("Done.")
    assert fields(await agents.ok("run_agent_background", input="x", session_id=plain))["agent"] == "antigravity"
    wrong = await agents.call("run_agent_background", {"input": "x", "session_id": plain, "title": "T"})
    assert "title: is for a new session" in wrong.text


async def test_what_cannot_be_started_leaves_nothing_behind(agents: AgentWorld) -> None:
    for arguments, said in (
        ({"agent": "nobody"}, "not_found: "),
        ({"model": "gtp-5"}, "unknown_model: "),
        ({"environment": "env_00000000000000000000000000"}, "not_found: "),
        ({"session_id": "ses_00000000000000000000000000"}, "not_found: "),
        ({"max_steps": 0}, "invalid_argument: max_steps: expected a whole number from 1 to 10000, got 0"),
        ({"max_seconds": "soon"}, "invalid_argument: max_seconds: expected seconds from 1 to 604800"),
        ({"environment": {"netwrok": None}}, 'invalid_argument: environment: "netwrok": no such field, did you mean '),
        ({"environment": '{"sources": '}, "invalid_argument: environment: expected an environment id"),
        (
            {"environment": {"network": {"allowlist": [{"domian": "a"}]}}},
            "invalid_argument: network.allowlist[0].domian: no such field",
        ),
        ({"environment": {"env": {"A": {"credential": "nope"}}}}, "invalid_argument: env.A.credential: no cred"),
        ({"environment": {"sources": [{"type": "local", "source": "/nowhere", "target": "x"}]}}, "not_found: "),
        ({"environment": {"from_environment": "env_00000000000000000000000000"}}, "not_found: "),
        ({"environment": "ses_01"}, "invalid_argument: environment: expected an environment id"),
        ({"environment": {"sources": "\ud800"}}, "invalid_argument: environment"),
    ):
        result = await agents.call("run_agent_background", {"input": "x", **arguments})
        assert result.is_error
        assert result.text.startswith(said), result.text
    assert fields(await agents.ok("list_sessions", state="all"))["sessions"] == []
    assert fields(await agents.ok("list_environments"))["environments"] == []
    assert agents.asked == 0


async def test_the_same_key_starts_one_run(agents: AgentWorld) -> None:
    agents.says("Once.")
    call = {"input": "x", "idempotency_key": "k" * 200}
    first, second = [await agents.ok("run_agent_background", **call) for _ in range(2)]
    assert fields(first)["interaction_id"] == fields(second)["interaction_id"]
    assert "nothing new was started" in second.text
    sent = [
        await agents.call("run_agent_background", {"input": "y"}, connection="con_1", request_id=7) for _ in range(2)
    ]
    assert fields(sent[0])["interaction_id"] == fields(sent[1])["interaction_id"]
    assert len(fields(await agents.ok("list_sessions"))["sessions"]) == 2
    other = await agents.call("run_agent_background", {**call, "input": "other"})
    assert other.text.startswith("conflict: ")


async def test_limits_stop_a_run_and_it_says_how_to_go_on(agents: AgentWorld) -> None:
    for at in range(5):
        agents.runs(f"print({at})", call_id=f"c{at}")
    started = fields(await agents.ok("run_agent_background", input="x", max_steps=2))
    done = await agents.ok("get_interaction", interaction_id=started["interaction_id"], wait_s=45)
    assert fields(done)["status"] == "incomplete"
    assert "limit of 2 steps" in done.text
    assert "Everything it did is kept." in done.text
    assert 'input="Go on."' in done.text


async def test_a_run_works_where_it_is_told_to(agents: AgentWorld) -> None:
    body = {"sources": [{"type": "inline", "target": "in.txt", "content": "given"}], "env": {"COLOUR": "blue"}}
    code = "import os; open('out.txt', 'w').write(open('in.txt').read() + os.environ['COLOUR'])"
    done = await agents.run(code, environment=body)
    read = await agents.ok("fetch_artifacts", interaction_id=done["interaction_id"], name="out.txt")
    assert "givenblue" in read.text
    again = await agents.run("open('more.txt', 'w').write('m')", environment=done["environment_id"][:20])
    assert again["environment_id"] == done["environment_id"]


ASKING: Json = {
    "kind": "approval",
    "question": "Shall it delete report.md?",
    "id": "ask_1",
    "name": "delete_file",
    "arguments": {"path": "report.md"},
}


async def test_what_an_agent_may_not_do_unasked_is_put_to_the_user_with_the_exact_respond_call() -> None:
    one = Interaction("int_1", "ses_1", "requires_action", 1.0, agent="antigravity", model="m")
    plain: Json = {"id": "f_1", "name": "get_weather", "arguments": {}}
    result = show(Result(Session("ses_1", 1.0, 1.0), one, [], waiting_for=[plain, ASKING]), View(2000))
    assert "Waiting for 1 function result:" in result.text
    assert "Waiting for a decision on 1 call. Ask the user, unless they decided already:" in result.text
    assert '- Shall it delete report.md? call_id="ask_1", delete_file: {"path": "report.md"}' in result.text
    assert 'Answer each with result "allow" or "deny"' in result.text
    assert (
        'Next: respond(interaction_id="int_1", results=[{"call_id": "f_1", "result": "..."}, '
        '{"call_id": "ask_1", "result": "allow"}])' in result.text
    )
    assert fields(result)["calls"][1] == {"call_id": "ask_1", "name": "delete_file", "kind": "approval"}


class Send:
    """A tool with an effect that nobody may repeat unasked; its first call never ends."""

    name = "send_mail"
    replay: Replay = "ask"
    parallel = False
    declaration = declare("send_mail", "Send a mail.", {"to": {"type": "string"}})

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.begun = asyncio.Event()

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        self.sent.append(arguments["to"])
        self.begun.set()
        if len(self.sent) == 1:
            await asyncio.Event().wait()
        return Outcome("sent")


@pytest.mark.parametrize("word", ["allow", "deny"])
async def test_a_call_that_was_cut_off_is_asked_about_and_decided_with_respond(tmp_path: Path, word: str) -> None:
    send, catalog = Send(), ScriptedCatalog()
    first = agents_at(tmp_path, catalog, send)
    await first.engine.start()
    first.says(Says(calls=[{"id": "m1", "name": "send_mail", "arguments": {"to": "ada@example.org"}}]))
    started = fields(await first.ok("run_agent_background", input="Write to Ada."))
    async with asyncio.timeout(60):
        await send.begun.wait()
    await first.engine.aclose()
    second = agents_at(tmp_path, catalog, send)
    second.folder.ever |= first.folder.ever
    await second.engine.start()
    try:
        asked = await second.ok("get_interaction", interaction_id=started["interaction_id"], wait_s=40)
        assert fields(asked)["status"] == "requires_action"
        assert "Waiting for a decision on 1 call. Ask the user, unless they decided already:" in asked.text
        assert 'send_mail: {"to": "ada@example.org"}' in asked.text
        following = fields(asked)["next"]
        assert following["tool"] == "respond"
        following["arguments"]["results"][0]["result"] = word
        second.says("That is all.")
        done = await second.ok("respond", **following["arguments"], wait_s=40)
        assert fields(done)["status"] == "completed"
        assert "That is all." in done.text
        assert len(send.sent) == (2 if word == "allow" else 1)
    finally:
        await second.engine.aclose()


async def test_agents_are_listed_with_what_they_can_do_and_what_is_wrong_with_others(agents: AgentWorld) -> None:
    list_ = agents.folder.list

    async def with_problem(*, cwd: str | None = None) -> Any:
        found, _ = await list_(cwd=cwd)
        return found, [AgentProblem("broken", "/x/broken/agent.yaml", 7, "limits.steps", "expected a number, got 'a'")]

    agents.folder.list = with_problem  # type: ignore[method-assign]
    result = await agents.ok("list_agents")
    assert result.text.startswith("2 agents (1 problem) · 1 model usable, 0 not")
    assert "- agent antigravity (built-in): Does everything [tools: code_execution, files, url_fetch]" in result.text
    assert "- agent helper (built-in): Helps with \\x1b[31mthings [tools: files]" in result.text
    assert (
        "- agent broken cannot be used: /x/broken/agent.yaml:7, limits.steps: expected a number, got 'a'" in result.text
    )
    assert fields(result)["agents"] == ["antigravity", "helper"]
    assert fields(await agents.ok("list_agents", query="helper"))["agents"] == ["helper"]


async def test_a_daemon_without_agents_says_so(world: World) -> None:
    result = await world.call("run_agent_background", {"input": "x"})
    assert result.is_error
    assert "runs no agents" in result.text
    assert fields(await world.ok("list_sessions", state="all"))["sessions"] == []
    for name in ("create_environment", "list_environments"):
        assert (await world.call(name)).text.startswith("sandbox_unavailable: ")


def call(name: str, call_id: str, **arguments: Any) -> Step:
    if name == "code_execution":
        return Step("code_execution_call", {"id": call_id, "arguments": arguments})
    if name == "url_fetch":
        return Step("url_context_call", {"id": call_id, "arguments": arguments})
    return Step("function_call", {"id": call_id, "name": name, "arguments": arguments})


def done(call_id: str, *, failed: bool = False) -> Step:
    return Step("function_result", {"call_id": call_id, "result": "", **({"is_error": True} if failed else {})})


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ([], "step 1: the model is thinking"),
        ([call("code_execution", "a", language="bash", code="x")], "step 1: running bash"),
        ([call("write_file", "a", path="/workspace/r.md")], "step 1: writing /workspace/r.md"),
        ([call("url_fetch", "a", urls=["https://example.org/"])], "step 1: fetching https://example.org/"),
        ([call("my\x1btool", "a")], "step 1: calling my\\x1btool"),
        ([call("list_dir", "a"), call("view_file", "b", path="x")], "step 2: reading x and 1 more"),
        (
            [call("write_file", "a", path="/workspace/r.md"), done("a"), call("write_file", "b", path="c"), done("b")],
            "step 3: the model is thinking · files written: r.md, c",
        ),
        ([call("write_file", "a", path="r"), done("a", failed=True)], "step 2: the model is thinking"),
        (
            [step for n in range(6) for step in (call("write_file", f"{n}", path=f"f{n}"), done(f"{n}"))],
            "step 7: the model is thinking · files written: f2, f3, f4, f5 and 2 more",
        ),
    ],
)
def test_progress_is_one_line(steps: list[Step], line: str) -> None:
    assert progress(steps) == line
    assert progress(steps).isprintable()


def test_arguments_of_any_shape_are_told_about() -> None:
    odd: list[Any] = [None, [], "x", {"path": {"a": 1}}, {"path": "x" * 5000}, {"path": "\n\ud800"}]
    for arguments in odd:
        for name in ("write_file", "code_execution", "url_fetch", "other"):
            step = Step("function_call", {"id": "a", "name": name, "arguments": arguments})
            assert len(doing(step)) < 120
            assert doing(step).isprintable()
            assert all(path.isprintable() for path in files_written([step, done("a")]))
