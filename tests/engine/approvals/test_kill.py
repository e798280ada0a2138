"""SIGKILL while a run waits for a word: the question, its deadline and the answer are all in the journal."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine.agents.test_crashes import NOTED, PATIENCE_S, Daemons, daemons, results_in
from support.provider import Call, FakeProvider, Reply, Request

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]


def noted_once(request: Request) -> Reply:
    if heard := results_in(request):
        return Reply(text=f"heard: {heard[-1].strip()}")
    return Reply(calls=[Call("code_execution", {"language": "python", "code": NOTED}, id="code")])


async def asked(them: Daemons, **policy: object) -> str:
    session = await them.call("create_session", agent="helper", model="openai/fake-model-1")
    sent = await them.call(
        "send_turn", session_id=session["id"], content="go", approvals={"policy": "always_ask", **policy}
    )
    assert (await them.ended(sent["id"]))["status"] == "requires_action"
    return str(sent["id"])


async def test_a_question_is_answered_after_the_daemon_was_killed_and_what_it_allows_runs_once(tmp_path: Path) -> None:
    async with FakeProvider(default=noted_once) as provider, daemons(tmp_path, provider) as them:
        sent = await asked(them)
        await them.kill()
        await them.start()
        (question,) = (await them.ended(sent))["waiting_for"]
        await them.call("respond", interaction_id=sent, results=[{"call_id": question["id"], "result": "allow"}])
        done = await them.ended(sent)
        assert done["status"] == "completed"
        assert done["steps"][-1]["content"][0]["text"] == "heard: 1"
        assert len(provider.requests) == 2


async def test_a_deadline_is_kept_by_the_next_daemon_once(tmp_path: Path) -> None:
    async with FakeProvider(default=noted_once) as provider, daemons(tmp_path, provider) as them:
        # Long enough to be killed before it, and over soon after the next daemon is there.
        sent = await asked(them, deadline_s=5, default="allow")
        await them.kill()
        await them.start()
        async with asyncio.timeout(PATIENCE_S):
            while (done := await them.ended(sent))["status"] == "requires_action":
                assert done["waiting_for"][0]["default"] == "allow"
                await asyncio.sleep(0.1)
        await them.kill()
        await them.start()
        done = await them.ended(sent)
        assert done["status"] == "completed"
        assert done["steps"][-1]["content"][0]["text"] == "heard: 1", "it ran once"
        given = [step for step in done["steps"] if (step.get("result") or {}) and "by" in str(step.get("result"))]
        assert len(given) == 1
