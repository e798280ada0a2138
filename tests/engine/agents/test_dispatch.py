"""An agent's run that is out of time, or is tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.agents.kit import Rig, calls, result_of, rig, runs, steps
from engine.kit import until
from interactd.builtins.declare import declare
from interactd.builtins.port import Outcome, ToolContext
from interactd.engine.dispatch import retries
from interactd.errors import ProviderUnavailable, SandboxFailed
from interactd.models.port import StepDelta

pytestmark = pytest.mark.anyio


async def test_a_run_that_is_out_of_time_stops_its_code_and_keeps_its_work(it: Rig) -> None:
    it.model.script(
        runs("open('made.txt', 'w').write('here'); print('so far', flush=True); import time; time.sleep(600)")
    )
    done = await it.turn(dispatch={"timeout_s": 4})
    assert (done.interaction.status, (done.interaction.error or {})["code"]) == ("incomplete", "time_exceeded")
    assert "timeout_s" in (done.interaction.error or {})["message"]
    assert steps(done)[:3] == ["user_input", "code_execution_call", "code_execution_result"]
    assert "so far" in result_of(done)["result"]
    assert await it.files(done) == {"made.txt": b"here"}


async def test_a_provider_that_is_down_for_a_while_costs_a_run_no_step(
    it: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "BASE_S", 0.02)
    it.model.script(
        runs("print('once')"),
        [StepDelta(0, "text", "broken off"), ProviderUnavailable("Down.")],
        [ProviderUnavailable("Still down.")],
        "Done.",
    )
    done = await it.turn(background=True)
    assert (done.interaction.status, done.interaction.attempt) == ("completed", 3)
    assert steps(done) == ["user_input", "code_execution_call", "code_execution_result", "model_output"]
    assert len(it.model.requests) == 4


class Breaks:
    """A tool whose sandbox dies at the first call."""

    name = "brittle"
    replay: Any = "safe"
    parallel = False
    declaration = declare("brittle", "Breaks once.", {})

    def __init__(self) -> None:
        self.made = 0

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        self.made += 1
        if self.made == 1:
            raise SandboxFailed("It died.")
        return Outcome("fine")


async def test_a_sandbox_that_dies_is_told_to_the_model_of_a_run_that_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "BASE_S", 0.02)
    tool = Breaks()
    async with rig(tmp_path, tools=[tool]) as it:
        it.agents.put(tools=("brittle",))
        it.model.script(calls("brittle", {}), calls("brittle", {}, "c2"), "Done.")
        done = await it.turn(background=True)
        assert done.interaction.status == "completed", done.interaction.error
        assert result_of(done)["is_error"]
        assert result_of(done, "c2")["result"] == "fine"
        assert tool.made == 2


async def test_a_run_that_another_daemon_took_keeps_no_files_and_leaves_no_process(it: Rig) -> None:
    it.model.script(runs("open('made.txt', 'w').write('x'); import time; time.sleep(600)"))
    session = await it.session()
    sent = await it.engine.send_turn(session.id, "x")
    run = it.engine._queue.run_of(sent.interaction.id)  # pyright: ignore[reportPrivateUsage]
    assert run is not None

    async def called() -> bool:
        return "c1" in str(await it.store.pending(sent.interaction.id))

    await until(called)
    taken = await it.store.claim(sent.interaction.id, from_status=("in_progress",), now=it.clock.now)
    assert taken is not None
    async with asyncio.timeout(30):
        await run.over.wait()
    assert await it.environments.artifacts(sent.interaction.id) == []
    seen = await it.engine.get_interaction(sent.interaction.id)
    assert steps(seen) == ["user_input", "code_execution_call"]
    await it.store.settle(taken.id, taken.epoch, "cancelled", now=it.clock.now)
