"""Many deliveries, and more than one daemon to make them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from durable.kit import Got, receiver, rig, status, until

pytestmark = pytest.mark.anyio


async def test_a_thousand_deliveries_arrive_each_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        session = await r.engine.create_session(model="m1")
        async with receiver() as to:
            await r.schedules.create_webhook(uri=to.url(), allow_local=True)
            down = to.answer
            to.answer = status(503)
            sent = [r.engine.send_turn(session.id, "x", if_busy="queue") for _ in range(100)]
            for _ in range(9):
                more = await r.engine.create_session(model="m1")
                sent += [r.engine.send_turn(more.id, "x", if_busy="queue") for _ in range(100)]
            results = await asyncio.gather(*sent)
            ids = {one.interaction.id for one in results}

            async def all_there() -> bool:
                return (await r.engine.status())["schedules"]["undelivered"] == 1000

            await until(all_there, within_s=60)
            to.answer = down
            r.clock.now += 30
            end = time.monotonic() + 90
            while (left := (await r.engine.status())["schedules"]["undelivered"]) and time.monotonic() < end:
                r.clock.now += 30
                await asyncio.sleep(0.02)
            assert left == 0
            arrived = [got for got in to.got if True]
            first: dict[str, Got] = {}
            for got in arrived:
                first.setdefault(got.json["data"]["id"], got)
            assert set(first) == ids
            assert len({got.headers["webhook-id"] for got in arrived}) == 1000


async def test_two_daemons_do_not_deliver_one_event_twice(tmp_path: Path) -> None:
    async with rig(tmp_path) as a, rig(tmp_path, clock=a.clock, model=a.model) as b, receiver() as to:
        await a.schedules.create_webhook(uri=to.url(), allow_local=True)

        async def slow(_: Got) -> bytes:
            await asyncio.sleep(0.05)
            return status(200)

        to.answer = slow
        await asyncio.gather(*(x.turn() for x in (a, b) for _ in range(10)))
        await a.delivered(20)
        assert len(to.got) == 20
        assert len({got.headers["webhook-id"] for got in to.got}) == 20
