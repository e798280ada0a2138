"""Sinks on this machine: a command with the payload on its stdin, and the desktop's notifications."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.kit import QUICK, Rig, rig, until
from interactd.durable.webhooks import commands
from interactd.errors import InteractdError, InvalidArgument, SandboxUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="process groups and sh")]


def script(folder: Path, body: str) -> list[str]:
    """Words that run this Python."""
    file = folder / "sink.py"
    file.write_text(body)
    return [sys.executable, str(file)]


async def sink(r: Rig, command: Any, **more: Any) -> str:
    made = await r.schedules.create_webhook(command=command, by_hand=True, **more)
    assert made.new_signing_secret is None
    return made.webhook.id


async def test_a_command_gets_the_payload_and_a_small_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-daemon")
    told = tmp_path / "told"
    body = (
        "import os, sys, json\n"
        f"open({str(told)!r}, 'w').write(json.dumps([sys.stdin.read(), dict(os.environ)]))\nprint('heard')"
    )
    async with rig(tmp_path / "home") as r:
        id = await sink(r, script(tmp_path, body))
        interaction = await r.turn()
        (done,) = await r.delivered(1)
        assert (done.status, done.log[0].status_code, done.log[0].answer) == ("delivered", 0, "heard\n")
        payload, env = json.loads(told.read_text())
        assert json.loads(payload)["data"] == {"id": interaction}
        assert env["INTERACTD_EVENT"] == "interaction.completed"
        assert env["INTERACTD_ID"] == interaction
        assert env["INTERACTD_DELIVERY"] == done.id
        assert env["INTERACTD_WEBHOOK"] == id
        assert env["PATH"] == os.environ["PATH"]
        assert "OPENAI_API_KEY" not in env


async def test_a_command_that_fails_is_tried_again_with_its_output_in_the_log(tmp_path: Path) -> None:
    async with rig(tmp_path / "home") as r:
        await sink(r, script(tmp_path, "import sys\nsys.stderr.write('no' * 500)\nsys.exit(3)"))
        await r.turn()
        (found,) = await until(lambda: _logged(r))
        assert (found.status, found.log[0].status_code) == ("pending", 3)
        assert found.log[0].answer == "no" * 150
        assert found.log[0].error == "the command ended with exit code 3"


async def _logged(r: Rig) -> Any:
    page = await r.schedules.list_deliveries()
    return [one for one in page.items if one.log] or None


async def test_a_command_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "import subprocess, sys, os, time, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    async with rig(tmp_path / "home") as r:
        await sink(r, script(tmp_path, body), timeout_s=2)
        await r.turn()
        (found,) = await until(lambda: _logged(r), within_s=30)
        assert found.log[0].error == "the command took longer than 2 s and was killed"
        assert pids.exists()
        for pid in map(int, pids.read_text().split()):
            await until(lambda pid=pid: _gone(pid))


async def _gone(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


async def test_a_child_left_behind_does_not_hold_up_a_command_that_has_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(str(child.pid))\nprint('started')\n"
    )
    settings = replace(QUICK, command_s=120)
    async with rig(tmp_path / "home", settings=settings) as r:
        await sink(r, script(tmp_path, body))
        await r.turn()
        (done,) = await r.delivered(1)
        assert (done.status, done.log[0].answer) == ("delivered", "started\n")
        await until(lambda: _gone(int(pids.read_text())))


async def test_a_command_that_ignores_its_stdin_or_floods_its_output_is_fine(tmp_path: Path) -> None:
    async with rig(tmp_path / "home") as r:
        await sink(r, script(tmp_path, "import sys\nsys.stdin.close()\nprint('x' * 3_000_000)"))
        await r.turn()
        (done,) = await r.delivered(1)
        assert done.status == "delivered"
        assert done.log[0].answer == "x" * 300


async def test_a_shell_only_where_that_was_said(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with rig(tmp_path / "home") as r:
        with pytest.raises(InvalidArgument, match="expected a list of words, got one text"):
            await sink(r, f"cat > {told}")
        await sink(r, f"cat > {told} && echo '$HOME'", shell=True)
        await r.turn()
        await r.delivered(1)
        assert json.loads(told.read_text())["type"] == "interaction.completed"
        # Words are words: nothing of them is read by a shell.
        await sink(r, ["/bin/echo", "$(touch /tmp/never); `id`"], subscribed_events=["interaction.failed"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"command": []}, "expected a list of words"),
        ({"command": [""]}, "expected a list of words"),
        ({"command": ["true", 7]}, "expected a list of words"),
        ({"command": ["a\0b"]}, "expected a list of words"),
        ({"command": ["no-such-program-anywhere"]}, "there is no program 'no-such-program-anywhere'"),
        ({"command": ["true"], "timeout_s": 10_000}, "timeout_s: expected a number from 1 to 300"),
        ({"command": ["true"], "shell": True}, "with shell, expected one text"),
    ],
)
async def test_what_cannot_be_run_is_refused_in_words(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(InteractdError) as caught:
            await r.schedules.create_webhook(**arguments, by_hand=True)
        assert said in caught.value.message


async def test_a_model_cannot_make_one_that_runs_commands_unless_the_user_said_so(tmp_path: Path) -> None:
    async with rig(tmp_path / "a") as r:
        with pytest.raises(InteractdError) as caught:
            await r.schedules.create_webhook(command=["true"])
        assert caught.value.code == "network_refused"
        assert "interactd webhooks create --command" in (caught.value.repair or "")
        id = await sink(r, ["true"])
        with pytest.raises(InteractdError, match="on the command line only"):
            await r.schedules.update_webhook(id, {"command": ["false"]})
    async with rig(tmp_path / "b", settings=replace(QUICK, commands="anyone")) as r:
        assert (await r.schedules.create_webhook(command=["true"])).webhook.kind == "command"
    async with rig(tmp_path / "c", settings=replace(QUICK, commands="off")) as r:
        with pytest.raises(InteractdError, match="switched off"):
            await sink(r, ["true"])


async def test_the_desktop_shows_what_a_small_program_of_the_system_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("notify-send is Linux's")
    shown = tmp_path / "shown"
    program = tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s|' \"$@\" >> {shown}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    async with rig(tmp_path / "home") as r:
        made = await r.schedules.create_webhook(desktop=True)
        assert made.webhook.background_only
        await r.turn()
        interaction = await r.turn(background=True)
        (done,) = await r.delivered(1)
        assert done.status == "delivered"
        assert shown.read_text() == f"--app-name=interactd|--|interactd: interaction completed|{interaction}|"


async def test_a_machine_without_notifications_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("notify-send is Linux's")
    monkeypatch.setenv("PATH", str(tmp_path))
    async with rig(tmp_path / "home") as r:
        with pytest.raises(SandboxUnavailable) as caught:
            await r.schedules.create_webhook(desktop=True)
        assert "notify-send" in (caught.value.repair or "")


@pytest.mark.parametrize("program", ["notify-send", "osascript", "powershell"])
def test_what_is_shown_is_never_code(program: str) -> None:
    nasty = '"; do shell script "rm -rf /"; $(id) `id` --icon=x'
    argv, stdin = commands.desktop_argv(program, nasty, nasty)
    code = [word for word in argv if word not in (nasty,)]
    assert not any("rm -rf" in word for word in code)
    assert "--" in argv or (program == "powershell" and json.loads(stdin) == {"title": nasty, "text": nasty})


def test_each_system_has_its_notifier() -> None:
    def every(name: str) -> str:
        return f"/bin/{name}"

    def none(name: str) -> None:
        del name

    assert commands.notifier(every, "linux") == "notify-send"
    assert commands.notifier(every, "darwin") == "osascript"
    assert commands.notifier(every, "win32") == "powershell"
    assert commands.notifier(none, "linux") is None


async def test_stopping_the_daemon_ends_a_command_that_is_running(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    body = (
        f"import os, time\nname = {str(pids)!r}\nopen(name + '.new', 'w').write(str(os.getpid()))\n"
        "os.rename(name + '.new', name)\ntime.sleep(600)"
    )
    async with rig(tmp_path / "home") as r:
        await sink(r, script(tmp_path, body))
        await r.turn()
        await until(lambda: asyncio.to_thread(pids.exists), within_s=30)
    await until(lambda: _gone(int(pids.read_text())))
