"""Every tool answers inside its client's deadline, and tells what comes meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from interactd_tools import deadlines, waiting
from interactd_tools.context import ProgressKind
from tools.conftest import World, fields
from tools.scripted import Says

pytestmark = pytest.mark.anyio


class Heard:
    """What a client heard of progress."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, ProgressKind]] = []
        self.came = asyncio.Event()

    async def __call__(self, message: str, kind: ProgressKind) -> None:
        self.messages.append((message, kind))
        self.came.set()

    def of(self, kind: ProgressKind) -> list[str]:
        return [message for message, this in self.messages if this == kind]


def test_a_client_nobody_knows_has_45_seconds_less_a_margin() -> None:
    deadlines.forget()
    assert deadlines.longest_wait("host") == 43
    assert deadlines.longest_wait(None) == 43
    assert deadlines.longest_wait("host", 20) == 18
    assert deadlines.longest_wait("host", 2) == 1.5
    assert deadlines.longest_wait("host", 0) == 0
    assert deadlines.longest_wait("host", 300) == 43


def test_a_time_limit_is_learned_per_client_and_the_shortest_holds() -> None:
    deadlines.forget()
    deadlines.cancelled("host", 30.1)
    assert round(deadlines.longest_wait("host"), 3) == 28.1
    deadlines.cancelled("host", 40.1)
    assert round(deadlines.deadline_for("host"), 3) == 30.1
    assert deadlines.deadline_for("other") == 45
    deadlines.forget()


def test_a_person_who_presses_stop_teaches_nothing_but_the_same_number_twice_does() -> None:
    deadlines.forget()
    for seconds in (0.5, 4.9, float("nan"), 7.3, 17.7):
        deadlines.cancelled("host", seconds)
    assert deadlines.deadline_for("host") == 45
    deadlines.cancelled("host", 17.8)
    assert round(deadlines.deadline_for("host"), 3) == 17.8
    deadlines.cancelled(None, 10)
    deadlines.forget()


def test_many_clients_do_not_fill_the_memory() -> None:
    deadlines.forget()
    for i in range(5000):
        deadlines.cancelled(f"host {i}", 10)
    assert deadlines.deadline_for("host 4999") == 10
    assert deadlines.deadline_for("host 0") == 45
    deadlines.forget()


async def test_a_wait_ends_before_the_clients_deadline_whatever_was_asked_for(world: World) -> None:
    session_id = await world.session()
    world.says(Says([asyncio.Event()]))
    begun = time.monotonic()
    handle = await world.call("send_turn", {"session_id": session_id, "input": "x", "wait_s": 40}, deadline_s=0.4)
    assert fields(handle)["status"] == "in_progress"
    again = await world.call("get_interaction", {"interaction_id": fields(handle)["interaction_id"]}, deadline_s=0.4)
    assert fields(again)["status"] == "in_progress"
    assert time.monotonic() - begun < 0.8
    await world.ok("cancel_interaction", interaction_id=fields(handle)["interaction_id"])


async def test_an_engine_that_stalls_is_answered_for_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalls(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(type(world.engine), "list_sessions", stalls)
    result = await world.call("list_sessions", {}, deadline_s=0.2)
    assert result.is_error
    assert "did not answer in time" in result.text


async def test_a_failure_of_our_own_is_logged_and_shows_no_trace(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(world.engine), "search", breaks)
    result = await world.call("search_history", {"query": "x"})
    assert result.is_error
    assert result.text.startswith("internal: ")
    assert "secret" not in result.text
    assert "secret detail" in caplog.text


async def test_progress_is_the_new_text_and_nothing_else_of_it(world: World) -> None:
    session_id = await world.session()
    gates = [asyncio.Event(), asyncio.Event()]
    world.says(Says(["One ", gates[0], "two ", gates[1], "three."], thought="Not for you."))
    heard = Heard()
    call = asyncio.create_task(world.call("send_turn", {"session_id": session_id, "input": "Count."}, progress=heard))
    for gate in gates:
        async with asyncio.timeout(10):
            await heard.came.wait()
        heard.came.clear()
        gate.set()
    result = await call
    assert "One two three." in result.text
    assert "".join(heard.of("text")) == "One two three."
    assert len(heard.of("text")) >= 2
    assert heard.of("status") == []


async def test_many_small_deltas_come_as_few_messages(world: World) -> None:
    session_id = await world.session()
    gate = asyncio.Event()
    world.says(Says([*(f"{i} " for i in range(500)), gate, *(f"{i} " for i in range(500))]))
    heard = Heard()
    call = asyncio.create_task(world.call("send_turn", {"session_id": session_id, "input": "x"}, progress=heard))
    async with asyncio.timeout(10):
        await heard.came.wait()
    gate.set()
    await call
    assert "".join(heard.of("text")) == "".join(f"{i} " for i in range(500)) * 2
    assert len(heard.messages) <= 4


async def test_silence_is_filled_with_a_status_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TEXT_EVERY_S", 0.02)
    monkeypatch.setattr(waiting, "STATUS_AFTER_S", 0.1)
    session_id = await world.session()
    gate = asyncio.Event()
    world.says(Says(["Hello", gate, "."]))
    heard = Heard()
    call = asyncio.create_task(world.call("send_turn", {"session_id": session_id, "input": "x"}, progress=heard))
    async with asyncio.timeout(10):
        while not heard.of("status"):
            heard.came.clear()
            await heard.came.wait()
    gate.set()
    await call
    assert heard.of("status")[0] == "in progress 0 s, 5 characters so far"
    assert "".join(heard.of("text")) == "Hello."


async def test_a_client_that_cannot_hear_progress_still_gets_the_answer(world: World) -> None:
    async def deaf(message: str, kind: ProgressKind) -> None:
        raise ConnectionResetError

    session_id = await world.session()
    world.says("Anyway.")
    result = await world.call("send_turn", {"session_id": session_id, "input": "x"}, progress=deaf)
    assert "Anyway." in result.text
    assert not result.is_error


async def test_waiting_leaves_no_task_behind(world: World) -> None:
    session_id = await world.session()
    world.says(Says([asyncio.Event()]))
    before = len(asyncio.all_tasks())
    call = {"session_id": session_id, "input": "x", "wait_s": 0.05}
    handle = await world.call("send_turn", call, progress=Heard())
    await world.ok("cancel_interaction", interaction_id=fields(handle)["interaction_id"])
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("progress ")]
    assert len(asyncio.all_tasks()) <= before + 1
