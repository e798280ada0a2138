from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from interactd.sandbox.launchers.spawner import Spawner

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")]

MARK = "31415.926"
LEAVES_A_CHILD = {"argv": ["/bin/sh", "-c", f"sleep {MARK} & exec sleep 1000"], "env": {"PATH": "/bin"}}


def running() -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes() == f"sleep\0{MARK}\0".encode():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def soon(something: bool) -> bool:
    """Whether it runs, or not, within five seconds."""
    for _ in range(500):
        if bool(running()) == something:
            return True
        await asyncio.sleep(0.01)
    return False


async def started(spawner: Spawner) -> tuple[asyncio.Event, object]:
    """Start a program with a child of its own; returns what is set at its end, and what ends it."""
    error, error_write = os.pipe()
    ended = asyncio.Event()
    _, kill = await spawner.spawn({**LEAVES_A_CHILD, "fds": [2]}, [error_write, error_write], lambda _: ended.set())
    os.close(error)
    os.close(error_write)
    assert await soon(True)
    return ended, kill


@pytest.mark.skipif(bool(running()), reason="somebody else runs this test")
async def test_what_a_killed_program_leaves_behind_is_ended() -> None:
    spawner = Spawner()
    try:
        ended, kill = await started(spawner)
        assert callable(kill)
        kill()
        async with asyncio.timeout(10):
            await ended.wait()
        assert await soon(False)
    finally:
        await spawner.aclose()


@pytest.mark.skipif(bool(running()), reason="somebody else runs this test")
async def test_nothing_of_any_program_is_left_when_the_spawner_ends() -> None:
    spawner = Spawner()
    await started(spawner)
    await spawner.aclose()
    assert await soon(False)
