"""Clocks that jump by a day, forwards and back, while runs wait, run and are tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.kit import Rig, ScriptedModel, rig, texts, until
from interactd.errors import RateLimited

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0
JUMPS = pytest.mark.parametrize("jump_s", [DAY_S + 3_600, -DAY_S])


async def a_run(it: Rig, session: str, text: str = "x") -> str:
    return (await it.engine.send_turn(session, text, background=True, if_busy="queue")).interaction.id


@JUMPS
async def test_a_run_in_the_middle_of_which_the_clock_jumps_ends_in_order_and_can_be_read(
    tmp_path: Path, jump_s: float
) -> None:
    async with rig(tmp_path / "db") as it:
        it.model.gate = asyncio.Event()
        session = (await it.engine.create_session()).id
        first, second = await a_run(it, session, "one"), await a_run(it, session, "two")
        await it.model.asked(1)
        it.clock.now += jump_s
        it.model.gate.set()
        for id, text in ((first, "one"), (second, "two")):
            done = await it.ended(id)
            assert texts(done) == [f"user_input: {text}", "model_output: ok"]
            row = done.interaction
            assert row.status == "completed"
            assert (row.finished_at or 0) >= (row.started_at or 0) >= 0
        assert (await it.engine.get_session(session)).state == "active"
        after = await it.turn(session, "three")
        assert after.interaction.status == "completed"


@JUMPS
async def test_what_nobody_has_read_is_there_after_the_clock_jumped(tmp_path: Path, jump_s: float) -> None:
    async with rig(tmp_path / "db") as it:
        session = (await it.engine.create_session()).id
        id = await a_run(it, session)

        async def over() -> bool:
            return (await it.store.get_interaction(id)).terminal

        await until(over)
        it.clock.now += jump_s
        async with rig(tmp_path / "db", clock=it.clock) as other:
            done = await other.engine.get_interaction(id)
            assert done.interaction.status == "completed"


@JUMPS
async def test_an_attempt_that_is_to_be_made_again_in_seconds_is_not_put_off_by_a_day(
    tmp_path: Path, jump_s: float
) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model) as it:
        session = (await it.engine.create_session()).id
        model.script([RateLimited("slow down", retry_after_s=1.0)])
        id = await a_run(it, session)
        await model.asked(1)

        async def waits() -> bool:
            return (await it.store.get_interaction(id)).status == "queued"

        await until(waits)
        it.clock.now += jump_s
        done = await it.ended(id)
        assert done.interaction.status == "completed"
        assert len(model.requests) == 2


@JUMPS
async def test_a_key_is_the_same_call_after_the_clock_jumped_back_and_a_new_one_a_day_later(
    tmp_path: Path, jump_s: float
) -> None:
    async with rig(tmp_path / "db") as it:
        session = (await it.engine.create_session(ttl_s=0)).id
        first = await it.engine.send_turn(session, "x", idempotency_key="k")
        await it.ended(first.interaction.id)
        it.clock.now += jump_s
        again = await it.engine.send_turn(session, "x", idempotency_key="k")
        assert (again.interaction.id == first.interaction.id) == (jump_s < 0)
        assert (await it.ended(again.interaction.id)).interaction.status == "completed"
