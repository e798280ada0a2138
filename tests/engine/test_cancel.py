from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.kit import PATIENCE_S, Rig, ScriptedModel, called, ended, rig, said, texts
from interactd.models.port import StepDelta, StepFinished, StepStarted
from interactd.nouns import Step, text_content

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


async def test_cancel_stops_the_model_and_keeps_what_came(it: Rig) -> None:
    session = await it.engine.create_session()
    thought = Step("thought", {"summary": [text_content("hm")]})
    it.model.script(
        [
            StepFinished(0, thought),
            StepStarted(1, "model_output"),
            StepDelta(1, "text", "Once"),
            asyncio.Event(),
            *said("never", 2),
        ]
    )
    sent = await it.engine.send_turn(session.id, "tell")
    async for event in it.engine.events(sent.interaction.id):
        if event.type == "step.delta" and event.data["delta"].get("text") == "Once":
            break
    done = await it.engine.cancel(sent.interaction.id)
    assert done.interaction.status == "cancelled"
    assert texts(done) == ["user_input: tell", "thought: hm", "model_output: Once"]
    assert (it.model.stopped, it.model.running) == (1, 0)
    assert it.engine.busy == 0
    assert (await it.engine.wait(sent.interaction.id, PATIENCE_S)).interaction.status == "cancelled"


async def test_cancel_is_idempotent_and_leaves_what_is_done_alone(it: Rig) -> None:
    session = await it.engine.create_session()
    turn = await it.turn(session.id)
    for _ in range(2):
        assert (await it.engine.cancel(turn.interaction.id)).interaction.status == "completed"
    it.model.gate = asyncio.Event()
    sent = await it.engine.send_turn(session.id, "x")
    outcomes = await asyncio.gather(*(it.engine.cancel(sent.interaction.id) for _ in range(5)))
    assert {outcome.interaction.status for outcome in outcomes} == {"cancelled"}


async def test_a_queued_turn_is_cancelled_without_asking_the_model(it: Rig) -> None:
    session = await it.engine.create_session()
    it.model.gate = asyncio.Event()
    first = await it.engine.send_turn(session.id, "a")
    second = await it.engine.send_turn(session.id, "b", if_busy="queue")
    follower = asyncio.create_task(it.events(second.interaction.id))
    waiter = asyncio.create_task(it.engine.wait(second.interaction.id, PATIENCE_S))
    await asyncio.sleep(0)
    await it.engine.cancel(second.interaction.id)
    assert (await waiter).interaction.status == "cancelled"
    assert (await follower)[-1].data["status"] == "cancelled"
    it.model.gate.set()
    await it.ended(first.interaction.id)
    assert len(it.model.requests) == 1


async def test_a_turn_that_waits_for_results_can_be_given_up(it: Rig) -> None:
    session = await it.engine.create_session(tools=[TOOL])
    it.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
    turn = await it.turn(session.id)
    queued = await it.engine.send_turn(session.id, "next", if_busy="queue")
    assert (await it.engine.cancel(turn.interaction.id)).interaction.status == "cancelled"
    assert (await it.ended(queued.interaction.id)).interaction.status == "completed"


async def test_cancel_right_after_send_never_leaves_a_run_behind(it: Rig) -> None:
    session = await it.engine.create_session()
    for spins in range(15):
        sent = await it.engine.send_turn(session.id, "x", if_busy="queue")
        for _ in range(spins):
            await asyncio.sleep(0)
        done = await it.engine.cancel(sent.interaction.id)
        assert done.interaction.terminal
        assert it.model.running == 0
    assert (await it.turn(session.id)).interaction.status == "completed"


async def test_a_provider_that_does_not_let_go_cannot_hold_up_the_cancel(tmp_path: Path) -> None:
    release = asyncio.Event()

    class Clinging(ScriptedModel):
        async def stream(self, request):  # type: ignore[no-untyped-def]  # pyright: ignore
            self.requests.append(request)
            try:
                yield StepDelta(0, "text", "part")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.shield(asyncio.ensure_future(_until(release)))
                raise

    async with rig(tmp_path / "db", model=Clinging(), cancel_patience_s=0.05) as it:
        session = await it.engine.create_session()
        sent = await it.engine.send_turn(session.id, "x")
        async for event in it.engine.events(sent.interaction.id):
            if event.type == "step.delta":
                break
        done = await it.engine.cancel(sent.interaction.id)
        assert done.interaction.status == "cancelled"
        assert texts(done)[1:] == ["model_output: part"]
        release.set()
    async with rig(tmp_path / "db") as it:
        assert texts(await it.engine.get_interaction(sent.interaction.id))[1:] == ["model_output: part"]


async def _until(event: asyncio.Event) -> None:
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError:
            continue
