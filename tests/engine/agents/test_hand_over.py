"""One daemon hands a run over to the next, which goes on where the first left it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.agents.kit import Rig, calls, result_of, rig, runs
from engine.kit import ScriptedModel

pytestmark = pytest.mark.anyio


async def file_there(it: Rig, name: str) -> None:
    for _ in range(1000):
        for one in await it.environments.list():
            if any(entry["path"] == name for entry in await it.environments.files(one.id)):
                return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} was never written")


async def test_a_tool_that_runs_is_finished_before_the_hand_over(tmp_path: Path) -> None:
    code = "open('begun', 'w').write('1')\nimport time\ntime.sleep(1)\nprint('finished')"
    async with rig(tmp_path, model=ScriptedModel()) as it:
        session = await it.session()
        it.model.script(runs(code))
        sent = await it.engine.send_turn(session.id, "go")
        await file_there(it, "begun")
        agents = it.agents
        assert await it.engine.drain(20)
        assert len(it.model.requests) == 1, "the next model call is the next daemon's"
    async with rig(tmp_path, agents=agents) as after:
        after.model.script("done")
        result = await after.ended(sent.interaction.id)
        assert result.interaction.status == "completed"
        assert result_of(result)["result"] == "finished"
        assert await after.files(result) == {"begun": b"1"}, "what the first daemon's part made is kept as well"


async def test_a_tool_that_takes_too_long_is_stopped_and_told_as_lost(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        session = await it.session()
        it.model.script(runs("open('begun', 'w').write('1')\nimport time\ntime.sleep(100)"))
        sent = await it.engine.send_turn(session.id, "go")
        await file_there(it, "begun")
        agents = it.agents
        assert await it.engine.drain(0.2)
    async with rig(tmp_path, agents=agents) as after:
        after.model.script("done")
        result = await after.ended(sent.interaction.id)
        assert result.interaction.status == "completed"
        assert "Outcome unknown" in result_of(result)["result"]


async def test_calls_that_were_not_begun_are_begun_by_the_next_daemon(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        session = await it.session()
        code = "open('begun', 'w').write('1')\nimport time\ntime.sleep(1)\nprint('one')"
        it.model.script([*runs(code, "1")[:-1], *runs("print('two')", "2", index=1)])
        sent = await it.engine.send_turn(session.id, "go")
        await file_there(it, "begun")
        agents = it.agents
        assert await it.engine.drain(20)
        before = await it.store.get_steps(sent.interaction.id)
        assert [s.body.get("call_id") for s in before if s.type.endswith("_result")] == ["1"]
    async with rig(tmp_path, agents=agents) as after:
        after.model.script("done")
        result = await after.ended(sent.interaction.id)
        assert result_of(result, "1")["result"] == "one"
        assert result_of(result, "2")["result"].startswith(
            "two\n[Variables and imports of earlier Python calls are gone"
        )


async def test_deleting_the_session_of_a_running_agent_stops_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        session = await it.session()
        it.model.script(
            calls("write_file", {"path": "begun", "content": ""}), runs("import time; time.sleep(100)", "c2")
        )
        await it.engine.send_turn(session.id, "go")
        await file_there(it, "begun")
        receipt = await it.engine.delete_session(session.id)
        assert receipt.session_id == session.id
        assert it.engine.busy == 0
