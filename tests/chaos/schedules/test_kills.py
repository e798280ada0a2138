"""SIGKILL at random instants of daemons with triggers and webhooks: every time decided once, every event delivered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from durable.kit import Got, Receiver, receiver, status
from interactd.paths import find
from support.provider import FakeProvider

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork")]

PATIENCE_S = 60.0
Json = dict[str, Any]


@dataclass
class World:
    root: Path
    nursery: subprocess.Popen[str]
    begin: float
    provider: FakeProvider
    to: Receiver
    alive: dict[str, int] = field(default_factory=dict[str, int])
    born: int = 0
    deaths: int = 0

    async def start(self) -> str:
        """Fork a daemon; returns its socket once it answers."""
        self.born += 1
        path = str(self.root / f"d{self.born}.sock")
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(path + "\n")
        self.nursery.stdin.flush()
        pid = int(await asyncio.to_thread(self.nursery.stdout.readline))
        self.alive[path] = pid
        end = time.monotonic() + PATIENCE_S
        while not Path(path).exists():
            assert time.monotonic() < end, "the daemon does not come up"
            await asyncio.sleep(0.01)
        return path

    def kill(self, path: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.alive.pop(path), signal.SIGKILL)
        Path(path).unlink(missing_ok=True)
        self.deaths += 1

    async def call(self, path: str, method: str, **arguments: Any) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
            try:
                writer.write(json.dumps({"call": method, **arguments}).encode() + b"\n")
                answer = json.loads(await reader.readline())
            finally:
                writer.close()
        assert "error" not in answer, answer
        return answer["result"]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(find({"INTERACTD_HOME": str(self.root / "home")}).database)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


@asynccontextmanager
async def a_world(root: Path) -> AsyncGenerator[World]:
    home = root / "home"
    begin = time.time()
    async with FakeProvider(default="Done.") as provider, receiver() as to:
        env = {**os.environ, "OPENAI_API_KEY": "sk-chaos", "OPENAI_BASE_URL": provider.base_url}
        env["PYTHONPATH"] = os.pathsep.join(sys.path)
        words = [sys.executable, str(Path(__file__).with_name("daemons.py")), str(home), str(begin)]
        nursery = await asyncio.to_thread(
            subprocess.Popen, words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield World(root, nursery, begin, provider, to)
        finally:
            assert nursery.stdin is not None
            assert nursery.stdout is not None
            nursery.stdin.close()
            nursery.stdout.close()
            await asyncio.to_thread(nursery.wait, PATIENCE_S)


async def story(root: Path, kills: int, seed: int, *, two: bool) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with a_world(root) as world:

        async def moody(_: Got) -> bytes:
            # Some answers come late, some are refusals, so that daemons die in the middle of deliveries too.
            await asyncio.sleep(chance.random() * 0.05)
            return status(200 if chance.random() < 0.8 else 500)

        world.to.answer = moody
        first = await world.start()
        await world.call(first, "create_webhook", uri=world.to.url(), allow_local=True)
        triggers = [
            (
                await world.call(
                    first,
                    "create_trigger",
                    schedule=schedule,
                    time_zone="UTC",
                    work={"input": "go", "model": "openai/fake-model-1", **work},
                    max_consecutive_failures=0,
                    execution_timeout_seconds=86_400,
                    **more,
                )
            )["id"]
            for schedule, work, more in (
                ("* * * * *", {}, {}),
                ("*/2 * * * *", {"session": "same"}, {"overlap": "queue"}),
                ("every 3m", {}, {"missed": "once"}),
            )
        ]
        while world.deaths < kills:
            while len(world.alive) < (2 if two else 1):
                await world.start()
            await asyncio.sleep(chance.choice((0.05, 0.3, 0.8)) * chance.random())
            world.kill(chance.choice(list(world.alive)))
        last = await world.start()
        # On a fast machine all the deaths may be over before the rarest trigger was due.
        end = time.monotonic() + PATIENCE_S
        while {row[0] for row in world.rows("SELECT DISTINCT trigger_id FROM trigger_executions")} != set(triggers):
            assert time.monotonic() < end, "a trigger never came to its time"
            await asyncio.sleep(0.05)
        for id in triggers:
            await world.call(last, "update_trigger", trigger_id=id, changes={"status": "paused"})

        async def quiet() -> bool:
            found = await world.call(last, "status")
            open_ones = await world.call(last, "list_executions", status="in_progress")
            return not found["undelivered"] and not open_ones["items"]

        end = time.monotonic() + PATIENCE_S
        while not await quiet():
            assert time.monotonic() < end, await world.call(last, "status")
            await asyncio.sleep(0.05)
        judge(world, triggers)


def judge(world: World, triggers: list[str]) -> None:
    executions = world.rows(
        "SELECT id, trigger_id, slot, status, interaction_id, scheduled_at, reason, cause FROM trigger_executions"
    )
    assert {row[1] for row in executions} == set(triggers)
    assert len({(row[1], row[2]) for row in executions}) == len(executions)
    started = [row for row in executions if row[4] is not None]
    # Every turn there is was started by one execution, and every execution that ran started one.
    turns = {row[0]: row[1] for row in world.rows("SELECT id, status FROM interactions")}
    assert sorted(turns) == sorted(row[4] for row in started)
    assert all(row[3] == "skipped" for row in executions if row[4] is None), executions
    # One that saw three daemons die is given up, and says so on both sides.
    assert {row[4]: row[3] for row in started} == turns
    assert set(turns.values()) <= {"completed", "failed"}
    assert all("crashed" in row[0] for row in world.rows("SELECT error FROM interactions WHERE status = 'failed'"))
    # Nothing was lost in between: every minute of the first trigger was run, or is within what was skipped.
    covered: set[float] = set()
    for row in executions:
        if row[1] != triggers[0]:
            continue
        covered.add(row[5])
    skipped = [
        json.loads(row[0])
        for row in world.rows(
            f"SELECT details FROM trigger_executions WHERE trigger_id = '{triggers[0]}' AND reason = 'missed'"
        )
    ]
    for span in skipped:
        covered |= {span["from"] + 60 * n for n in range(int((span["to"] - span["from"]) // 60) + 1)}
    assert covered == {min(covered) + 60 * n for n in range(len(covered))}
    # Every end was told, under one id for each, and nothing else was.
    told: dict[str, set[str]] = {}
    for got in world.to.got:
        if got.json["type"] == "trigger.failed":
            assert got.json["data"]["error_code"] == "crashed"
            continue
        told.setdefault(got.json["data"]["id"], set()).add(got.headers["webhook-id"])
    assert set(told) == set(turns)
    assert all(len(ids) == 1 for ids in told.values())
    again = sum(got.json["type"] != "trigger.failed" for got in world.to.got) - len(told)
    causes = [row[7] for row in started]
    print(
        f"{world.deaths} deaths, {len(started)} runs ({causes.count('catch_up')} made up for), "
        f"{len(executions) - len(started)} skipped, {len(told)} events told, {again} of them again"
    )


@pytest.mark.parametrize("two", [False, True])
async def test_a_dozen_kills(tmp_path: Path, two: bool) -> None:
    await story(tmp_path, 12, seed=3, two=two)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("two", [False, True])
async def test_a_hundred_kills(tmp_path: Path, two: bool) -> None:
    await story(tmp_path, 100, random.randrange(1 << 30), two=two)
