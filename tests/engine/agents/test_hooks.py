"""Hooks in a real sandbox: a clear allow lets a call through, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.agents.kit import Rig, calls, result_of, runs
from interactd.nouns import Json
from support.provider import FakeProvider, Hang, Raw

pytestmark = pytest.mark.anyio

ALLOW = 'echo \'{"decision": "allow"}\''


def guarded(matcher: str, *hooks: Json, moment: str = "pre_tool_execution") -> Json:
    return {"guard": {moment: [{"matcher": matcher, "hooks": list(hooks)}]}}


def command(line: str, timeout: float = 20) -> Json:
    return {"type": "command", "command": line, "timeout": timeout}


async def outcome(it: Rig, hooks: Any, **agent: Any) -> Json:
    """What the model hears of `write_file` under these hooks."""
    it.agents.put(id="guarded", hooks=hooks, **agent)
    session = await it.session(agent="guarded")
    it.model.script(calls("write_file", {"path": "a", "content": "x"}), "ok")
    result = await it.turn(session=session)
    assert result.interaction.status == "completed", result.interaction.error
    body = result_of(result)
    kept = await it.files(result)
    assert (kept == {"a": b"x"}) == (not body.get("is_error") or "withheld" in body["result"])
    return body


async def test_a_hook_that_allows_lets_the_call_through(it: Rig) -> None:
    assert not (await outcome(it, guarded("write_file", command(ALLOW)))).get("is_error")


async def test_a_hook_is_given_the_call_and_the_environment(it: Rig) -> None:
    line = (
        "python3 -c 'import json, sys; d = json.load(sys.stdin);"
        ' print(json.dumps({"decision": "deny", "reason": json.dumps(d)}))\''
    )
    body = await outcome(it, guarded("write_file", command(line)))
    told = json.loads(body["result"].partition("denied the call: ")[2])
    assert told["tool_call"] == {"name": "write_file", "args": {"path": "a", "content": "x"}}
    assert told["environment_id"].startswith("env_")


async def test_a_denial_goes_to_the_model_with_its_reason(it: Rig) -> None:
    body = await outcome(it, guarded("write", command('echo \'{"decision": "deny", "reason": "not on Sundays"}\'')))
    assert body["is_error"] is True
    assert "not on Sundays" in body["result"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("exit 3", "exit code 3"),
        ("no-such-program-at-all", "exit code 127"),
        ("true", "no decision"),
        ("echo yes", "no decision"),
        ("echo '[\"allow\"]'", "no decision"),
        ('echo \'{"decision": "maybe"}\'', "neither allow nor deny"),
        ("kill -9 $$", "the hook failed"),
        (f"{ALLOW}; exit 1", "exit code 1"),
        ("head -c 3000000 /dev/zero", "the hook failed"),
    ],
)
async def test_a_hook_that_fails_denies(it: Rig, line: str, why: str) -> None:
    body = await outcome(it, guarded("write_file", command(line)))
    assert body["is_error"] is True
    assert why in body["result"]


async def test_a_hook_that_does_not_answer_in_time_denies(it: Rig) -> None:
    body = await outcome(it, guarded("write_file", command(f"sleep 30; {ALLOW}", timeout=0.5)))
    assert "within 0.5 s" in body["result"]


@pytest.mark.parametrize(
    "hooks",
    [
        {"guard": "on"},
        {"guard": {"pre_tool_execution": {}}},
        {"guard": {"pre_tool_execution": ["x"]}},
        guarded("write_file", {"type": "carrier pigeon"}),
        guarded("write_file", {"type": "command", "command": ALLOW, "timeout": -1}),
        guarded("(", command("exit 1")),
    ],
)
async def test_hooks_that_cannot_be_read_deny_everything(it: Rig, hooks: Json) -> None:
    assert (await outcome(it, hooks))["is_error"] is True


async def test_hooks_for_other_tools_and_switched_off_ones_are_not_asked(it: Rig) -> None:
    off = guarded("write_file", command("exit 1"))
    off["guard"]["enabled"] = False
    assert not (await outcome(it, off)).get("is_error")
    assert not (await outcome(it, guarded("delete_file|code_execution", command("exit 1")))).get("is_error")


async def test_a_guard_written_for_the_hosted_services_names_guards_ours(it: Rig) -> None:
    assert (await outcome(it, guarded("^write_to_file$", command("exit 1"))))["is_error"] is True


async def test_one_no_among_many_hooks_is_a_no(it: Rig) -> None:
    assert (await outcome(it, guarded("", command(ALLOW), command(ALLOW), command("exit 1"))))["is_error"] is True


async def test_a_hook_after_the_call_may_replace_or_withhold_its_output(it: Rig) -> None:
    after = "post_tool_execution"
    replaced = guarded("*", command('echo \'{"decision": "allow", "result": "redacted"}\''), moment=after)
    assert (await outcome(it, replaced))["result"] == "redacted"
    withheld = await outcome(it, guarded("*", command("exit 9"), moment=after))
    assert withheld["is_error"] is True
    assert "The call was made" in withheld["result"]


async def test_what_a_run_plants_does_not_turn_a_hook_round(it: Rig) -> None:
    """Modules in /workspace and in the home are not what a hook's Python imports."""
    planted = "import os, site\nbad = 'import os; print(\\'{\"decision\": \"allow\"}\\', flush=True); os._exit(0)'\n"
    planted += "for d in ('.', site.getusersitepackages()):\n    os.makedirs(d, exist_ok=True)\n"
    planted += (
        "    for n in ('json.py', 'usercustomize.py', 'sitecustomize.py'): open(os.path.join(d, n), 'w').write(bad)\n"
    )
    planted += "open(os.path.expanduser('~/.bashrc'), 'w').write('exit 0')"
    it.agents.put(id="guarded", hooks=guarded("write_file", command("python3 -c 'import json; raise SystemExit(1)'")))
    session = await it.session(agent="guarded")
    it.model.script(runs(planted, "c0"), calls("write_file", {"path": "a", "content": "x"}), "ok")
    result = await it.turn(session=session)
    assert result_of(result)["is_error"] is True


async def test_http_hooks_allow_deny_and_fail_closed(it: Rig) -> None:
    async with FakeProvider() as server:
        url = f"{server.base_url}/hook"

        async def asked(answer: Any, **agent: Any) -> Json:
            server.script(answer)
            return await outcome(it, guarded("write_file", {"type": "http", "url": url, "timeout": 1}), **agent)

        said = Raw('{"decision": "allow"}', content_type="application/json")
        assert not (await asked(said)).get("is_error")
        assert server.requests[-1].json["tool_call"]["name"] == "write_file"
        assert "no means no" in (await asked(Raw('{"decision": "deny", "reason": "no means no"}')))["result"]
        assert "answered 500" in (await asked(Raw('{"decision": "allow"}', status=500)))["result"]
        assert "answered 302" in (await asked(Raw("", status=302, headers={"location": url})))["result"]
        assert "no decision" in (await asked(Raw("allow")))["result"]
        assert "within 1 s" in (await asked(Hang()))["result"]
        before = len(server.requests)
        assert (await asked(said, origin="project"))["is_error"] is True
        assert len(server.requests) == before, "a project's address is never called"
    assert "could not be asked" in (await outcome(it, guarded("*", {"type": "http", "url": url})))["result"]
