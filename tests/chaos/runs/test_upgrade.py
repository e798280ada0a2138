"""A newer interactd comes in the middle of runs, while a host still runs the older shim."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from chaos.runs.kit.plans import Plans
from chaos.runs.kit.world import Json, World, a_world, until
from chaos.runs.test_watching import a_host, answer, call, heard

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="fork and a sandbox"),
]
OLD, NEW = ("--version", "99.1.0"), ("--version", "99.2.0")


async def version(world: World) -> str:
    return (await world.call("status"))["version"]


async def test_runs_go_on_over_an_upgrade_and_the_older_shim_goes_on_with_the_newer_daemon(tmp_path: Path) -> None:
    plans = Plans(4, rounds=(3, 3), calls=(1, 1), kinds=("never",))
    async with a_world(tmp_path / "home", plans.answer, start=False) as world:
        world.marks.gate = gate = asyncio.Event()
        old = await a_host(world, *OLD)
        session = (await call(old, "create_session", agent="helper"))["session_id"]
        other = (await call(old, "create_session", agent="helper"))["session_id"]
        turn = await call(old, "send_turn", session_id=session, input="run 0", background=True)
        second = await call(old, "send_turn", session_id=other, input="run 1", background=True)
        waiting: Json = {"interaction_id": turn["interaction_id"], "wait_s": 40}
        key = old.ask("tools/call", {"name": "get_interaction", "arguments": waiting, "_meta": {"progressToken": "p"}})
        await until(lambda: world.marks.seen["r0-0-0-never"] and world.marks.seen["r1-0-0-never"])
        assert await version(world) == "99.1.0"
        before = set(world.home.daemons())
        coming = asyncio.create_task(a_host(world, *NEW))
        await until(lambda: "handing over to version 99.2.0" in world.home.paths.log_file.read_text())
        # The call that runs is finished by the daemon that leaves; the rest is the next one's.
        gate.set()
        world.marks.gate = None
        new = await coming
        done = (await answer(old, key))["result"]["structuredContent"]
        assert done["status"] == "completed"
        assert heard(old) == "step 0 of run 0.step 1 of run 0.step 2 of run 0.done run 0."
        assert (await world.ended(second["interaction_id"]))["interaction"]["status"] == "completed"
        assert await version(world) == "99.2.0"
        for run in (0, 1):
            assert plans.asked[run] == [0, 1, 2, 3], "no model call is made again"
            first, *rest = plans.ids(run)
            assert [world.marks.seen[id] for id in (first, *rest)] == [1, 1, 1]
            assert set(world.marks.by[first]) <= before
            assert not set(world.marks.by[rest[-1]]) & before
        assert (await call(old, "server_status"))["status"] == "ok", "the older shim is served by the newer daemon"
        third = await call(old, "send_turn", session_id=session, input="run 2", background=True)
        assert (await world.ended(third["interaction_id"]))["interaction"]["status"] == "completed"
        assert len(world.home.daemons()) == 1
        new.hang_up()
        old.hang_up()
