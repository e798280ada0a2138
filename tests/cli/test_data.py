"""`interactd export | import | keep | data | vacuum` as a person runs them, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from cli.conftest import Terminal
from engine.archive.kit import members
from engine.retention.test_deletion import found

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def test_a_home_is_carried_to_another_one(terminal: Terminal, tmp_path: Path) -> None:
    said = await terminal.chat("remember the marker")
    id = said["session"]["id"] if "session" in said else said["session_id"]
    file = tmp_path / "out.zip"
    ran = await terminal.run("export", "--all", "-o", str(file), "--json")
    assert ran.code == 0, ran.err
    assert ran.json["path"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"sk-of-the-terminal" not in b"".join(members(file).values())
    assert (await terminal.run("export", "--all", "-o", str(file))).code == 1
    assert (await terminal.run("export", id[:28], "-o", str(file), "--force")).code == 0
    assert (await terminal.run("export")).code == 1
    await terminal.run("stop")
    other = {"INTERACTD_HOME": str(tmp_path / "other")}
    looked = await terminal.run("import", str(file), "--dry-run", **other)
    assert looked.out.startswith("would come in: 1 sessions")
    assert (await terminal.run("import", str(file), "--json", **other)).json["sessions"] == [id]
    shown = await terminal.run("show", id, **other)
    assert "remember the marker" in shown.out
    assert "skip" in (await terminal.run("import", str(file), "--json", **other)).out
    kept = await terminal.run("keep", id, "--ttl", "7d", **other)
    assert kept.out.startswith(f"{id}: kept until ")
    assert (await terminal.run("keep", id, **other)).out == f"{id}: kept until it is deleted\n"
    data = await terminal.run("data", **other)
    assert "database\t" in data.out
    assert (await terminal.run("vacuum", "--json", **other)).json["after_bytes"] > 0
    file.write_bytes(file.read_bytes()[:-100])
    broken = await terminal.run("import", str(file), **other)
    assert broken.code == 1
    assert broken.err.startswith("invalid_argument: ")
    await terminal.run("stop", **other)


async def test_nothing_of_a_deleted_session_is_in_the_home_of_a_real_daemon(terminal: Terminal) -> None:
    """Its log, records and sockets included."""
    mark = "zq0123456789abcdefqz"
    said = await terminal.run(
        "chat",
        "--json",
        "-m",
        "openai/fake-model-1",
        "--title",
        f"title {mark}",
        "--system",
        f"be {mark}",
        f"hi {mark}",
    )
    id = said.json["session"]["id"] if "session" in said.json else said.json["session_id"]
    assert await found(terminal.home.root, [mark])
    for words in (("search", mark), ("show", id), ("search", f"{mark}x")):
        await terminal.run(*words)
    ran = await terminal.run("delete", id, "--yes", "--json")
    assert ran.code == 0, ran.err
    assert "pending" not in ran.json[0]
    assert await found(terminal.home.root, [mark]) == []
    await terminal.run("stop")


async def test_ctrl_c_leaves_nothing_of_an_export(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.chat("hello")
    await terminal.run("stop")
    fatten(terminal.home.root / "data" / "interactd.db")
    out = tmp_path / "out"
    out.mkdir()
    process = await terminal.start("export", "--all", "-o", str(out))
    async with asyncio.timeout(60):
        while not list(out.iterdir()) and process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    ran = await terminal.finish(process)
    async with asyncio.timeout(60):
        # The daemon hears of it when the connection closes.
        while any(one.name.startswith(".") for one in out.iterdir()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert ran.code == 130
    assert list(out.iterdir()) == []
    await terminal.run("stop")


def fatten(database: Path) -> None:
    """Make an export take a while: much that does not pack."""
    db = sqlite3.connect(database)
    text = json.dumps({"content": [{"type": "text", "text": os.urandom(3_000_000).hex()}]})
    id, steps = db.execute("SELECT id, steps FROM interactions").fetchone()
    for seq in range(steps, steps + 30):
        db.execute(
            "INSERT INTO steps (interaction_id, seq, type, created_at, body) VALUES (?, ?, 'model_output', 1.0, ?)",
            (id, seq, text),
        )
    db.execute("UPDATE interactions SET steps = steps + 30")
    db.commit()
    db.close()
