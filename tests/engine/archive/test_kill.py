"""SIGKILL in the middle of an import: afterwards there is nothing of it or everything."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.archive.kit import members
from engine.archive.world import world
from engine.kit import until
from interactd.errors import InvalidArgument

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
IMPORTER = Path(__file__).with_name("importer.py")
TURNS = 450


async def run(home: Path, archive: Path, number: int, when: str) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(IMPORTER),
        str(home),
        str(archive),
        str(number),
        when,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    out, _ = await asyncio.wait_for(child.communicate(), 120)
    return child.returncode, out.decode().strip()


async def test_a_killed_import_leaves_nothing_or_everything(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        session = await it.engine.create_session(model="scripted/m1")
        other = await it.engine.create_session(model="scripted/m1")
        it.model.default = "marker " + "word " * 500
        for _ in range(TURNS):
            await it.turn(session.id)
        await it.turn(other.id)
        first = await it.engine.export_data(path=str(tmp_path / "first.zip"))
        assert first is not None
    code, out = await run(tmp_path / "whole", first.path, -1, "after")
    writes = int(out)
    assert code == 0
    assert writes > 6
    last = writes - 1
    for number, when in ((0, "before"), (0, "after"), (2, "after"), (last - 1, "after"), (last, "before")):
        home = tmp_path / f"b{number}{when}"
        assert (await run(home, first.path, number, when))[0] == -signal.SIGKILL
        async with world(home) as it:

            async def undone() -> bool:
                return await it.store.get_setting("archive.import") is None

            await until(undone)
            stats = await it.store.stats()
            assert (stats["sessions"], stats["interactions"], stats["steps"]) == (0, 0, 0)
            assert (await it.engine.search("marker")).items == []
            assert list(it.paths.data.glob("imports/*")) == []
            done = await it.engine.import_data(str(first.path))
            assert done is not None
            assert len(done.sessions) == 2
            assert len((await it.engine.search("marker", limit=100)).items) == 100
        sound(home)
    home = tmp_path / "end"
    assert (await run(home, first.path, last, "after"))[0] == -signal.SIGKILL
    async with world(home) as it:
        again = await it.engine.export_data(path=str(tmp_path / "again.zip"))
        assert again is not None
        assert members(again.path) == members(first.path)
    sound(home)


def sound(home: Path) -> None:
    db = sqlite3.connect(home / "data" / "interactd.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def test_an_import_that_fails_at_its_end_leaves_nothing(tmp_path: Path) -> None:
    """The archive changes between its being checked and its being written."""
    async with world(tmp_path / "a") as it:
        session = await it.engine.create_session(model="scripted/m1")
        # More than a reader holds in memory, and nothing that packs well.
        await it.turn(session.id, os.urandom(200_000).hex())
        first = await it.engine.export_data(path=str(tmp_path / "first.zip"))
        assert first is not None
    async with world(tmp_path / "b") as it:
        begin = it.store.archive.begin

        async def spoil(journal: object) -> None:
            await begin(journal)  # type: ignore[arg-type]
            data = first.path.read_bytes()
            at = data.index(b"steps.jsonl") + 100_000
            first.path.write_bytes(data[:at] + b"\0\0\0\0" + data[at + 4 :])

        it.store.archive.begin = spoil  # type: ignore[method-assign]
        with pytest.raises(InvalidArgument):
            await it.engine.import_data(str(first.path))
        stats = await it.store.stats()
        assert (stats["sessions"], stats["interactions"], stats["steps"]) == (0, 0, 0)
        assert await it.store.get_setting("archive.import") is None
