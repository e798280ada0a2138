"""What waits for its user, at the command line: inbox, approvals, respond, cancel."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cli.conftest import Terminal
from support.provider import Call, Reply, Request

pytestmark = pytest.mark.anyio


def writes(request: Request) -> Reply:
    heard = [message["content"] for message in request.json["messages"] if message["role"] == "tool"]
    if heard:
        return Reply(text=f"heard: {heard[-1]}")
    return Reply(calls=[Call("write_file", {"path": "a.txt", "content": "x"}, id="c1")])


async def asked(terminal: Terminal, **more: Any) -> str:
    """Start a background run that has to ask, as another client would; returns its id once it waits."""
    terminal.provider.default = writes
    keys = {"OPENAI_API_KEY": "sk-of-a-host", "OPENAI_BASE_URL": terminal.provider.base_url}

    def start() -> str:
        host = terminal.home.host(real=True, **keys)
        try:
            host.initialize()
            made = host.call(
                "run_agent_background", input="write", model="openai/fake-model-1", approvals="always_ask", **more
            )["structuredContent"]
            seen = host.call("get_interaction", interaction_id=made["interaction_id"], wait_s=25)["structuredContent"]
            assert seen["status"] == "requires_action", seen
            return str(seen["interaction_id"])
        finally:
            host.close()

    return await asyncio.to_thread(start)


async def test_a_question_is_listed_answered_and_its_result_waits_to_be_read(terminal: Terminal) -> None:
    interaction_id = await asked(terminal, title="Files")
    listed = await terminal.run("approvals")
    assert "Agent antigravity wants to write the file a.txt. May it?" in listed.out
    assert f"interactd respond {interaction_id} --allow" in listed.out
    assert "then: deny" in listed.out
    (one,) = (await terminal.run("approvals", "--json")).json
    assert one["interaction_id"] == interaction_id
    assert one["questions"][0]["arguments"] == {"path": "a.txt", "content": "x"}
    # This terminal has no keys: the run goes on with those it began with.
    words = ("respond", interaction_id, "--allow", "--scope", "run", "--wait", "--json")
    done = await terminal.run(*words, OPENAI_API_KEY="")
    assert done.json["interaction"]["status"] == "completed"
    assert (await terminal.run("approvals")).out == "Nothing waits for a decision.\n"


async def test_a_denial_with_its_reason_reaches_the_agent(terminal: Terminal) -> None:
    interaction_id = await asked(terminal)
    call_id = (await terminal.run("approvals", "--json")).json[0]["questions"][0]["call_id"]
    done = await terminal.run(
        "respond", interaction_id, "--deny", "--reason", "not here", "--call", call_id, "--wait", "--json"
    )
    assert "not here" in json.dumps(done.json["steps"])
    again = await terminal.run("respond", interaction_id, "--allow")
    assert again.code == 1
    assert "it waits for no answer" in again.err


async def test_mistakes_are_told_with_what_to_do(terminal: Terminal) -> None:
    interaction_id = await asked(terminal)
    wrong = await terminal.run("respond", interaction_id, "--allow", "--call", "nonsense")
    assert (wrong.code, "It waits for ask_" in wrong.err) == (1, True)
    wrong = await terminal.run("respond", interaction_id, "--result", "5")
    assert (wrong.code, "--allow or --deny" in wrong.err) == (1, True)
    assert (await terminal.run("respond", interaction_id)).code == 2
    assert (await terminal.run("cancel")).code == 1
    assert (await terminal.run("cancel", "--all", interaction_id)).code == 1
    unknown = await terminal.run("respond", "int_zzz", "--allow", "--json")
    assert unknown.json["error"]["code"] == "not_found"


async def test_the_inbox_has_both_and_reading_takes_a_result_out(terminal: Terminal) -> None:
    assert (await terminal.run("inbox")).out == "Nothing waits for you.\n"
    waiting = await asked(terminal)
    ended = await asked(terminal)
    assert (await terminal.run("cancel", ended)).out == f"{ended}: cancelled\n"
    both = (await terminal.run("inbox", "--json")).json
    assert [one["interaction"]["id"] for one in both["waiting"]] == [waiting]
    shown = await terminal.run("inbox")
    assert "waits for you" in shown.out
    assert both["unread_total"] == 0, "who cancels it has seen its end"


async def test_everything_is_cancelled_at_once(terminal: Terminal) -> None:
    ids = {await asked(terminal), await asked(terminal)}
    done = (await terminal.run("cancel", "--all", "--json")).json
    assert {one["interaction_id"] for one in done} == ids
    assert (await terminal.run("cancel", "--all")).out == "Nothing runs or waits.\n"
    missing = await terminal.run("cancel", "int_zzz", *ids, "--json")
    assert missing.code == 1
    assert [one.get("status") for one in missing.json] == [None, "cancelled", "cancelled"]


async def test_unread_background_results_are_listed_and_shown(terminal: Terminal) -> None:
    interaction_id = await asked(terminal)
    await terminal.run("respond", interaction_id, "--allow")
    async with asyncio.timeout(60):
        while (found := (await terminal.run("inbox", "--json")).json)["unread_total"] == 0:
            assert found["waiting_total"] == 0
    assert interaction_id in (await terminal.run("inbox")).out
    assert found["unread"][0]["id"] == interaction_id
    sessions = (await terminal.run("sessions", "--unread", "--json")).json["items"]
    assert [one["id"] for one in sessions] == [found["unread"][0]["session_id"]]
    await terminal.run("show", interaction_id)
    assert (await terminal.run("inbox")).out == "Nothing waits for you.\n"
