"""get_interaction without an id: the next background result, which may have to be waited for."""

from __future__ import annotations

import asyncio

import pytest

from interactd_tools import waiting
from tools.conftest import World, fields
from tools.scripted import Says
from tools.test_waiting import Heard

pytestmark = pytest.mark.anyio
TOOL = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}


async def started(world: World, session_id: str | None = None) -> str:
    """A background turn; what it says has to be written down before."""
    called = world.catalog.model.called
    called.clear()
    turn = await world.turn(session_id or await world.session(), background=True)
    async with asyncio.timeout(10):
        await called.wait()
    return turn["interaction_id"]


async def test_it_waits_for_a_run_that_goes_on_and_hands_over_its_result(world: World) -> None:
    gate = asyncio.Event()
    world.says(Says(["Slow", gate, " but sure."]))
    running = await started(world)
    heard = Heard()
    asked = asyncio.create_task(world.call("get_interaction", {"wait_s": 40}, progress=heard))
    async with asyncio.timeout(10):
        await heard.came.wait()
    assert not asked.done()
    gate.set()
    result = await asked
    assert fields(result)["interaction_id"] == running
    assert "Slow but sure." in result.text
    assert "".join(heard.of("text")).startswith("Slow"), "one run's progress is told as with its id"
    assert "No unread background results" in (await world.ok("get_interaction", wait_s=40)).text, "it was read"


async def test_the_first_of_several_to_end_is_the_answer_and_the_others_stay_unread(world: World) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    ids: list[str] = []
    for gate in gates:
        world.says(Says([gate, "Done."]))
        ids.append(await started(world))
    asked = asyncio.create_task(world.call("get_interaction", {}, progress=(heard := Heard())))
    gates[1].set()
    assert fields(await asked)["interaction_id"] == ids[1]
    assert heard.of("text") in ([], ["Done."]), "no text of a run that is not the answer"
    gates[0].set()
    await world.ended(ids[0])
    assert fields(await world.ok("get_interaction"))["interaction_id"] == ids[0]


async def test_when_the_time_is_up_it_shows_how_the_run_stands_and_reads_nothing(world: World) -> None:
    gate = asyncio.Event()
    world.says(Says([gate, "Late."]))
    running = await started(world)
    result = await world.ok("get_interaction", wait_s=0.05)
    assert fields(result)["status"] == "in_progress"
    assert fields(result)["interaction_id"] == running
    assert "No background result was unread; this one was under way." in result.text
    assert "Running for " in result.text
    assert f'Next: get_interaction(interaction_id="{running}"' in result.text
    gate.set()
    await world.ended(running)
    assert "Late." in (await world.ok("get_interaction")).text


async def test_of_several_it_says_how_many_run_and_how_to_wait_for_any(world: World) -> None:
    world.says(Says([asyncio.Event()]), Says([asyncio.Event()]))
    one, other = await started(world), await started(world)
    result = await world.ok("get_interaction", wait_s=0.05)
    assert fields(result)["interaction_id"] == one
    assert (
        "2 runs were under way, of which this is one. get_interaction() waits for whichever ends first." in result.text
    )
    for id in (one, other):
        await world.ok("cancel_interaction", interaction_id=id)


async def test_with_nothing_running_it_says_so_at_once(world: World) -> None:
    session_id = await world.session()
    elsewhere = await world.session()
    gate = asyncio.Event()
    world.says(Says([gate, "x"]))
    running = await started(world, elsewhere)
    async with asyncio.timeout(10):
        result = await world.ok("get_interaction", session_id=session_id, wait_s=40)
    assert "No unread background results of this session, and nothing runs in the background." in result.text
    assert "Next: list_sessions()" in result.text
    assert fields(result)["unread"] == 0
    await world.ok("cancel_interaction", interaction_id=running)


async def test_a_turn_somebody_waits_for_is_not_waited_for_here(world: World) -> None:
    gate = asyncio.Event()
    world.says(Says([gate, "x"]))
    session_id = await world.session()
    foreground = asyncio.create_task(world.call("send_turn", {"session_id": session_id, "input": "x"}))
    async with asyncio.timeout(10):
        await world.catalog.model.called.wait()
        assert "nothing runs in the background" in (await world.ok("get_interaction", wait_s=40)).text
    gate.set()
    await foreground


async def test_a_run_that_begins_to_ask_ends_the_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TEXT_EVERY_S", 0.02)
    monkeypatch.setattr(waiting, "STATUS_AFTER_S", 0.1)
    gate = asyncio.Event()
    world.says(
        Says([gate, "Let me see."], calls=[{"id": "c1", "name": "add", "arguments": {}}]), Says([asyncio.Event()])
    )
    session_id = await world.session(tools=[TOOL])
    asking, other = await started(world, session_id), await started(world)
    heard = Heard()
    asked = asyncio.create_task(world.call("get_interaction", {"wait_s": 40}, progress=heard))
    async with asyncio.timeout(20):
        await heard.came.wait()
        gate.set()
        result = await asked
    assert heard.of("status")[0].startswith(f"{asking}, one of 2: in progress 0 s")
    assert fields(result)["status"] == "requires_action"
    assert fields(result)["interaction_id"] == asking
    assert "wants an answer before it goes on" in result.text
    again = await world.ok("get_interaction", wait_s=0.05)
    assert fields(again)["interaction_id"] == other, "a question that was there before keeps nobody from waiting"
    for id in (asking, other):
        await world.ok("cancel_interaction", interaction_id=id)
