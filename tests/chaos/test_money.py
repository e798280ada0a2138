"""SIGKILL between reserving and settling: what may have been spent is neither forgotten nor counted twice."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest

from chaos.test_turns import Daemons, Gone, daemons
from interactd.nouns import NANO
from support.provider import FakeProvider, Reply, Request

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork")]

DAY_USD = 4
"""A call that nobody knows anything of may have cost 13 cents."""
CONFIG = f"""
[prices.openai]
input = 1
output = 1

[budget]
day_usd = {DAY_USD}
"""
REAL = 15 * NANO // 1_000_000
"""What every call that is answered costs: ten tokens in, five out."""


@pytest.mark.parametrize("seed", range(2))
async def test_a_kill_at_any_instant_loses_no_money_and_counts_none_twice(seed: int) -> None:
    chance = random.Random(seed)
    home = Path(tempfile.mkdtemp(prefix="im"))
    try:
        (home / "config").mkdir()
        (home / "config" / "config.toml").write_text(CONFIG)

        async def slowly(request: Request) -> Reply:
            # So that kills hit calls that are under way, too.
            await asyncio.sleep(chance.random() * 0.03)
            return Reply("Yes.")

        async with FakeProvider(default=slowly) as provider, daemons(home, provider) as host:
            await host.start()
            sent: list[str] = []
            for number in range(20):
                work = asyncio.ensure_future(_turns(host, sent, number))
                await asyncio.wait([work], timeout=chance.random() * 0.1)
                host.kill()
                await work
                await host.start()
                # The same again, and a kill while their calls are made.
                await _turns(host, sent, number)
                await asyncio.sleep(chance.random() * 0.06)
                host.kill()
                await host.start()
                _check_day(home)
            ended = [await host.call("wait", interaction_id=id, timeout_s=20) for id in sent]
            assert {one["status"] for one in ended} <= {"completed", "budget_exceeded", "failed"}
            _judge(home, len(provider.requests), sum(one["status"] == "completed" for one in ended))
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _turns(host: Daemons, sent: list[str], number: int) -> None:
    try:
        session = await host.call("create_session", model="openai/fake-model-1", idempotency_key=f"s{number}")
        for turn in range(3):
            made = await host.call(
                "send_turn",
                session_id=session["id"],
                content=f"{number}.{turn}",
                if_busy="queue",
                idempotency_key=f"t{number}.{turn}",
            )
            if made["id"] not in sent:
                sent.append(made["id"])
    except Gone:
        return


def _rows(home: Path, query: str) -> list[Any]:
    (file,) = home.rglob("interactd.db")
    with sqlite3.connect(file) as db:
        return db.execute(query).fetchall()


def _check_day(home: Path) -> None:
    days = _rows(home, "SELECT nano, held_nano FROM spent WHERE scope = 'day'")
    # Midnight may come in between.
    for nano, held in days:
        assert nano + held <= DAY_USD * NANO


def _judge(home: Path, requests: int, completed: int) -> None:
    assert not _rows(home, "SELECT id FROM ledger WHERE state = 'reserved'")
    calls = _rows(home, "SELECT state, cost_nano, reserved_nano FROM ledger WHERE kind = 'call'")
    settled = [cost for state, cost, _ in calls if state == "settled"]
    unknown = [(cost, reserved) for state, cost, reserved in calls if state == "unknown"]
    assert completed > 5
    assert unknown, "the kills missed the calls: they prove nothing"
    assert len(settled) == completed, "one answer, one bill"
    assert all(cost == REAL for cost in settled)
    assert all(cost == reserved for cost, reserved in unknown)
    assert len(settled) + len(unknown) >= requests, "every request that reached the provider is in the books"
    total = sum(settled) + sum(cost for cost, _ in unknown)
    assert total >= REAL * requests
    assert sum(row[0] for row in _rows(home, "SELECT nano FROM spent WHERE scope = 'day'")) == total
    assert sum(row[0] for row in _rows(home, "SELECT nano FROM spent WHERE scope = 'interaction'")) == total
    assert not _rows(home, "SELECT * FROM spent WHERE held_nano <> 0 OR held_tokens <> 0 OR held_steps <> 0")
