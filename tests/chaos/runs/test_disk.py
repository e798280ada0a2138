"""A disk that is full in the middle of runs: nothing made is lost or made again, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.runs.kit.plans import Plans, asked_for, call_of
from chaos.runs.kit.world import PATIENCE_S, Failed, Json, World, a_world, alive, until
from support.provider import Reply, Request

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("bwrap") is None, reason="needs tmpfs"),
]
BIG = "".join(f"paid for {n}, " for n in range(40_000))


@asynccontextmanager
async def a_small_disk(folder: Path, size: str = "400m") -> AsyncGenerator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() != 0 or (await asyncio.to_thread(subprocess.run, mount, capture_output=True)).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(folder)], check=True)


class Ballast:
    """What fills the disk, to the last byte; also the room that interactd keeps for itself."""

    def __init__(self, world: World) -> None:
        self._file = world.home.root / "ballast"
        self._spare = world.seat.paths.data / "spare"

    def fill(self) -> None:
        self._fill()
        self._spare.unlink(missing_ok=True)
        self._fill()

    def _fill(self) -> None:
        for step in (1 << 20, 512):
            with self._file.open("ab", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * step)
                except OSError:
                    continue

    def free(self) -> None:
        self._file.unlink()


async def refused(world: World, id: str) -> str:
    """What a client is told that waits for a run which cannot be written down."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await world.call("wait", interaction_id=id, timeout_s=0.2)
    except Failed as error:
        return str(error)


async def test_an_answer_that_meets_a_full_disk_is_held_and_its_calls_are_made_when_there_is_room(
    tmp_path: Path,
) -> None:
    asked: list[int] = []
    gate = asyncio.Event()

    def answer(request: Request) -> Reply:
        _, at = asked_for(request)
        asked.append(at)
        if at == 0:
            return Reply(text=["thinking ", gate, BIG], calls=[call_of("r0-0-0-never")])
        return Reply("done")

    async with a_small_disk(tmp_path / "home") as root, a_world(root, answer) as world:
        ballast = Ballast(world)
        id = await world.send(await world.session(), "run 0")
        await until(lambda: asked)
        ballast.fill()
        gate.set()
        assert f"storage_full: what {id} produced cannot be written yet" in await refused(world, id)
        assert world.marks.seen == {}, "journalled before it acts"
        ballast.free()
        done = await world.ended(id)
        assert done["interaction"]["status"] == "completed"
        assert asked == [0, 1]
        assert world.marks.seen == {"r0-0-0-never": 1}
        assert next(s for s in done["steps"] if s["type"] == "model_output")["content"][0]["text"].endswith(BIG)


async def test_a_result_that_meets_a_full_disk_is_not_lost(tmp_path: Path) -> None:
    plans = Plans(1, rounds=(2, 2), calls=(1, 1), kinds=("never",))
    async with a_small_disk(tmp_path / "home") as root, a_world(root, plans.answer) as world:
        ballast = Ballast(world)
        world.marks.gate = gate = asyncio.Event()
        world.marks.more = "x" * 11_000
        id = await world.send(await world.session(), "run 0")
        await until(lambda: world.marks.seen["r0-0-0-never"])
        ballast.fill()
        gate.set()
        world.marks.gate = None
        # Whether there is room for it in the log that the store has already is its own business.
        await asyncio.wait([waiting := asyncio.ensure_future(world.call("wait", interaction_id=id, timeout_s=2))])
        waiting.exception()
        ballast.free()
        done = await world.ended(id)
        assert done["interaction"]["status"] == "completed"
        results = [s for s in done["steps"] if s["type"] == "function_result"]
        assert [bool(result.get("is_error")) for result in results] == [False, False]
        assert world.marks.seen == {"r0-0-0-never": 1, "r0-1-0-never": 1}
        assert plans.asked[0] == [0, 1, 2]


async def test_the_files_of_a_finished_run_outlive_a_full_disk_and_a_killed_daemon(tmp_path: Path) -> None:
    plans = Plans(2, rounds=(1, 1), calls=(1, 1), kinds=("write",))
    async with a_small_disk(tmp_path / "home") as root, a_world(root, plans.answer) as world:
        ballast = Ballast(world)
        done = await world.ended(await world.send(await world.session(), "run 0"))
        assert done["interaction"]["status"] == "completed"
        ballast.fill()
        world.kill()
        await until(lambda: not alive(world.pid))
        ballast.free()
        await world.start()
        environment = done["interaction"]["environment_id"]
        files = await world.call("environment_files", environment_id=environment)
        assert [one["path"].rpartition("/")[2] for one in files if "r0-" in one["path"]] == ["r0-0-0-write.txt"]


@pytest.mark.long
async def test_a_disk_that_is_full_again_and_again_loses_no_run_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    plans = Plans(seed, rounds=(2, 4), kinds=("never", "safe", "ask", "list"))
    async with a_small_disk(tmp_path / "home") as root, a_world(root, plans.answer) as world:
        ballast = Ballast(world)
        sessions = [await world.session() for _ in range(3)]
        for session in sessions:
            # Their environments are made while there is room: a run without one cannot begin.
            await world.ended(await world.send(session, f"run {sessions.index(session)}"))
        runs = {n: "" for n in range(10, 40)}
        refusals = 0
        for number in runs:
            full = chance.random() < 0.5
            if full:
                ballast.fill()
            try:
                runs[number] = await world.send(chance.choice(sessions), f"run {number}", key=f"k{number}")
            except Failed as error:
                if error.code != "storage_full":
                    raise
                refusals += 1
            await asyncio.sleep(chance.random() * 0.5)
            if full:
                ballast.free()
        for number, id in runs.items():
            runs[number] = id or await world.send(sessions[0], f"run {number}", key=f"k{number}")
        for number, id in runs.items():
            done = await world.ended(id, within_s=200)
            why: Json = done["interaction"].get("error") or {}
            assert done["interaction"]["status"] == "completed", why
            made = [s["id"] for s in done["steps"] if s["type"] == "function_call"]
            assert made == plans.ids(number)
            assert plans.asked[number] == list(range(len(plans.of(number)) + 1)), "no model call is made again"
        assert all(count == 1 for count in world.marks.seen.values()), "no effect is made again"
        print(f"{refusals} turns refused at the door")
