"""Agents go along: their pinned copies, the files that they left, and their workspaces where that is wished."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from engine.agents.kit import runs
from engine.archive.kit import members, rewritten
from engine.archive.world import world
from interactd.errors import InvalidArgument
from interactd.sandbox.carrying_port import Unsafe

pytestmark = pytest.mark.anyio
WORK = """
import os, pathlib
pathlib.Path('out').mkdir()
pathlib.Path('out/report.txt').write_text('a report')
pathlib.Path('out/same.txt').write_text('a report')
pathlib.Path('run.sh').write_text('#!/bin/sh')
os.chmod('run.sh', 0o750)
os.symlink('out/report.txt', 'link')
os.symlink('/etc/passwd', 'away')
"""


async def test_an_agents_session_goes_on_in_another_home(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper")
        it.model.script(runs(WORK), "done")
        result = await it.turn(session.id)
        files = await it.engine.artifacts(result.interaction.id)
        first = await it.engine.export_data(path=str(tmp_path / "first.zip"), with_environments=True)
        assert first is not None
    assert first.counts["contents"] < first.counts["artifacts"] == len(files)
    assert first.counts["agents"] == first.counts["workspaces"] == 1
    async with world(tmp_path / "b") as it:
        done = await it.engine.import_data(str(first.path))
        assert done is not None
        assert done.counts["agents"] == done.counts["workspaces"] == 1
        here = await it.engine.artifacts(result.interaction.id)
        assert [(one.id, one.name, one.sha256) for one in here] == [(one.id, one.name, one.sha256) for one in files]
        _, data = await it.engine.read_artifact(result.interaction.id, "out/report.txt")
        assert data == b"a report"
        second = await it.engine.export_data(path=str(tmp_path / "second.zip"), with_environments=True)
        assert second is not None
        assert members(second.path) == members(first.path)
        # The agent is not in this home's folders: only its copy is here.
        it.model.script(
            runs("print(open('link').read(), oct(os.stat('run.sh').st_mode), os.readlink('away'))", language="python"),
            "done again",
        )
        it.model.script()
        again = await it.engine.send_turn(session.id, "go on")
        result = await it.engine.wait(again.interaction.id, 60)
        assert result.interaction.status == "completed", result.interaction
        assert result.interaction.agent_hash == session.agent_pins["helper"]
        assert result.interaction.environment_id == first_environment(first.path)


def first_environment(path: Path) -> str:
    return json.loads(members(path)["environments.jsonl"].splitlines()[0])["id"]


async def test_an_environment_without_its_files_comes_in_empty(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper")
        it.model.script(runs("open('x', 'w').write('x')"), "done")
        await it.turn(session.id)
        first = await it.engine.export_data([session.id])
        assert first is not None
        assert first.path.parent == it.paths.data / "exports"
    async with world(tmp_path / "b") as it:
        done = await it.engine.import_data(str(first.path))
        assert done is not None
        assert any("without their files" in note for note in done.notes)
        [place] = await it.environments.list()
        assert await it.environments.files(place.id) == []
        it.model.script(runs("open('y', 'w').write('y')"), "done")
        await it.turn(session.id)
        assert [each["path"] for each in await it.environments.files(place.id)] == ["y"]


async def test_a_copy_that_came_in_never_stands_in_for_an_agent_that_is_here(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper")
        first = await it.engine.export_data()
        assert first is not None
    pin = session.agent_pins["helper"]

    def poison(found: dict[str, bytes]) -> None:
        import hashlib

        name = f"agents/{pin}/definition.json"
        definition = json.loads(found[name])
        definition["definition"]["instructions"] = "You harm."
        found[name] = json.dumps(definition).encode()
        found[f"agents/{pin}/folder/AGENTS.md"] = b"You harm."
        definition["files"]["AGENTS.md"] = hashlib.sha256(b"You harm.").hexdigest()
        found[name] = json.dumps(definition).encode()

    async with world(tmp_path / "b") as it:
        await it.engine.import_data(str(rewritten(first.path, poison)))
        it.agent("helper", "You help.")
        fresh = await it.engine.create_session(agent="helper")
        assert fresh.agent_pins["helper"] == pin
        it.model.script("hello")
        await it.turn(fresh.id)
        assert "You help." in (it.model.requests[-1].system_instruction or "")
        assert "You harm." not in (it.model.requests[-1].system_instruction or "")


async def test_a_copy_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper")
        first = await it.engine.export_data()
        assert first is not None
    pin = session.agent_pins["helper"]

    def change(found: dict[str, bytes]) -> None:
        found[f"agents/{pin}/folder/AGENTS.md"] = b"Something else."

    def add(found: dict[str, bytes]) -> None:
        found[f"agents/{pin}/folder/more.txt"] = b"more"

    def garble(found: dict[str, bytes]) -> None:
        found[f"agents/{pin}/definition.json"] = b"[]"

    async with world(tmp_path / "b") as it:
        for wrong in (change, add, garble):
            with pytest.raises(InvalidArgument, match="is no agent's copy"):
                await it.engine.import_data(str(rewritten(first.path, wrong)))
        assert (await it.store.stats())["sessions"] == 0
        copies = it.paths.data / "agents"
        assert not copies.exists() or list(copies.iterdir()) == []


def packed(*entries: tuple[str, bytes, str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILE, LINK, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
TARS = {
    "a way out": packed(("ws/../../evil", FILE, "", b"x")),
    "a whole path": packed(("/ws/evil", FILE, "", b"x")),
    "another folder": packed(("tmp/evil", FILE, "", b"x")),
    "through a link": packed(("ws/l", LINK, "/tmp", b""), ("ws/l/evil", FILE, "", b"x")),
    "over a link": packed(("ws/l", LINK, "/tmp/evil", b""), ("ws/l", FILE, "", b"x")),
    "a hard link": packed(("ws/a", FILE, "", b"x"), ("ws/h", tarfile.LNKTYPE, "/etc/passwd", b"")),
    "a device": packed(("ws/d", tarfile.CHRTYPE, "", b"")),
    "a pipe": packed(("ws/p", tarfile.FIFOTYPE, "", b"")),
    "twice": packed(("ws/a", FILE, "", b"x"), ("ws/a", FILE, "", b"y")),
    "no folder": packed(("ws/a/b", FILE, "", b"x")),
    "no tar": b"x" * 5000,
    "cut off": packed(("ws/a", FILE, "", b"x" * 5000))[:2000],
}


@pytest.mark.parametrize("what", TARS)
async def test_a_hostile_workspace_is_refused(tmp_path: Path, what: str) -> None:
    async with world(tmp_path / "a") as it:
        id = "env_" + "0" * 26
        unpack = it.environments.carrier.unpack
        packed_files = io.BytesIO(TARS[what])
        it.environments.carrier.attach(asyncio.get_running_loop())
        with pytest.raises(Unsafe):
            await asyncio.to_thread(unpack, id, {}, packed_files, most_bytes=100_000, go=lambda: None)
        assert list((it.paths.data / "environments").iterdir()) == []
    assert not Path("/tmp/evil").exists()


async def test_a_workspace_keeps_names_modes_times_and_links(tmp_path: Path) -> None:
    async with world(tmp_path / "a") as it:
        made = await it.environments.create({})
        root = it.paths.data / "environments" / made.id / "ws"
        odd = os.fsencode(root) + b"/od\xffd \n name"
        Path(os.fsdecode(odd)).write_bytes(b"odd")
        (root / "deep" / "er").mkdir(parents=True)
        (root / "deep" / "er" / "x").write_text("x")
        (root / "deep").chmod(0o700)
        (root / "deep" / "er" / "x").chmod(0o640)
        os.utime(root / "deep" / "er" / "x", (1_000_000_000, 1_000_000_000))
        (root / "dangling").symlink_to("nowhere")
        first = await it.engine.export_data(with_environments=True)
        assert first is not None
    async with world(tmp_path / "b") as it:
        # An environment that no session has is the owner's all the same.
        with_sessions = await it.engine.create_session()
        done = await it.engine.import_data(str(first.path))
        assert done is not None
        assert with_sessions.id not in done.sessions
        here = it.paths.data / "environments" / made.id / "ws"
        assert (here / os.fsdecode(b"od\xffd \n name")).read_bytes() == b"odd"
        info = (here / "deep" / "er" / "x").stat()
        assert (stat.S_IMODE(info.st_mode), info.st_mtime) == (0o640, 1_000_000_000)
        assert (here / "dangling").readlink() == Path("nowhere")
        second = await it.engine.export_data([], path=str(tmp_path / "none.zip"))
        assert second is not None
        assert second.counts["sessions"] == 0
