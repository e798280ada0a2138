"""Cancelling: terminal and nothing left running, from whatever a run is doing. The times are printed, and bounded only
by what no machine is too slow for; `tests/bench/background.py` measures them."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.runs.kit.leaks import processes
from chaos.runs.kit.plans import Plans, asked_for, call_of
from chaos.runs.kit.world import Failed, Json, World, a_world, alive, until
from interactd.sandbox.launchers.bubblewrap.owner import uid_for
from support.provider import Call, Hang, Reply, Request

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="SIGKILL, fork and a sandbox"),
    pytest.mark.skipif(
        os.name == "posix" and os.getuid() != 0, reason="only root gives each sandbox a user of its own"
    ),
]
STUBBORN = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
for _ in range(5):
    if os.fork() == 0: os.setsid()
open('begun', 'w').close()
while True: time.sleep(0.01)
"""


async def cancelled(world: World, id: str) -> tuple[Json, float]:
    """Cancel it; returns how it ended, and after how many seconds it had ended and nothing of it ran."""
    began = time.monotonic()
    done = await world.call("cancel", interaction_id=id)
    assert done["interaction"]["status"] == "cancelled", done["interaction"]
    environment = done["interaction"].get("environment_id")
    if environment is not None:
        # Of that run: its environment's sandbox may stay, idle, for the next one.
        await until(lambda: not busy(uid_for(environment)))
    took = time.monotonic() - began
    print(f"cancelled after {took:.3f} s")
    again = await world.call("cancel", interaction_id=id)
    assert again["interaction"] == done["interaction"] | {"read_at": again["interaction"]["read_at"]}, "idempotent"
    assert took < 20
    return done, took


def busy(uid: int) -> list[str]:
    """Processes of a sandbox's user that are more than the sandbox itself waiting for work, or held still."""
    return [
        line
        for pid, line in processes(Path("/nowhere"), {uid}).items()
        if "supervisor" not in line and "bwrap" not in line and not held_still(pid)
    ]


def held_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


def hanging(request: Request) -> Hang:
    return Hang()


def stubborn(request: Request) -> Reply:
    if asked_for(request)[1]:
        return Reply("done")
    return Reply(calls=[Call("code_execution", {"language": "python", "code": STUBBORN}, id="c")])


async def test_a_run_whose_model_says_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", lambda _: Hang()) as world:
        id = await world.send(await world.session(), "run 0")
        (request,) = await world.provider.received(1, 60)
        await cancelled(world, id)
        async with asyncio.timeout(10):
            await request.disconnected.wait()


async def test_a_run_that_waits_behind_another(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", lambda _: Hang()) as world:
        session = await world.session()
        first, second = await world.send(session, "run 0"), await world.send(session, "run 1")
        await world.provider.received(1, 60)
        await cancelled(world, second)
        assert (await world.call("get_interaction", interaction_id=first))["interaction"]["status"] == "in_progress"
        await cancelled(world, first)
        assert len(world.provider.requests) == 1


async def test_code_that_forks_and_ignores_every_signal_it_can(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", stubborn) as world:
        id = await world.send(await world.session(), "run 0")

        def begun() -> bool:
            found = world.rows("SELECT environment_id FROM interactions WHERE environment_id IS NOT NULL")
            return bool(found) and len(busy(uid_for(found[0][0]))) > 10

        await until(begun)
        done, _ = await cancelled(world, id)
        result = next(step for step in done["steps"] if step["type"] == "code_execution_result")
        assert result["is_error"]


async def test_a_run_that_waits_for_an_answer(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", lambda _: Reply(calls=[Call("look", {}, id="l")])) as world:
        look = {"type": "function", "name": "look", "parameters": {"type": "object"}}
        id = await world.send(await world.session(tools=[look]), "run 0")
        assert (await world.ended(id))["interaction"]["status"] == "requires_action"
        await cancelled(world, id)
        with pytest.raises(Failed):
            await world.call("respond", interaction_id=id, results=[{"call_id": "l", "result": "late"}])


@pytest.mark.parametrize("model_hangs", [True, False])
async def test_a_run_whose_daemon_died_cancelled_at_another_one(tmp_path: Path, model_hangs: bool) -> None:
    plans = Plans(1, rounds=(2, 2), calls=(1, 1), kinds=("never",))
    answer: Callable[[Request], Reply | Hang] = hanging if model_hangs else plans.answer
    async with a_world(tmp_path / "home", answer, start=False) as world:
        world.seats = [world.another_seat("a"), world.another_seat("b")]
        world.seat = world.seats[0]
        await asyncio.gather(*(world.start(seat) for seat in world.seats))
        world.marks.gate = asyncio.Event()
        id = await world.send(await world.session(), "run 0")
        await until(lambda: world.provider.requests and (model_hangs or world.marks.seen))
        world.kill()
        await until(lambda: not alive(world.seats[0].pid))
        world.seat = world.seats[1]
        await cancelled(world, id)
        world.marks.gate.set()
        assert sum(world.marks.seen.values()) == (0 if model_hangs else 1)


async def test_a_run_at_another_daemon(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply | Hang:
        return Hang() if asked_for(request)[1] else Reply("first ", calls=[call_of("r0-0-0-list")])

    async with a_world(tmp_path / "home", answer, start=False) as world:
        world.seats = [world.another_seat("a"), world.another_seat("b")]
        world.seat = world.seats[0]
        await asyncio.gather(*(world.start(seat) for seat in world.seats))
        id = await world.send(await world.session(), "run 0")
        _, second = await world.provider.received(2, 60)
        world.seat = world.seats[1]
        done, _ = await cancelled(world, id)
        assert [step["type"] for step in done["steps"]][-1] == "function_result", "what it had made is kept"
        async with asyncio.timeout(10):
            await second.disconnected.wait()
