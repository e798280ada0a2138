"""`interactd triggers` and `interactd webhooks`, as a person types them."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.conftest import Terminal
from durable.kit import receiver, status
from support.hosts import eventually

pytestmark = pytest.mark.anyio

MODEL = ("-m", "openai/fake-model-1")


async def test_a_trigger_is_made_run_shown_paused_changed_and_deleted(terminal: Terminal) -> None:
    assert (await terminal.run("triggers")).out.startswith("No triggers. Make one: interactd triggers create")
    create = ("triggers", "create", "0 9 * * 1-5", "What is new?", *MODEL, "-z", "Europe/Berlin", "--name", "News")
    made = await terminal.run(*create, "--budget", "tokens=1000", "--label", "kind=news", "--ttl", "2d")
    assert made.code == 0, made.err
    id = made.out.split(":")[0]
    assert id.startswith("trg_")
    assert ": active, next " in made.out
    assert "`interactd daemon install`" in made.out
    one = (await terminal.run("triggers", "show", id[:14], "--json")).json
    assert one["next_run_local"][10:19] == "T09:00:00"
    assert one["next_run_time"].endswith("Z")
    assert one["work"]["budget"] == {"tokens": 1000}
    assert one["work"]["labels"] == {"kind": "news"}
    ran = (await terminal.run("triggers", "run", id, "--json")).json
    assert ran["interaction_id"].startswith("int_")
    shown = await terminal.run("show", ran["interaction_id"])
    assert shown.code == 0
    paused = await terminal.run("triggers", "pause", id)
    assert paused.out == f"{id}: paused\n"
    again = await terminal.run("triggers", "run", id)
    assert "runs as int_" in again.out
    edited = await terminal.run("triggers", "edit", id, "--schedule", "every 2h", "--input", "Else?", "--json")
    assert edited.json["schedule"] == "every 2h"
    assert edited.json["work"]["input"] == [{"type": "text", "text": "Else?"}]
    resumed = await terminal.run("triggers", "resume", id)
    assert "active, next " in resumed.out
    listed = await terminal.run("triggers", "list")
    assert listed.out.split("\t")[0] == id
    assert "News" in listed.out
    runs = (await terminal.run("triggers", "executions", id, "--json")).json["items"]
    assert [one["cause"] for one in runs] == ["manual", "manual"]
    state = await terminal.run("status")
    assert "triggers    1, 1 active, next in " in state.out
    refused = await terminal.run("triggers", "delete", id)
    assert refused.code == 1
    assert "Add --yes" in refused.err
    gone = await terminal.run("triggers", "delete", id, "trg_0", "--yes")
    assert gone.code == 1
    assert f"{id}: deleted; 2 executions stay on record" in gone.out
    assert "not_found: there is no trigger trg_0" in gone.err
    assert id in (await terminal.run("triggers", "executions", "--json")).out


async def test_a_trigger_keeps_an_idle_daemon_until_it_has_run_at_its_time(terminal: Terminal) -> None:
    # One second is as long as this daemon stays when there is nothing to do.
    env = {"INTERACTD_DAEMON_IDLE_EXIT_S": "1"}
    due = datetime.now(UTC) + timedelta(seconds=8)
    made = await terminal.run("triggers", "create", f"at {due.isoformat(timespec='seconds')}", "Now?", *MODEL, **env)
    assert made.code == 0, made.err
    pid = terminal.home.ready()
    await terminal.provider.received(1)
    assert datetime.now(UTC) >= due.replace(microsecond=0)
    await asyncio.to_thread(eventually, lambda: not terminal.home.daemons())
    assert terminal.home.record()["pid"] == pid
    assert "nothing to do" in terminal.home.record()["left"]
    (run,) = (await terminal.run("triggers", "executions", "--json")).json["items"]
    assert (run["status"], run["cause"]) == ("completed", "schedule")


async def test_webhooks_are_made_pinged_listed_and_deleted(terminal: Terminal) -> None:
    async with receiver() as to:
        refused = await terminal.run("webhooks", "create", "--uri", to.url())
        assert refused.code == 1
        assert "network_refused: 127.0.0.1 is this machine" in refused.err
        made = await terminal.run(
            *("webhooks", "create", "--uri", to.url(), "--allow-local"),
            *("--event", "interaction.completed", "--name", "Mine"),
        )
        assert made.code == 0, made.err
        id = made.out.split(":")[0]
        secret = made.out.split("signing secret: ")[1].split()[0]
        assert secret.startswith("whsec_")
        pinged = await terminal.run("webhooks", "ping", id)
        assert pinged.code == 0
        assert "status 200 in " in pinged.out
        await terminal.chat("Hello")
        await to.received(2)
        log = await terminal.run("webhooks", "deliveries", id)
        assert "interaction.completed" in log.out
        rotated = (await terminal.run("webhooks", "rotate", id, "--json")).json
        assert rotated["new_signing_secret"] != secret
        shown = await terminal.run("webhooks", "show", id)
        assert secret not in shown.out
        assert "(until " in shown.out
        to.answer = status(404, body="nope")
        failed = await terminal.run("webhooks", "ping", id)
        assert failed.code == 1
        assert "the receiver answered 404" in failed.err
        assert (await terminal.run("webhooks", "disable", id)).out == f"{id}: disabled\n"
        assert (await terminal.run("webhooks", "enable", id)).out == f"{id}: enabled\n"
        more = ("--event", "trigger.failed", "--metadata", '{"a": 1}')
        edited = await terminal.run("webhooks", "edit", id, *more, "--json")
        assert edited.json["user_metadata"] == {"a": 1}
        delivery = (await terminal.run("webhooks", "deliveries", "--json")).json["items"][0]["id"]
        to.answer = status(200)
        assert "is delivered again" in (await terminal.run("webhooks", "redeliver", delivery)).out
        gone = await terminal.run("webhooks", "delete", id, "-y", "--json")
        assert gone.json[0]["id"] == id


async def test_a_command_is_told_and_its_words_are_taken_as_they_are(terminal: Terminal, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'w').write(sys.argv[1] + sys.stdin.read())"
    made = await terminal.run("webhooks", "create", "--json", "--command", sys.executable, "-c", code, "--json")
    assert made.code == 0, made.err
    assert made.json["command"] == [sys.executable, "-c", code, "--json"]
    assert "new_signing_secret" not in made.json
    await terminal.chat("Hello")
    text = eventually(lambda: told.exists() and told.read_text())
    assert text.startswith("--json{")
    assert json.loads(text.removeprefix("--json"))["type"] == "interaction.completed"
    shell = await terminal.run("webhooks", "create", "--json", "--shell", "cat > /dev/null")
    assert shell.json["command"][-1] == "cat > /dev/null"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("triggers", "create", "nonsense", "x", *MODEL), 1, "schedule: expected five fields"),
        (("triggers", "create", "@daily", "x", "-m", "a", "-a", "b"), 2, "not allowed with"),
        (("triggers", "create", "@daily", "x", *MODEL, "--budget", "usd"), 1, "--budget: expected KEY=VALUE"),
        (("triggers", "create", "@daily", "x", *MODEL, "--budget", "usd=x"), 1, "--budget: expected a number for usd"),
        (("triggers", "create", "@daily", "x", *MODEL, "-z", "Bonn"), 1, "'Bonn' is not a time zone"),
        (("triggers", "edit", "trg_1"), 1, "nothing to change was given"),
        (("triggers", "show", "ses_1"), 1, "trigger_id: expected a trigger id"),
        (("triggers", "executions", "--status", "x"), 2, "invalid choice"),
        (("triggers", "list", "-n", "0"), 2, "expected a number from 1 to 200"),
        (("webhooks", "create"), 2, "one of the arguments --uri --desktop --shell --command is required"),
        (("webhooks", "create", "--uri", "https://e.org", "--metadata", "x"), 1, "--metadata: expected a JSON object"),
        (("webhooks", "edit", "whk_1"), 1, "nothing to change was given"),
        (("webhooks", "redeliver", "msg_1"), 1, "there is no delivery msg_1"),
    ],
)
async def test_wrong_ones_are_refused_in_words(
    terminal: Terminal, words: tuple[str, ...], code: int, said: str
) -> None:
    ran = await terminal.run(*words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
