"""kill -9 at any moment: nothing half-made is ever listed, and the next start leaves no orphan."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.environments.kit import World, processes_over

pytestmark = pytest.mark.anyio

VICTIM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandbox.environments.kit import World

async def main():
    w = World(Path(sys.argv[2]))
    await w.store.open()
    await w.environments.start()
    base = await w.environments.create({})
    session = None
    print("ready", flush=True)
    n = 0
    while True:
        n += 1
        fork = await w.environments.create({
            "from_environment": base.id,
            "sources": [{"type": "inline", "target": f"{k}.txt", "content": "x" * 20000} for k in range(30)],
        })
        print("made", fork.id, flush=True)
        id = await w.interaction()
        async with w.environments.lease(fork.id, id) as space:
            await space.run_python("for n in range(40): open(f'new{n}', 'w').write(str(n) * 30000)")
            await space.capture(id)
        print("kept", id, flush=True)
        if n % 2:
            await w.environments.delete(fork.id)
            print("deleted", fork.id, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(8))
async def test_a_kill_at_any_moment_leaves_whole_environments_and_artifacts_only(tmp_path: Path, seed: int) -> None:
    home = tmp_path / "home"
    tests = Path(__file__).parents[2]
    victim = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", VICTIM, str(tests), str(home)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    said = ""
    try:
        # Each seed gets further: into the first making, the first capture, a delete, a second round.
        said = "".join(victim.stdout.readline() for _ in range(1 + seed % 5))
        time.sleep(random.Random(seed).uniform(0.0, 0.25))  # noqa: ASYNC251 - any moment will do
    finally:
        victim.send_signal(signal.SIGKILL)
        rest = said + victim.stdout.read()
        victim.wait(10)
        victim.stdout.close()
    told = [line.split() for line in rest.splitlines() if " " in line]
    assert rest.startswith("ready\n")
    assert len(told) >= seed % 5
    made = {word for what, word in told if what == "made"}
    deleted = {word for what, word in told if what == "deleted"}
    kept = [word for what, word in told if what == "kept"]

    w = World(home)
    await w.store.open()
    try:
        # Before anything was cleaned: what is listed is whole.
        listed = {one.id: one for one in await w.environments.list(limit=1000)}
        for id in [id for id, one in listed.items() if one.forked_from]:
            assert "29.txt" in {file["path"] for file in await w.environments.files(id)}
        assert not deleted & listed.keys()
        await w.environments.start()
        listed = {one.id: one for one in await w.environments.list(limit=1000)}
        folders = {path.name for path in (w.paths.data / "environments").iterdir()}
        assert folders == listed.keys()
        # Whatever was told to the caller is true still, but for one that was being deleted.
        assert len(made - deleted - listed.keys()) <= 1
        shas: set[str] = set()
        for number in range(1, 400):
            files = await w.environments.artifacts(f"int_{number:026d}")
            assert len(files) in (0, 40)
            shas |= {file.sha256 for file in files}
            assert all(file.path.stat().st_size == file.size_bytes for file in files)
        for id in kept:
            assert len(await w.environments.artifacts(id)) == 40
        assert {path.name for path in w.contents()} == shas, "no content without a row, none half-written"
        deadline = time.monotonic() + 5
        while processes_over(home) and time.monotonic() < deadline:
            time.sleep(0.02)  # noqa: ASYNC251
        assert processes_over(home) == []
    finally:
        await w.environments.aclose()
        await w.store.aclose()


async def test_a_folder_that_somebody_removed_is_no_environment_any_more(w: World) -> None:
    environment = await w.environments.create({})
    folders = w.paths.data / "environments"
    await w.environments.aclose()
    os.rename(folders / environment.id, w.paths.data / "elsewhere")  # noqa: PTH104
    (folders / "stray").mkdir()
    await w.restart()
    assert await w.environments.list() == []
    assert list(folders.iterdir()) == []
