"""A client that waits through a shim while daemons die hears everything once."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from chaos.runs.kit.plans import Plans
from chaos.runs.kit.world import CHAOSD, Json, World, a_world, until
from support.hosts import Host
from support.provider import Reply

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="SIGKILL, fork and a sandbox"),
]

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


async def a_host(world: World, *options: str) -> Host:
    host = world.home.host_of([sys.executable, "-P", CHAOSD, *options, "mcp"])
    key = host.ask("initialize", INITIALIZE)
    await answer(host, key)
    host.tell("notifications/initialized")
    return host


async def answer(host: Host, key: int | str) -> Json:
    def found() -> list[Json]:
        return [m for m in tuple(host.messages) if m.get("id") == key and "method" not in m]

    return (await until(found))[0]


async def call(host: Host, tool: str, **arguments: object) -> Json:
    said = await answer(host, host.ask("tools/call", {"name": tool, "arguments": arguments}))
    assert not said["result"].get("isError"), said
    return said["result"]["structuredContent"]


def progress(host: Host) -> list[Json]:
    return [m["params"] for m in tuple(host.messages) if m.get("method") == "notifications/progress"]


def heard(host: Host) -> str:
    """The text that the client was told, put together."""
    return "".join(p["message"] for p in progress(host) if p["_meta"]["interactd/kind"] == "text")


def _held(reply: Reply) -> Reply:
    """The same, without ever an end."""
    reply.text = [*list(reply.text)[:-1], asyncio.Event()]
    return reply


async def died(world: World) -> None:
    world.kill(pid=(await world.call("status"))["pid"])


async def test_progress_goes_on_where_it_was_over_dead_daemons(tmp_path: Path) -> None:
    plans = Plans(1, rounds=(2, 2), calls=(1, 1), kinds=("safe",))
    async with a_world(tmp_path / "home", plans.answer, start=False) as world:
        world.marks.gate = gate = asyncio.Event()
        host = await a_host(world)
        session = (await call(host, "create_session", agent="helper"))["session_id"]
        turn = await call(host, "send_turn", session_id=session, input="run 0", background=True)
        waiting: Json = {
            "name": "get_interaction",
            "arguments": {"interaction_id": turn["interaction_id"], "wait_s": 40},
        }
        key = host.ask("tools/call", {**waiting, "_meta": {"progressToken": "p"}})
        for at, deaths in ((0, 1), (1, 1)):
            id = f"r0-{at}-0-safe"
            for n in range(deaths):
                await until(lambda id=id, n=n: world.marks.seen[id] > n)
                await until(lambda at=at: f"step {at} of run 0." in heard(host))
                await died(world)
            await until(lambda id=id, deaths=deaths: world.marks.seen[id] > deaths)
            opened, world.marks.gate = gate, (gate := asyncio.Event())
            opened.set()
        done = (await answer(host, key))["result"]["structuredContent"]
        assert done["status"] == "completed"
        assert heard(host) == "step 0 of run 0.step 1 of run 0.done run 0."
        counts = [p["progress"] for p in progress(host)]
        assert counts == sorted(set(counts)), "it only grows"
        host.hang_up()


async def test_a_text_that_a_dead_daemon_left_half_told_is_said_to_begin_again(tmp_path: Path) -> None:
    plans = Plans(1, rounds=(0, 0))
    async with a_world(tmp_path / "home", plans.answer, start=False) as world:
        world.provider.script([lambda request: _held(plans.answer(request))])
        host = await a_host(world)
        session = (await call(host, "create_session", agent="helper"))["session_id"]
        turn = await call(host, "send_turn", session_id=session, input="run 0", background=True)
        waiting: Json = {
            "name": "get_interaction",
            "arguments": {"interaction_id": turn["interaction_id"], "wait_s": 40},
        }
        key = host.ask("tools/call", {**waiting, "_meta": {"progressToken": "p"}})
        await until(lambda: heard(host) == "done run 0")
        await died(world)
        done = (await answer(host, key))["result"]["structuredContent"]
        assert done["status"] == "completed"
        assert heard(host) == "done run 0done run 0."
        lines = [p["message"] for p in progress(host) if p["_meta"]["interactd/kind"] == "status"]
        assert any("begins again" in line for line in lines), lines
        host.hang_up()
