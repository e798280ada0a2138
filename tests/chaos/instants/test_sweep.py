"""A daemon dies at every single commit and change of a file of what users do: nothing acknowledged is lost, nothing is
made or paid twice, nothing half-made is left. Random kills seldom hit the gap between two commits; these do."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from chaos.instants.points import passed
from chaos.instants.scenes import SCENES
from chaos.instants.stage import performance
from chaos.instants.sweep import a_theatre, choose, play, record

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix" or shutil.which("bwrap") is None, reason="SIGKILL, fork and a sandbox"),
]
FEW = (
    # The first one, because it looks for what is left in the whole store.
    ("archive", "link:writing.new_file#1"),
    ("run", "commit-done:SqliteLedger.reserve#1"),
    ("questions", "commit-done:SqliteStore.answer#1"),
    ("schedules", "rename:store._write#1"),
)


@pytest.mark.timeout(300)
async def test_a_death_in_some_gaps_that_matter(tmp_path: Path) -> None:
    assert await play(tmp_path, FEW) == (len(FEW), 0), "they are where they were"


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_some_deaths_of_each_scene(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    reached = missed = 0
    # Each in a world of its own: some look for what is left in the whole store.
    for scene in SCENES:
        deaths = choose(await record(tmp_path / f"record-{scene}", scene))
        some = [(scene, death) for death in chance.sample(deaths, 4)]
        came, not_there = await play(tmp_path / f"play-{scene}", some)
        reached, missed = reached + came, missed + not_there
    assert reached > missed


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", SCENES)
async def test_a_death_at_every_instant(tmp_path: Path, scene: str) -> None:
    deaths = choose(await record(tmp_path / "record", scene))
    reached, missed = await play(tmp_path / "play", [(scene, death) for death in deaths])
    # The last times of what is done more or less often are not always there.
    assert reached > missed


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", SCENES)
async def test_a_disk_that_fills_up_at_every_instant(tmp_path: Path, scene: str) -> None:
    if scene == "handover":
        pytest.skip("a daemon that leaves on a full disk is another story")
    points = await record(tmp_path / "record", scene)
    # A daemon that finds no room to begin with does not begin, and says so.
    begun = points.index("commit:SqliteStore.create_session")
    starting = set(points[:begun])
    deaths = choose([point for point in points[begun:] if point not in starting], full=True)
    await play(tmp_path / "play", [(scene, death) for death in deaths])


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", ["run", "questions", "archive"])
async def test_a_death_at_every_instant_while_another_daemon_works_on_the_same_data(tmp_path: Path, scene: str) -> None:
    deaths = choose(await record(tmp_path / "record", scene), among=("commit", "rename", "remove", "link"))
    reached, missed = await play(tmp_path / "play", [(scene, death) for death in deaths], two=True)
    assert reached > missed


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", ["commit-done:SqliteStore.append.append#2", "commit-done:SqliteStore.accept#1"])
async def test_a_death_at_every_instant_of_what_the_next_daemon_does_about_it(tmp_path: Path, first: str) -> None:
    async with a_theatre(tmp_path / "record") as (world, plans):
        async with performance(world, plans, 1) as stage:
            await SCENES["run"](stage)
        async with performance(world, plans, 2, first) as stage:
            await SCENES["run"](stage)
        points = passed(stage.trace)
    after = points[points.index(f"{first.partition('#')[0]} DIED") + 1 :]
    seconds = [("run", f"{first} {second}") for second in choose(after) if second.endswith("#1")]
    reached, missed = await play(tmp_path / "play", seconds)
    assert reached > missed


@pytest.mark.sweep
@pytest.mark.timeout(7200)
async def test_a_death_at_every_instant_of_the_very_first_start_and_then_of_the_second(tmp_path: Path) -> None:
    async def begin(number: int, *deaths: str) -> list[str]:
        async with a_theatre(tmp_path / f"home{number}") as (world, plans):
            async with performance(world, plans, number, *deaths) as stage:
                run = stage.plan(("write",))
                stage.judge_run(await stage.ended(await stage.send(await stage.session("first"), run)), run)
            return passed(stage.trace)

    for number, death in enumerate(one for one in choose(await begin(0)) if one.rstrip("!").endswith("#1")):
        died = [line for line in await begin(number + 1, death, death.rstrip("!")) if line.endswith(" DIED")]
        assert died or "leave" in death or "drop" in death or "remove" in death, f"{death} was not reached"
