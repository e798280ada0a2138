"""Two daemons on one store: nothing runs twice, whichever of them dies, stands still, or is asked."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.runs.kit.plans import Plans
from chaos.runs.kit.story import Story
from chaos.runs.kit.world import Seat, World, a_world, alive, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="SIGKILL, fork and a sandbox"),
]


@asynccontextmanager
async def two(root: Path, plans: Plans) -> AsyncGenerator[World]:
    async with a_world(root, plans.answer, start=False) as world:
        world.seats = [world.another_seat("a"), world.another_seat("b")]
        world.seat = world.seats[0]
        await asyncio.gather(*(world.start(seat) for seat in world.seats))
        yield world


def other(world: World, seat: Seat) -> Seat:
    return next(one for one in world.seats if one is not seat)


@pytest.mark.timeout(300)
async def test_neither_of_two_daemons_runs_what_the_other_runs(tmp_path: Path) -> None:
    plans = Plans(3)
    async with two(tmp_path / "home", plans) as world:
        story = Story(world, plans, random.Random(3), sessions=6)
        for seat in world.seats * 3:
            world.seat = seat
            await story.begin(2)
        await story.finish()
        story.judge()
        assert story.unknown == story.questions == 0
        assert all(count == 1 for count in world.marks.seen.values())
        assert all(len(asked) == len(set(asked)) for asked in plans.asked.values())
        owners = {runner for (runner,) in world.rows("SELECT runner FROM interactions")}
        assert len(owners) == 2, "both had work"


async def run_story(root: Path, kills: int, seed: int) -> None:
    """Kill one, let the other take over, start the first again; everybody talks to whoever lives."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    plans = Plans(seed)
    async with two(root, plans) as world:
        story = Story(world, plans, chance)
        while world.deaths < kills:
            world.seat = chance.choice(world.seats)
            await story.look()
            if (room := 4 - len(story.open)) > 0:
                await story.begin(chance.randint(1, room))
            await asyncio.sleep(chance.choice((0.3, 1.0, 2.0)) * chance.random())
            victim = chance.choice(world.seats)
            world.kill(pid=victim.pid)
            await until(lambda pid=victim.pid: not alive(pid))
            story.died(victim.pid)
            world.seat = other(world, victim)
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random())
            await world.start(victim)
        await story.finish()
        story.judge()
        print(f"{world.deaths} deaths, {len(story.runs)} runs, {story.questions} questions, {story.unknown} unknown")


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_one_of_two_daemons_is_killed_again_and_again(tmp_path: Path) -> None:
    await run_story(tmp_path / "home", 6, seed=4)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_forty_deaths_of_one_of_two_daemons(tmp_path: Path) -> None:
    await run_story(tmp_path / "home", 40, random.randrange(1 << 30))


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_daemon_that_stood_still_for_its_lease_does_nothing_more_when_it_wakes(tmp_path: Path) -> None:
    plans = Plans(6, rounds=(3, 3), calls=(1, 1), kinds=("never",))
    async with two(tmp_path / "home", plans) as world:
        still, heir = world.seats
        world.marks.gate = gate = asyncio.Event()
        story = Story(world, plans, random.Random(6), follow=False)
        (run,) = await story.begin(1)
        first, second, third = plans.ids(0)
        await until(lambda: world.marks.seen[first])
        world.kill(signal.SIGSTOP, still.pid)
        try:
            world.seat = heir
            # It is in doubt to the one that takes over, after the lease of the one that stands still.
            await until(lambda: world.marks.seen[second], within_s=120)
            epoch = world.rows("SELECT epoch FROM interactions WHERE id = ?", run.id)
        finally:
            os.kill(still.pid, signal.SIGCONT)
        # Awake again, with the answer of its call at hand, while the run goes on elsewhere.
        gate.set()
        await story.finish()
        await until(lambda: "was fenced" in still.paths.log_file.read_text())
        assert world.marks.by[first] == [still.pid]
        assert world.marks.by[second] == world.marks.by[third] == [heir.pid]
        assert plans.asked[0] == [0, 1, 2, 3]
        assert world.rows("SELECT epoch FROM interactions WHERE id = ?", run.id) == epoch
        run.in_flight[first] += 1
        story.judge()
        assert story.unknown == 1
