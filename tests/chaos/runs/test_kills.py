"""SIGKILL at random instants of background runs of several steps: every effect once, or a question, or an admission."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from chaos.runs.kit.plans import Plans
from chaos.runs.kit.story import Story
from chaos.runs.kit.world import a_world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="SIGKILL, fork and a sandbox"),
]


async def run_story(root: Path, kills: int, seed: int, *, at_once: int = 4, follow: bool = True) -> Story:
    print(f"seed {seed}")
    chance = random.Random(seed)
    plans = Plans(seed)
    async with a_world(root, plans.answer) as world:
        story = Story(world, plans, chance, follow=follow)
        # How long a run takes here and now, so that a busy machine is not killed before it has begun.
        began = time.monotonic()
        await story.begin(1)
        await story.all_end()
        unit = min(time.monotonic() - began, 8.0)
        while world.deaths < kills:
            await story.look()
            if (room := at_once - len(story.open)) > 0:
                await story.begin(chance.randint(1, room))
            # Most die within a step or two; some live long enough to end a run.
            await story.kill(unit * chance.choice((0.2, 0.5, 0.8, 1.2, 2.0)) * chance.random())
        await story.look()
        await story.finish()
        story.judge()
        again = sum(len(asked) - len(set(asked)) for asked in plans.asked.values())
        crashed = sum(run.status == "failed" for run in story.runs)
        print(f"{world.deaths} deaths, {len(story.runs)} runs, {crashed} given up, {again} model calls made again,")
        print(f"{sum(world.marks.seen.values())} marks, {story.questions} questions, {story.unknown} unknown outcomes")
        return story


@pytest.mark.timeout(300)
async def test_twelve_kills(tmp_path: Path) -> None:
    await run_story(tmp_path / "home", 12, seed=5)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_two_hundred_kills(tmp_path: Path) -> None:
    story = await run_story(tmp_path / "home", 200, random.randrange(1 << 30))
    assert story.questions >= 3
    assert story.unknown >= 3
