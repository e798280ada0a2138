"""Playing a scene once for each instant: record where it can die, choose, die there, judge, and say how it went."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from chaos.instants.points import FULL, passed
from chaos.instants.scenes import SCENES
from chaos.instants.stage import performance
from chaos.runs.kit.plans import Plans
from chaos.runs.kit.world import World, a_world

PRICES: Final = "[prices.fake]\ninput = 1\noutput = 1\n"
WITHIN_S: Final = 240.0
DULL: Final = ("base._fill", "_checkpoint")
"""Hundreds of links that are made once for all; and what SQLite does by itself."""
CHORES: Final = ("index_piece", "resume", "undo_piece", "clear_piece", "prune", "trim", "sweep")
"""Come when they like: dying at the first of each is enough."""
NEEDS_ROOM: Final = ("commit", "vacuum", "open", "mkdir", "rename", "link", "fsync")


@asynccontextmanager
async def a_theatre(root: Path, *, two: bool = False) -> AsyncGenerator[tuple[World, Plans]]:
    """A world whose daemons are started by those who play in it; with `two`, another one is always there."""
    plans = Plans(7, rounds=(2, 2), calls=(1, 2), kinds=("write", "code", "never", "safe"))
    async with a_world(root, plans.answer, start=False, more=PRICES) as world:
        if two:
            world.seats = [world.another_seat("a"), world.another_seat("b")]
        yield world, plans


async def record(root: Path, scene: str) -> list[str]:
    """The points of a scene in a world that was there before."""
    async with a_theatre(root / "home") as (world, plans):
        for number in (1, 2):
            async with performance(world, plans, number) as stage:
                await SCENES[scene](stage)
        return passed(stage.trace)


def choose(points: Sequence[str], *, among: Iterable[str] = ("",), full: bool = False) -> list[str]:
    """Deaths at the first, a middle and the last time that each point is reached; where a file is about to be written,
    also one that leaves it empty. With `full` the disk fills up instead, where room is needed."""
    chosen: list[str] = []
    for point, count in Counter(points).items():
        if any(dull in point for dull in DULL) or not any(one in point for one in among):
            continue
        often = (1,) if any(chore in point for chore in CHORES) else sorted({1, (count + 1) // 2, count})
        if full:
            needs = point.partition(":")[0] in NEEDS_ROOM
            chosen += [f"{FULL}{point}#{number}" for number in often[:2]] if needs else []
            continue
        chosen += [f"{point}#{number}" for number in often]
        chosen += [f"{point}#1!"] if point.startswith("open:") else []
    return chosen


async def play(root: Path, deaths: Iterable[tuple[str, str]], *, two: bool = False) -> tuple[int, int]:
    """Play a scene for each (scene, death); several deaths of one performance are separated by blanks.

    Returns:
        In how many it came to that, and how many points were not reached.
    """
    reached = missed = 0
    began = time.monotonic()
    async with a_theatre(root / "home", two=two) as (world, plans):
        for number, (scene, death) in enumerate(deaths, 1):
            try:
                async with asyncio.timeout(WITHIN_S), performance(world, plans, number, *death.split()) as stage:
                    await SCENES[scene](stage)
            except Exception as error:
                error.add_note(f"{scene}, performance {number}: {death}")
                raise
            if stage.died or stage.full:
                reached += 1
            else:
                missed += 1
    print(f"{reached} of {reached + missed} instants in {time.monotonic() - began:.0f} s")
    return reached, missed
