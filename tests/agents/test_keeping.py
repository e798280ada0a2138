"""Hashes and pinned copies: the content that a session began with is what it keeps."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from interactd.agents.keep import Keeper
from interactd.agents.port import Agents
from interactd.errors import BadManifest, Conflict, NotFound, StorageError, StorageFull
from support.agent_folders import Home, skill, write

MANIFEST = """
base_agent: antigravity
tools: [files, {type: function, name: f}]
generation_config: {temperature: 0.5}
environment: {env: {A: x}, network: {allowlist: [x.org]}}
limits: {steps: 3, tokens: 100}
"""


def full(home: Home, agent_id: str = "mine") -> Path:
    folder = home.config_agent(agent_id, MANIFEST, "First.")
    skill(folder, "one")
    (folder / "sources").mkdir()
    (folder / "sources" / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "sources" / "tool.sh").chmod(0o755)
    (folder / "hooks.json").write_text('{"g": {"enabled": true}}')
    return folder


def test_the_hash_is_of_the_content_and_of_nothing_else(home: Home, tmp_path: Path) -> None:
    folder = full(home)
    first = home.resolve("mine").hash
    assert first == home.resolve("mine").hash
    os.utime(folder / "AGENTS.md", (1, 1))
    (folder / "AGENTS.md").chmod(0o600)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "AGENTS.md~").write_text("backup")
    assert home.resolve("mine").hash == first
    other = Home(tmp_path / "other")
    shutil.copytree(home.config, other.config)
    assert other.folders().resolve_now("mine").hash == first


@pytest.mark.parametrize("change", ["bytes", "name", "executable", "added", "removed", "base"])
def test_every_change_of_the_content_changes_the_hash(home: Home, change: str) -> None:
    home.config_agent("base", "", "Base.")
    folder = home.config_agent("heir", "base_agent: base", "Heir.")
    (folder / "note.txt").write_text("x")
    first = home.resolve("heir").hash
    match change:
        case "bytes":
            (folder / "note.txt").write_text("y")
        case "name":
            (folder / "note.txt").rename(folder / "other.txt")
        case "executable":
            (folder / "note.txt").chmod(0o755)
        case "added":
            (folder / "more.txt").write_text("")
        case "removed":
            (folder / "note.txt").unlink()
        case _:
            (home.config / "base" / "AGENTS.md").write_text("Base!")
    assert home.resolve("heir").hash != first


def test_the_same_files_hash_differently_where_they_are_trusted_less(home: Home) -> None:
    home.config_agent("mine")
    trusted = home.resolve("mine").hash
    shutil.move(home.config / "mine", home.local / "mine")
    assert home.resolve("mine").hash != trusted


@pytest.mark.parametrize("then", ["changed", "broken", "deleted", "untouched"])
def test_a_pinned_agent_is_what_it_was(home: Home, then: str) -> None:
    folder = full(home)
    before = home.resolve("mine")
    match then:
        case "changed":
            write(folder, "model: other/model", "Second.")
        case "broken":
            (folder / "agent.yaml").write_text("{")
        case "deleted":
            shutil.rmtree(folder)
        case _:
            pass
    again = home.resolve("mine", pinned=before.hash)
    for each in dataclasses.fields(before):
        assert getattr(again, each.name) == getattr(before, each.name), each.name
    assert (again.folder / "AGENTS.md").read_text().endswith("First.\n")
    assert again.instructions.endswith("First.")


def test_a_kept_copy_is_read_only_and_runs_what_ran(home: Home) -> None:
    full(home)
    found = home.resolve("mine")
    assert found.folder.parent == home.paths.data / "agents" / found.hash
    for path in [found.folder, *found.folder.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    assert (found.folder / "sources" / "tool.sh").stat().st_mode & 0o111
    assert not (found.folder / "AGENTS.md").stat().st_mode & 0o111
    assert sorted(each.name for each in found.folder.parent.parent.iterdir()) == [found.hash]


@pytest.mark.parametrize("pinned", ["", "0" * 64, "../../x", "F" * 64, "\ud800", "0" * 63])
def test_a_hash_that_is_not_kept_is_not_found(home: Home, pinned: str) -> None:
    with pytest.raises(NotFound) as told:
        home.resolve("mine", pinned=pinned)
    assert told.value.message.isprintable()


@pytest.mark.parametrize("damage", ["changed", "removed", "definition", "half"])
def test_a_damaged_copy_is_told_or_made_again(home: Home, damage: str) -> None:
    folder = full(home)
    found = home.resolve("mine")
    copy = found.folder
    copy.chmod(0o755)
    target = copy / "AGENTS.md"
    match damage:
        case "changed":
            target.chmod(0o644)
            target.write_text("Do harm.")
        case "removed":
            target.unlink()
        case "definition":
            (copy.parent / "definition.json").write_text('{"version": 1')
        case _:
            (copy.parent / "definition.json").unlink()
    again = home.resolve("mine", pinned=found.hash)
    assert (again.folder / "AGENTS.md").read_text().endswith("First.\n")
    (folder / "AGENTS.md").write_text("Second.")
    (again.folder / "AGENTS.md").chmod(0o644)
    (again.folder / "AGENTS.md").write_text("Do harm.")
    with pytest.raises(StorageError, match=r"is damaged: AGENTS\.md was changed"):
        home.resolve("mine", pinned=found.hash)


def test_a_lost_copy_is_made_again_from_the_same_content_only(home: Home) -> None:
    folder = full(home)
    found = home.resolve("mine")
    shutil.rmtree(home.paths.data / "agents")
    assert home.resolve("mine", pinned=found.hash).hash == found.hash
    shutil.rmtree(home.paths.data / "agents")
    (folder / "AGENTS.md").write_text("Second.")
    with pytest.raises(NotFound, match="no longer kept"):
        home.resolve("mine", pinned=found.hash)


def test_listing_keeps_no_copies(home: Home) -> None:
    full(home)
    home.list()
    assert not (home.paths.data / "agents").exists()


def test_many_at_once_keep_one_copy(home: Home) -> None:
    full(home)
    with ThreadPoolExecutor(8) as pool:
        found = [each.result() for each in [pool.submit(home.resolve, "mine") for _ in range(16)]]
    assert len({each.hash for each in found}) == 1
    assert len(list((home.paths.data / "agents").iterdir())) == 1


def test_a_folder_that_keeps_changing_is_a_conflict_or_a_whole_version(home: Home) -> None:
    folder = full(home)
    done = threading.Event()

    def write_on() -> None:
        number = 0
        while not done.is_set():
            number += 1
            (folder / "sources" / "data").write_text(f"{number}\n" * 2000)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _ in range(20):
            try:
                found = home.resolve("mine")
            except (Conflict, BadManifest):
                continue
            assert home.resolve("mine", pinned=found.hash).hash == found.hash
    finally:
        done.set()
        writer.join(10)


def test_a_full_disk_is_told_and_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    full(home)

    def no_space(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", no_space)
        with pytest.raises(StorageFull, match="No space left"):
            home.resolve("mine")
    assert list((home.paths.data / "agents").iterdir()) == []
    assert home.resolve("mine").id == "mine"


def test_what_no_session_needs_is_pruned(home: Home) -> None:
    folder = full(home)
    first = home.resolve("mine")
    (folder / "AGENTS.md").write_text("Second.")
    second = home.resolve("mine")
    root = home.paths.data / "agents"
    left = root / ".new-of-a-crash"
    left.mkdir()
    os.utime(left, (1, 1))
    keeper = Keeper(root)
    assert keeper.prune({first.hash}, unused_s=3600) == 1
    assert not left.exists()
    for each in (first, second):
        os.utime(each.folder.parent / "definition.json", (1, 1))
    assert keeper.prune({first.hash}, unused_s=3600) == 1
    assert [each.name for each in root.iterdir()] == [first.hash]


@pytest.mark.anyio
async def test_it_is_what_the_engine_asks_for(home: Home) -> None:
    agents: Agents = home.folders()
    full(home)
    with anyio.fail_after(20):
        found = await agents.resolve("mine", cwd=str(home.project))
        assert (await agents.resolve("mine", pinned=found.hash)).instructions == found.instructions
        listed, problems = await agents.list(cwd=str(home.project))
        assert ([each.id for each in listed], problems) == (["antigravity", "mine"], [])
        assert await home.folders().prune({found.hash}) == 0
