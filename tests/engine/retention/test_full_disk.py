"""A disk that is really full: new work is refused, nothing is lost, what runs is finished, and deleting works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from engine.agents.kit import runs
from engine.archive.world import World, world
from interactd.errors import InteractdError, StorageError, StorageFull
from interactd.store.sqlite import SqliteStore
from interactd.store.sqlite.spare import BYTES

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux"
    ),
]


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    """A small file system of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    if request.param == "tmpfs":
        words = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(where)]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"no ext4: {made.stderr.decode(errors='replace').strip()}")
        words = ["mount", "-o", "loop", str(image), str(where)]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte on it."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), b"x" * size)
    return ballast


async def refused(work: object) -> StorageFull:
    with pytest.raises(StorageFull) as caught:
        await work  # type: ignore[misc]
    return caught.value


async def test_what_runs_is_finished_what_is_there_is_read_and_deleted_and_new_work_is_refused(
    disk: Path, tmp_path: Path
) -> None:
    async with world(disk / "home") as it:
        it.agent("helper", "You help.")
        old = await it.engine.create_session(model="scripted/m1")
        await it.turn(old.id, "word " * 100_000)
        session = await it.engine.create_session(model="scripted/m1")
        await it.turn(session.id, "first")
        it.model.gate = asyncio.Event()
        before = len(it.model.requests)
        running = await it.engine.send_turn(session.id, "second")
        await it.model.asked(before + 1)
        assert it.store.spare.held
        wal = it.store.file.with_name("interactd.db-wal")
        async with asyncio.timeout(30):
            # Until the log is empty: it would give room back afterwards.
            while wal.stat().st_size:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        ballast = fill(disk)
        error = await refused(it.engine.create_session(model="scripted/m1", system_instruction="x" * 500_000))
        assert error.code == "storage_full"
        assert "free" in error.message
        assert error.fields["free_bytes"] < 1 << 20
        assert "interactd data" in str(error.repair)
        await refused(it.engine.send_turn(old.id, "x" * 500_000))
        it.model.gate.set()
        done = await it.engine.wait(running.interaction.id, 30)
        assert done.interaction.status == "completed"
        assert [turn.steps[0].text for turn in (await it.engine.transcript(session.id))[1]] == ["first", "second"]
        assert (await it.engine.storage())["database"]["disk_free_bytes"] < BYTES + (1 << 20)
        # An export onto the full disk leaves nothing, one onto another goes.
        await refused(it.engine.export_data())
        assert list((it.paths.data / "exports").iterdir()) == []
        elsewhere = await it.engine.export_data(path=str(tmp_path / "x.zip"))
        assert elsewhere is not None
        with pytest.raises(InteractdError):
            await it.engine.import_data(str(elsewhere.path), as_new=True)
        with pytest.raises(InteractdError):
            await it.environments.create({"sources": [{"type": "inline", "target": "x", "content": "x" * 900_000}]})
        receipt = await it.engine.delete_session(old.id)
        assert receipt.removed["sessions"] == 1
        assert (await it.store.stats())["sessions"] == 1
        await is_sound(it)
        ballast.unlink()
        await it.store.check()
        again = await it.turn(session.id, "third")
        assert again.interaction.status == "completed"
        assert it.store.spare.held
        async with asyncio.timeout(30):
            while (await it.engine.delete_session(old.id)).pending:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def is_sound(it: World) -> None:
    def look() -> str:
        db = sqlite3.connect(f"file:{it.store.file}?mode=ro", uri=True)
        try:
            return db.execute("PRAGMA integrity_check").fetchone()[0]
        finally:
            db.close()

    assert await asyncio.to_thread(look) == "ok"


async def test_a_large_session_is_deleted_from_a_full_disk(disk: Path) -> None:
    async with world(disk / "home") as it:
        session = await it.engine.create_session(model="scripted/m1")
        kept = await it.engine.create_session(model="scripted/m1")
        await it.turn(kept.id, "kept")
        it.model.default = os.urandom(250_000).hex()
        for _ in range(12):
            await it.turn(session.id, "more")
        fill(disk)
        with contextlib.suppress(InteractdError):
            # Whatever was left of room is used up.
            while True:
                await it.engine.create_session(model="scripted/m1", system_instruction="x" * 1_000_000)
        error = await refused(it.engine.vacuum())
        assert error.fields["needed_bytes"] > error.fields["free_bytes"]
        receipt = await it.engine.delete_session(session.id)
        assert receipt.removed["interactions"] == 12
        assert (await it.engine.get_session(kept.id)).turns == 1
        await is_sound(it)


async def test_an_agents_turn_on_a_full_disk_ends_and_says_so(disk: Path) -> None:
    async with world(disk / "home") as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper")
        it.model.script(runs("open('x', 'w').write('x')"), "done")
        await it.turn(session.id)
        files = await it.engine.artifacts((await it.engine.get_session(session.id)).head or "")
        assert [one.name for one in files] == ["x"]
        it.model.script(runs("open('y', 'wb').write(b'y' * 60_000_000)"), "done")
        sent = await it.engine.send_turn(session.id, "too much")
        ended = await it.engine.wait(sent.interaction.id, 60)
        assert ended.interaction.status in ("completed", "failed", "incomplete")
        _, data = await it.engine.read_artifact(files[0].interaction_id, "x")
        assert data == b"x"
        receipt = await it.engine.delete_session(session.id)
        assert receipt.removed["environments"] == 1


async def test_a_read_only_disk_is_an_error_that_says_so(disk: Path) -> None:
    store = SqliteStore(disk / "home" / "interactd.db")
    await store.open()
    await store.aclose()
    before = (disk / "home" / "interactd.db").read_bytes()
    words = ["mount", "-o", "remount,ro", str(disk)]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot remount: {done.stderr.decode(errors='replace').strip()}")
    with pytest.raises(StorageError) as caught:
        await SqliteStore(disk / "home" / "interactd.db").open()
    assert "cannot be opened for writing" in caught.value.message
    assert "write access" in str(caught.value.repair)
    assert (disk / "home" / "interactd.db").read_bytes() == before
