"""Triggers and webhooks over the tools: a set of its own, off until it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import interactd_tools
from durable.kit import QUICK, Rig, receiver, rig, status
from engine.kit import ScriptedModel
from interactd_tools import deadlines
from interactd_tools.context import CallContext, ToolResult
from tools.conftest import fields

pytestmark = pytest.mark.anyio


class Tools:
    def __init__(self, r: Rig) -> None:
        self.rig = r

    async def call(self, name: str, arguments: object = None, **context: Any) -> ToolResult:
        ctx = CallContext(self.rig.engine, **context)
        return await interactd_tools.call(name, arguments, ctx, toolsets=["schedules"])

    async def ok(self, name: str, /, **arguments: Any) -> ToolResult:
        result = await self.call(name, arguments)
        assert not result.is_error, result.text
        return result


@pytest.fixture
async def tools(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Tools]:
    deadlines.forget()
    async with rig(tmp_path, settings=QUICK) as made:
        yield Tools(made)
    deadlines.forget()


async def create(tools: Tools, **more: Any) -> str:
    given = {"schedule": "0 9 * * 1-5", "input": "Say hello.", "model": "m1", "time_zone": "Europe/Berlin", **more}
    return fields(await tools.ok("create_trigger", **given))["trigger_id"]


async def test_the_set_is_off_until_it_is_asked_for(tools: Tools) -> None:
    ctx = CallContext(tools.rig.engine)
    result = await interactd_tools.call("create_trigger", {}, ctx)
    assert result.text.startswith("unknown_tool: there is no tool create_trigger.")


async def test_a_trigger_is_made_run_paused_changed_and_deleted(tools: Tools) -> None:
    made = await tools.ok(
        "create_trigger",
        schedule="0 9 * * 1-5",
        input="Say hello.",
        model="m1",
        time_zone="Europe/Berlin",
        display_name="Greeting",
        budget='{"tokens": 1000}',
        labels={"a": "b"},
        ttl="2d",
    )
    id = fields(made)["trigger_id"]
    assert made.text.startswith(f"active · trigger {id} · next ")
    for part in (":00 Europe/Berlin), in ", "Name: Greeting", "Does: Say hello.", "Run by m1, session new."):
        assert part in made.text
    assert "stays for as long as a trigger is active" in made.text
    assert "`interactd daemon install`" in made.text
    assert fields(made)["next_run_time"].endswith(":00:00Z")
    assert f'Next: run_trigger(trigger_id="{id}")' in made.text
    ran = await tools.ok("run_trigger", trigger_id=id)
    interaction = fields(ran)["interaction_id"]
    assert f'Next: get_interaction(interaction_id="{interaction}", wait_s=30)' in ran.text
    shown = await tools.ok("get_interaction", interaction_id=interaction, wait_s=10)
    assert fields(shown)["status"] == "completed"
    listed = await tools.ok("list_triggers")
    assert f"- {id} · active · 0 9 * * 1-5 Europe/Berlin · next " in listed.text
    assert "Greeting" in listed.text
    paused = await tools.ok("update_trigger", trigger_id=id, status="paused")
    assert paused.text.startswith(f"paused · trigger {id} · not due by itself")
    changed = await tools.ok("update_trigger", trigger_id=id, schedule="every 2h", input="Say bye.", status="active")
    assert "Schedule: every 2h in Europe/Berlin." in changed.text
    assert "Does: Say bye." in changed.text
    one = await tools.ok("list_triggers", trigger_id=id[:18])
    assert "Latest runs:" in one.text
    assert interaction in one.text
    runs = await tools.ok("list_executions", trigger_id=id)
    assert fields(runs)["interactions"] == [interaction]
    assert "· completed · due " in runs.text
    assert "· manual · took " in runs.text
    gone = await tools.ok("delete_trigger", trigger_id=id)
    assert "1 execution kept on record, 0 of them still running." in gone.text
    again = await tools.call("delete_trigger", {"trigger_id": id})
    assert again.is_error
    assert again.text.startswith("not_found: there is no trigger")
    assert "list_triggers" in again.text
    assert fields(await tools.ok("list_executions", trigger_id=id))["interactions"] == [interaction]


async def test_the_same_request_after_a_crash_makes_and_runs_one(tools: Tools) -> None:
    from interactd.nouns import Caller

    context: dict[str, Any] = {"caller": Caller(connection="con_1"), "request_id": 7}
    arguments = {"schedule": "@daily", "input": "x", "model": "m1"}
    first, second = [fields(await tools.call("create_trigger", arguments, **context)) for _ in range(2)]
    assert first["trigger_id"] == second["trigger_id"]
    run = {"trigger_id": first["trigger_id"]}
    context["request_id"] = 8
    one, two = [fields(await tools.call("run_trigger", run, **context)) for _ in range(2)]
    assert one["execution_id"] == two["execution_id"]
    made = [fields(await tools.call("create_webhook", {"uri": "https://example.org"}, **context)) for _ in range(2)]
    assert made[0]["webhook_id"] == made[1]["webhook_id"]
    assert made[0]["new_signing_secret"] == made[1]["new_signing_secret"]


async def test_a_run_that_fails_says_why_and_the_status_tells_of_a_stopped_trigger(tools: Tools) -> None:
    from interactd.errors import KeyRefused

    model: ScriptedModel = tools.rig.model
    model.script([KeyRefused("it is down")])
    id = await create(tools, max_consecutive_failures=1, display_name="Doomed")
    await tools.ok("run_trigger", trigger_id=id)
    await tools.rig.ran(id, 1)
    runs = await tools.ok("list_executions")
    assert "key_refused: it is down" in runs.text
    state = await tools.ok("server_status")
    assert "Triggers: 1, 0 active." in state.text
    assert f"Stopped by failures: {id} (Doomed); list_triggers says why." in state.text
    assert fields(state)["triggers_in_error"] == [id]
    assert "Stopped by: it is down" in (await tools.ok("list_triggers", trigger_id=id)).text
    again = await tools.ok("update_trigger", trigger_id=id, status="active")
    assert again.text.startswith("active")
    assert fields(await tools.ok("server_status"))["next_run_time"]


async def test_webhooks_are_made_pinged_changed_logged_and_deleted(tools: Tools) -> None:
    async with receiver() as to:
        made = await tools.ok(
            "create_webhook",
            uri=to.url(),
            allow_local=True,
            subscribed_events=["interaction.completed", "trigger.failed"],
            name="Mine",
        )
        id, secret = fields(made)["webhook_id"], fields(made)["new_signing_secret"]
        assert made.text.startswith(f"enabled · webhook {id} · {to.url()}")
        assert f"Signing secret, shown this once: {secret}" in made.text
        pinged = await tools.ok("ping_webhook", webhook_id=id)
        assert pinged.text.startswith("delivered · ping msg_")
        assert "status 200" in pinged.text
        listed = await tools.ok("list_webhooks")
        assert secret not in listed.text
        assert "interaction.completed, trigger.failed · Mine · last success" in listed.text
        await create(tools)
        await tools.rig.turn()
        await tools.rig.delivered(2)
        log = await tools.ok("list_deliveries", webhook_id=id)
        assert len(fields(log)["deliveries"]) == 2
        assert "· delivered · interaction.completed · int_" in log.text
        assert ": thanks" in log.text
        again = await tools.ok("redeliver", delivery_id=fields(log)["deliveries"][0])
        assert again.text.startswith("pending · delivery msg_")
        await to.received(3)
        rotated = await tools.ok("rotate_secret", webhook_id=id)
        assert "signs as well for 24 hours" in rotated.text
        assert fields(rotated)["new_signing_secret"] != secret
        to.answer = status(500, body="no \x1b[31m way")
        failed = await tools.call("ping_webhook", {"webhook_id": id})
        assert failed.is_error
        assert "the receiver answered 500" in failed.text
        assert "\x1b" not in failed.text
        state = await tools.ok("server_status")
        assert f"Failing webhooks: {id} (Mine)" in state.text
        off = await tools.ok("update_webhook", webhook_id=id, status="disabled", subscribed_events=["trigger.failed"])
        assert off.text.startswith("disabled")
        gone = await tools.ok("delete_webhook", webhook_id=id)
        assert "Gone with it: 3 deliveries, 0 of them not delivered." in gone.text
        assert "No webhooks." in (await tools.ok("list_webhooks")).text


async def test_lists_come_in_pages(tools: Tools) -> None:
    ids = [await create(tools) for _ in range(5)]
    seen: list[str] = []
    arguments: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = await tools.ok("list_triggers", **arguments)
        seen += fields(page)["triggers"]
        arguments["cursor"] = fields(page)["cursor"]
        if arguments["cursor"]:
            assert f'list_triggers(limit=2, cursor="{arguments["cursor"]}")' in page.text
    assert seen == ids
    assert arguments["cursor"] is None


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("create_trigger", {"input": "x"}, "schedule: expected a schedule"),
        ("create_trigger", {"schedule": "@daily"}, "input: expected text"),
        ("create_trigger", {"schedule": "at noon", "input": "x", "model": "m1"}, 'schedule: expected "at" and a time'),
        ("create_trigger", {"schedule": "@daily", "input": "x", "model": "m1", "time_zone": "Bonn"}, "not a time zone"),
        ("create_trigger", {"schedule": "@daily", "input": "x", "model": "nope"}, "unknown_model"),
        ("create_trigger", {"schedule": "@daily", "input": "x", "model": "m1", "missed": "all"}, "one of skip, once"),
        ("create_trigger", {"schedule": "@daily", "input": "x", "session": "int_1"}, "session: expected new, same, or"),
        (
            "create_trigger",
            {"schedule": "@daily", "input": "x", "model": "m1", "budget": {"usd": "x"}},
            "budget: usd: expected a number",
        ),
        ("create_trigger", {"shedule": "@daily", "input": "x"}, "shedule: no such argument, did you mean schedule?"),
        ("update_trigger", {"trigger_id": "int_1"}, "trigger_id: expected a trigger id (trg_...)"),
        ("update_trigger", {"trigger_id": "trg_" + "0" * 26, "status": "paused"}, "there is no trigger"),
        ("run_trigger", {}, "trigger_id: expected a trigger id (trg_...), got nothing"),
        ("list_triggers", {"status": "dead"}, "status: expected one of active, paused, error, completed"),
        ("list_executions", {"cursor": "x"}, "cursor"),
        ("create_webhook", {}, "exactly one of the three, got none"),
        ("create_webhook", {"uri": "http://localhost:1/"}, "which webhooks do not reach unless they are told to"),
        ("create_webhook", {"uri": "https://10.0.0.1/"}, "network_refused"),
        ("create_webhook", {"uri": "https://e.org", "subscribed_events": ["x"]}, "expected some of interaction."),
        ("create_webhook", {"command": ["true"]}, "on the command line only"),
        ("ping_webhook", {"webhook_id": "whk_" + "0" * 26}, "there is no webhook"),
        ("rotate_secret", {"webhook_id": "x!"}, "webhook_id: expected"),
        ("redeliver", {"delivery_id": "msg_" + "0" * 26}, "there is no delivery"),
    ],
)
async def test_wrong_calls_are_refused_in_words(tools: Tools, name: str, arguments: dict[str, Any], said: str) -> None:
    result = await tools.call(name, arguments)
    assert result.is_error
    assert said in result.text
    assert result.text.isprintable()
    assert "Traceback" not in result.text


async def test_a_daemon_without_schedules_says_so(tmp_path: Path) -> None:
    from engine.kit import ScriptedCatalog
    from interactd.engine import LocalEngine
    from interactd.store.sqlite import SqliteStore

    engine = LocalEngine(SqliteStore(tmp_path / "x.db"), ScriptedCatalog(ScriptedModel()))
    await engine.start()
    try:
        result = await interactd_tools.call("list_triggers", {}, CallContext(engine), toolsets=["schedules"])
        assert result.text.startswith("not_found: this daemon has no triggers")
    finally:
        await engine.aclose()


async def test_every_refused_argument_ends_with_a_right_call(tools: Tools) -> None:
    wrong = {
        "create_webhook": [{}, {"uri": "ftp://example.org"}, {"uri": "not a url"}, {"command": "ls", "desktop": True}],
        "create_trigger": [
            {"schedule": "61 9 * * *", "input": "x"},
            {"schedule": "at 2020-01-01T09:00", "input": "x"},
            {"schedule": "@daily", "input": "x", "dispatch": {"priority": "high"}},
            {"schedule": "@daily", "input": "x", "approvals": {"tools": {"nothing": "always_ask"}}},
        ],
    }
    for tool, cases in wrong.items():
        for arguments in cases:
            refused = await tools.call(tool, arguments)
            assert refused.is_error, arguments
            assert f"Next: {tool}(" in refused.text, refused.text


async def test_an_id_that_is_not_there_is_named_as_it_was_given(tools: Tools) -> None:
    for tool, arguments in (("run_trigger", {"trigger_id": "trg_nope"}), ("get_session", {"session_id": "hello"})):
        refused = await tools.call(tool, arguments)
        assert repr(next(iter(arguments.values()))) in refused.text


async def test_a_password_in_a_url_is_not_said_again(tools: Tools) -> None:
    refused = await tools.call("create_webhook", {"uri": "https://user:hush@example.org/"})
    assert "a user name before the host is not accepted" in refused.text
    assert "hush" not in refused.text


async def test_a_trigger_takes_a_budget_and_a_policy_as_people_say_them(tools: Tools) -> None:
    made = await tools.ok(
        "create_trigger", schedule="@daily", input="x", model="m1", budget="$2", approvals="always_ask"
    )
    assert 'Budget: {"usd": 2' in made.text
    assert 'Approvals: {"policy": "always_ask"}' in made.text
