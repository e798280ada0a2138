"""Triggers over daemons that come and go, and records that grow old."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable.kit import Rig, rig, until
from interactd.errors import InteractdError, Overloaded, ProviderUnavailable

pytestmark = pytest.mark.anyio

MINUTE = 60.0


def on_the_five(rig: Rig) -> float:
    """The clock's next multiple of five minutes."""
    return (rig.clock() // 300 + 1) * 300


async def test_two_daemons_on_one_store_fire_each_time_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as a, rig(tmp_path, clock=a.clock, model=a.model) as b:
        triggers = [(await a.trigger(f"*/{n} * * * *")).id for n in (1, 5)]
        start = a.clock.now
        for minute in range(1, 21):
            a.clock.now = start + minute * MINUTE
            await asyncio.gather(a.looked(), b.looked())

        async def over() -> bool:
            return all(one.status not in ("in_progress", "queued") for one in await a.executions())

        await until(over)
        found = await a.executions()
        assert len({(one.trigger_id, one.scheduled_at) for one in found}) == len(found)
        started = [one for one in found if one.interaction_id]
        assert len(a.model.requests) == len(started)
        assert len(found) == 20 + 4
        assert {one.trigger_id for one in found} == set(triggers)


async def test_old_records_are_forgotten_but_for_the_last_hundred(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(paused=True)
        await r.schedules.run_trigger(trigger.id)
        (run,) = await r.ran(trigger.id, 1)
        assert await r.store.schedules.prune(r.clock.now + 1) == 0
        assert (await r.executions(trigger.id))[0].id == run.id


async def test_a_daemon_that_hands_over_leaves_the_start_to_the_next_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        await r.engine.drain(0)
        r.clock.now = on_the_five(r) + 1
    async with rig(tmp_path, clock=r.clock) as after:
        (done,) = await after.ran(trigger.id, 1)
        assert done.status == "completed"
        assert len(after.model.requests) == 1


async def test_a_start_for_which_there_is_no_room_is_made_later(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(paused=True)
        refuse: list[InteractdError] = [Overloaded("full")]
        send = r.engine.send_turn

        async def crowded(*args: Any, **more: Any) -> Any:
            if refuse:
                raise refuse.pop()
            return await send(*args, **more)

        r.engine.send_turn = crowded
        asking = asyncio.create_task(r.schedules.run_trigger(trigger.id))
        await until(lambda: _waits_until(r, r.clock.now + 5))
        r.clock.now += 6
        run = await asking
        assert run.interaction_id is not None


async def test_a_model_that_is_down_at_the_time_is_tried_again_for_a_while(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        r.catalog.refuse = ProviderUnavailable("nothing answers")
        by_hand = await r.schedules.run_trigger(trigger.id)
        assert (by_hand.status, by_hand.error and by_hand.error["code"]) == ("failed", "provider_unavailable")
        r.clock.now = on_the_five(r) + 1
        at = r.clock.now
        await until(lambda: _waits_until(r, at + 30))
        r.catalog.refuse = None
        r.clock.now = at + 31
        (done,) = await r.ran(trigger.id, 1, "completed")
        assert done.cause == "schedule"


async def test_a_model_that_stays_down_makes_a_failed_run(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger("@yearly")
        r.catalog.refuse = ProviderUnavailable("nothing answers")
        r.clock.now = (trigger.next_run_at or 0) + 1
        began = r.clock.now
        while r.clock.now < began + 600:
            at = r.clock.now
            await until(lambda at=at: _waits_until(r, at + 30))
            r.clock.now += 30
        (over,) = await r.ran(trigger.id, 1, "failed")
        assert over.error is not None
        assert over.error["code"] == "provider_unavailable"


async def _waits_until(r: Rig, at: float) -> bool:
    return (await r.store.schedules.due()).start_at == at
