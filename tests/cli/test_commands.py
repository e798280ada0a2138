"""Commands as a person types them: what they print, and what they say when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from cli.conftest import Terminal
from support.provider import Fault, Reply

pytestmark = pytest.mark.anyio


async def test_a_command_line_that_cannot_be_read_is_told_in_the_form_that_was_asked_for(terminal: Terminal) -> None:
    plain = await terminal.run("search")
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.endswith("interactd search: error: the following arguments are required: query\n")
    for words in (("search",), ("sessions", "-n", "0"), ("frobnicate",), ("chat", "--bogus"), ("serve", "--json")):
        ran = await terminal.run(*words, "--json")
        assert (ran.code, ran.err) == (2, "")
        assert ran.json["error"]["code"] == "usage"


async def test_an_option_of_no_command_is_told_with_the_usage_of_the_command(terminal: Terminal) -> None:
    ran = await terminal.run("chat", "--bogus")
    assert ran.code == 2
    assert ran.err.startswith("usage: interactd chat ")


async def test_a_port_that_is_none_is_refused(terminal: Terminal) -> None:
    for port in ("99999", "-1", "http"):
        ran = await terminal.run("serve", f"--port={port}")
        assert ran.code == 2
        assert "--port" in ran.err


async def test_serve_listens_where_this_terminal_was_told_to_though_the_daemon_runs_already(terminal: Terminal) -> None:
    await terminal.chat("Hello.")
    process = await terminal.start("serve", INTERACTD_SERVE_PORT="0")
    assert process.stdout
    async with asyncio.timeout(30):
        line = await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    ran = await terminal.finish(process)
    assert line.startswith(b"Streamable HTTP  http://127.0.0.1:")
    assert b":8642/" not in line
    assert ran.code == 0


async def test_errors_name_commands_and_not_tools(terminal: Terminal) -> None:
    ran = await terminal.run("show", "ses_zzz")
    assert ran.code == 1
    assert ran.err == "not_found: there is no session ses_zzz\n`interactd sessions` shows the ids there are.\n"


async def test_deleting_as_json_has_an_error_in_the_place_of_a_receipt(terminal: Terminal) -> None:
    session_id = (await terminal.chat("Hello."))["session"]["id"]
    ran = await terminal.run("delete", "--json", "-y", "ses_zzz", session_id)
    assert (ran.code, ran.err) == (1, "")
    refused, receipt = ran.json
    assert (refused["session_id"], refused["error"]["code"]) == ("ses_zzz", "not_found")
    assert receipt["session_id"] == session_id


async def test_an_empty_message_makes_no_session(terminal: Terminal) -> None:
    for words in (("chat", " "), ("chat",)):
        ran = await terminal.run(*words)
        assert ran.code == 1
        assert ran.err.startswith("invalid_argument: message: is empty")
    assert (await terminal.run("sessions", "--json")).json["items"] == []


async def test_brackets_in_what_others_say_are_shown_and_break_nothing(terminal: Terminal) -> None:
    terminal.provider.script([Fault(400, "no [bold] here [/nothing]"), "I say [/b] and [red]."])
    ran = await terminal.run("chat", "-m", "openai/fake-model-1", "Is [/x] fine?")
    assert ran.code == 1
    assert "no [bold] here [/nothing]" in ran.err.replace("\n", " ")
    session_id = json.loads((await terminal.run("sessions", "--json")).out)["items"][0]["id"]
    ran = await terminal.run("chat", "-s", session_id, "Again.")
    assert ran.out == "I say [/b] and [red].\n"
    shown = await terminal.run("show", session_id)
    assert shown.code == 0
    assert "no [bold] here [/nothing]" in shown.out
    assert "I say [/b] and [red]." in shown.out


async def test_a_chat_outlives_its_daemon(terminal: Terminal) -> None:
    terminal.provider.script([Reply(["Once ", asyncio.Event()]), "Once upon a time."])
    process = await terminal.start("chat", "-m", "openai/fake-model-1", "Tell me a story.")
    assert process.stdout
    async with asyncio.timeout(30):
        assert await process.stdout.readexactly(5) == b"Once "
    os.kill(terminal.home.ready(), signal.SIGKILL)
    ran = await terminal.finish(process)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("\nOnce upon a time.\n")
    assert len(terminal.provider.requests) == 2


async def test_a_demo_that_cannot_go_on_says_why(terminal: Terminal) -> None:
    ran = await terminal.run("demo", "--model", "nope/nothing", TMPDIR=str(terminal.home.root.parent))
    assert ran.code == 1
    assert "The demo failed: create_session: unknown_model:" in ran.out
    assert "Traceback" not in ran.out + ran.err
