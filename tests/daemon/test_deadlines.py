"""A question that nobody answers: the daemon has nothing else to do, and stays to give the answer that holds then."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from chaos.party import a_world, call
from chaos.test_fire import a_host, until
from support.provider import Call, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="counts processes")]


async def test_an_idle_daemon_stays_for_a_deadline_keeps_it_and_leaves(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more="[daemon]\nidle_exit_s = 0.3\n") as (home, provider):
        wants = Reply(calls=[Call("write_file", {"path": "a.txt", "content": "x"}, id="w1")])
        provider.script([wants, Reply("I was not allowed to.")])
        host = await a_host(home)
        policy = '{"policy": "always_ask", "deadline_s": 5, "default": "deny"}'
        started = await call(host, "run_agent_background", {"input": "Write.", "approvals": policy})
        run = {"interaction_id": started["interaction_id"]}
        assert (await call(host, "get_interaction", {**run, "wait_s": 40}))["status"] == "requires_action"
        pid = home.ready()
        host.hang_up()
        await asyncio.sleep(1.5)  # five times what it would wait with nothing to do
        assert home.daemons() == [pid]
        await until(lambda: home.daemons() == [])
        assert "nothing to do" in home.record()["left"]
        assert len(provider.requests) == 2, "it went on at the deadline, with no host there"
        again = await a_host(home)
        assert (await call(again, "get_interaction", run))["status"] == "completed"
