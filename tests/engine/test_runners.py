"""Two engines on one store, as two daemons with one data folder are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S, Rig, ScriptedModel, called, ended, rig, texts, until
from interactd.models.port import StepDelta
from interactd.store.archive_port import Journal

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


@asynccontextmanager
async def two(path: Path, **settings: Any) -> AsyncGenerator[tuple[Rig, Rig]]:
    async with rig(path, model=ScriptedModel(), **settings) as a, rig(path, model=ScriptedModel(), **settings) as b:
        await a.engine._keeper.look()  # pyright: ignore[reportPrivateUsage]
        yield a, b


def die(it: Rig) -> None:
    """Free what the kernel frees when a process is killed; its tasks run on, as no killed process's do."""
    runners = it.store.runners
    os.close(runners._lock)  # pyright: ignore[reportPrivateUsage]
    runners._lock = os.open(os.devnull, os.O_RDONLY)  # pyright: ignore[reportPrivateUsage]


async def stand_still(it: Rig) -> None:
    """Give no sign of life any more."""
    await it.engine._keeper.aclose()  # pyright: ignore[reportPrivateUsage]


async def test_what_one_daemon_runs_another_that_starts_leaves_alone(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as a:
        a.model.gate = asyncio.Event()
        session = await a.engine.create_session()
        sent = await a.engine.send_turn(session.id, "x")
        await a.model.asked(1)
        async with rig(tmp_path / "db") as b:
            waiting = asyncio.create_task(b.engine.wait(sent.interaction.id, PATIENCE_S))
            assert (await b.engine.get_interaction(sent.interaction.id)).interaction.status == "in_progress"
            a.model.gate.set()
            done = await waiting
            assert (done.interaction.status, texts(done)) == ("completed", ["user_input: x", "model_output: ok"])
            assert (done.interaction.epoch, b.model.requests) == (1, [])
            assert done.interaction.runner == a.engine._core.lease.id  # pyright: ignore[reportPrivateUsage]


async def test_a_dead_daemons_turns_are_taken_over_at_once_and_in_order(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=60) as (a, b):
        a.model.gate = asyncio.Event()
        session = await a.engine.create_session()
        sent = [await a.engine.send_turn(session.id, f"t{n}", if_busy="queue") for n in range(4)]
        await a.model.asked(1)
        die(a)
        done = [await b.ended(one.interaction.id) for one in sent]
        assert [one.interaction.status for one in done] == ["completed"] * 4
        assert [request.steps[-1].text for request in b.model.requests] == ["t0", "t1", "t2", "t3"]
        assert (done[0].interaction.epoch, done[0].interaction.attempt) == (2, 2)
        a.model.gate.set()
        await until(lambda: _idle(a))
        again = await b.engine.get_interaction(sent[0].interaction.id)
        assert texts(again) == ["user_input: t0", "model_output: ok"]


async def _idle(it: Rig) -> bool:
    return it.engine._queue.running == 0  # pyright: ignore[reportPrivateUsage]


async def test_a_daemon_that_stands_still_loses_its_turn_after_its_lease_and_writes_nothing_more(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "db", lease_s=0.6) as (a, b):
        a.model.gate = asyncio.Event()
        session = await a.engine.create_session()
        sent = await a.engine.send_turn(session.id, "x")
        await a.model.asked(1)
        await stand_still(a)
        done = await b.ended(sent.interaction.id)
        assert (done.interaction.status, len(b.model.requests)) == ("completed", 1)
        a.model.gate.set()
        await until(lambda: _idle(a))
        assert texts(await b.engine.get_interaction(sent.interaction.id)) == ["user_input: x", "model_output: ok"]


async def test_a_daemon_whose_lease_may_be_over_looks_before_it_calls_a_model(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=60) as (a, b):
        session = await a.engine.create_session()
        # Its claim is taken between the acceptance and the call, while its lease is over.
        resolve, gate = a.catalog.resolve, asyncio.Event()

        async def slowly(*args: Any, **more: Any) -> Any:
            await gate.wait()
            return await resolve(*args, **more)

        a.model.gate = asyncio.Event()
        sent = await a.engine.send_turn(session.id, "x")
        await a.model.asked(1)
        await a.engine.drain(0)
        a.catalog.resolve = slowly
        assert len(a.model.requests) == 1
        taken = await b.store.claim(sent.interaction.id, from_status=("in_progress",), now=b.clock.now)
        assert taken is not None
        lease = a.engine._core.lease  # pyright: ignore[reportPrivateUsage]
        a.store.runners._beat -= 59  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Exception, match="taken over"):
            await lease.check(sent.interaction)
        await b.store.settle(taken.id, taken.epoch, "completed", now=b.clock.now)
        gate.set()


async def test_halves_of_an_answer_that_come_through_two_daemons_at_once_add_up(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        for number in range(20):
            session = await a.engine.create_session(tools=[TOOL])
            a.model.script([*called("add", {}, "c1", 0), *called("add", {}, "c2", 1), *ended("tool_calls")])
            asked = await a.turn(session.id, f"t{number}")
            id = asked.interaction.id
            await asyncio.gather(
                a.engine.respond(id, [{"call_id": "c1", "result": "1"}]),
                b.engine.respond(id, [{"call_id": "c2", "result": "2"}]),
                b.engine.respond(id, [{"call_id": "c1", "result": "1"}]),
            )

            async def terminal(id: str = id) -> bool:
                return (await a.engine.get_interaction(id)).interaction.terminal

            await until(terminal)
            done = await a.engine.get_interaction(id)
            assert done.interaction.status == "completed"
            answers = sorted(step.body["call_id"] for step in done.steps if step.type == "function_result")
            assert answers == ["c1", "c2"]


async def test_what_a_dead_daemon_was_importing_and_exporting_goes_while_another_one_lives(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        archive = a.store.archive
        living = b.engine._core.lease.id  # pyright: ignore[reportPrivateUsage]
        files: dict[str, list[Path]] = {}
        for runner in ("rnr_dead", living):
            note = archive.folder / "exports" / ".under-way" / runner / f".{runner}.zip.part"
            files[runner] = [archive.folder / "imports" / runner / "x" / "index.db", tmp_path / note.name, note]
            for file in files[runner]:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(str(tmp_path / note.name))

        async def delete_one() -> None:
            # Nothing of it may be left in any file when this is answered.
            await a.engine.delete_session((await a.engine.create_session()).id)

        await archive.begin(Journal("imp_1", [], a.clock.now, "rnr_dead"))
        await delete_one()
        assert [file for file in files["rnr_dead"] if file.exists()] == []
        assert [file for file in files[living] if not file.exists()] == []
        await archive.begin(Journal("imp_2", [], a.clock.now, living))
        await delete_one()
        assert await archive.undo("imp_2"), "what a living one is at is not given up"


async def test_a_turn_is_cancelled_from_another_daemon_and_keeps_what_had_come(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        a.model.script([StepDelta(0, "text", "half"), asyncio.Event()])
        session = await a.engine.create_session()
        sent = await a.engine.send_turn(session.id, "x")
        queued = await a.engine.send_turn(session.id, "y", if_busy="queue")
        waiting = asyncio.create_task(a.engine.wait(queued.interaction.id, PATIENCE_S))
        await a.model.asked(1)
        assert (await b.engine.cancel(queued.interaction.id)).interaction.status == "cancelled"
        cancelled = await b.engine.cancel(sent.interaction.id)
        assert (cancelled.interaction.status, texts(cancelled)) == (
            "cancelled",
            ["user_input: x", "model_output: half"],
        )
        assert (await waiting).interaction.status == "cancelled"
        await until(lambda: _idle(a))
        assert a.model.running == 0


async def test_a_runner_that_does_not_hear_a_cancel_is_fenced(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        a.model.gate = asyncio.Event()
        session = await a.engine.create_session()
        sent = await a.engine.send_turn(session.id, "x")
        await a.model.asked(1)
        await stand_still(a)
        assert (await b.engine.cancel(sent.interaction.id)).interaction.status == "cancelled"
        a.model.gate.set()
        await until(lambda: _idle(a))
        assert texts(await b.engine.get_interaction(sent.interaction.id)) == ["user_input: x"]


async def test_a_cancel_that_was_asked_for_outlives_the_runner(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=60) as (a, b):
        a.model.gate = asyncio.Event()
        session = await a.engine.create_session()
        sent = await a.engine.send_turn(session.id, "x")
        await a.model.asked(1)
        await stand_still(a)
        await b.store.runners.ask_cancel(sent.interaction.id, b.clock.now)
        die(a)
        assert (await b.ended(sent.interaction.id)).interaction.status == "cancelled"
        assert b.model.requests == []


async def test_a_turn_that_waits_for_results_is_answered_through_another_daemon(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        a.model.script([*called("add", {}, "c1"), *ended("tool_calls")])
        session = await a.engine.create_session(tools=[TOOL])
        asked = await a.turn(session.id)
        after = await a.engine.send_turn(session.id, "then", if_busy="queue")
        await b.engine.respond(asked.interaction.id, [{"call_id": "c1", "result": "3"}])
        assert (await b.ended(asked.interaction.id)).interaction.status == "completed"
        assert len(b.model.requests) == 1
        assert (await a.ended(after.interaction.id)).interaction.status == "completed"


async def test_turns_of_one_session_sent_to_two_daemons_make_one_line(tmp_path: Path) -> None:
    async with two(tmp_path / "db") as (a, b):
        session = await a.engine.create_session()
        sent = [await (a, b)[n % 2].engine.send_turn(session.id, f"t{n}", if_busy="queue") for n in range(6)]
        more = await asyncio.gather(
            *((a, b)[n % 2].engine.send_turn(session.id, f"m{n}", if_busy="queue") for n in range(6))
        )
        for one in (*sent, *more):
            assert (await a.ended(one.interaction.id)).interaction.status == "completed"
        _, turns = await b.engine.transcript(session.id, limit=50)
        assert [turn.interaction.id for turn in turns[:6]] == [one.interaction.id for one in sent]
        assert {turn.interaction.id for turn in turns[6:]} == {one.interaction.id for one in more}
        starts = [(turn.interaction.started_at or 0, turn.interaction.finished_at or 0) for turn in turns]
        assert len(turns) == 12
        assert len(starts) == 12


async def test_a_daemon_that_comes_later_is_noticed_and_its_death_too(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", lease_s=60) as a:
        async with rig(tmp_path / "db", lease_s=60) as b:
            others = a.engine._core.others  # pyright: ignore[reportPrivateUsage]
            assert others.stale or others.live
            await a.engine._keeper.look()  # pyright: ignore[reportPrivateUsage]
            b.model.gate = asyncio.Event()
            session = await b.engine.create_session()
            sent = await b.engine.send_turn(session.id, "x")
            await b.model.asked(1)
            die(b)
            assert (await a.ended(sent.interaction.id)).interaction.status == "completed"
        assert not a.engine._core.others.live  # pyright: ignore[reportPrivateUsage]


async def test_an_idle_engine_has_no_tick(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session = await it.engine.create_session()
        await it.turn(session.id)
        keeper = it.engine._keeper  # pyright: ignore[reportPrivateUsage]

        async def resting() -> bool:
            return keeper._task is None or keeper._task.done()  # pyright: ignore[reportPrivateUsage]

        await until(resting)
