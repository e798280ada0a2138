"""Folders that are hostile: links, pipes, sizes, numbers and names."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from interactd.agents import tree
from interactd.errors import BadManifest
from support.agent_folders import Home, skill


def refused(home: Home, agent_id: str = "mine") -> BadManifest:
    with pytest.raises(BadManifest) as told:
        home.resolve(agent_id)
    assert told.value.message.isprintable()
    return told.value


@pytest.mark.parametrize("place", ["config", "project"])
@pytest.mark.parametrize("name", ["AGENTS.md", "agent.yaml", "sources/secret", "skills/one/SKILL.md"])
def test_a_link_out_of_the_folder_is_refused(home: Home, tmp_path: Path, place: str, name: str) -> None:
    folder = home.config_agent("mine") if place == "config" else home.project_agent("mine")
    skill(folder, "one")
    outside = tmp_path / "outside"
    outside.write_text((folder / name).read_text() if (folder / name).exists() else "secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(outside)
    assert "link out of the folder" in refused(home).message


@pytest.mark.parametrize("target", ["..", "/", "/etc", "../../..", "loop", "nothing", "../mine-too"])
def test_a_link_to_no_file_inside_is_refused(home: Home, target: str) -> None:
    folder = home.config_agent("mine")
    home.config_agent("mine-too")
    (folder / "loop").symlink_to(target)
    assert "link" in refused(home).message


def test_a_link_to_a_file_inside_is_its_content(home: Home) -> None:
    folder = home.config_agent("mine")
    (folder / "docs").mkdir()
    (folder / "AGENTS.md").rename(folder / "docs" / "text.md")
    (folder / "AGENTS.md").symlink_to("docs/text.md")
    found = home.resolve("mine")
    assert found.instructions == "Do what is asked."
    assert not (found.folder / "AGENTS.md").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")
@pytest.mark.parametrize("name", ["AGENTS.md", "agent.yaml", "sources/x", "hooks.json"])
def test_a_pipe_is_refused_and_not_waited_for(home: Home, name: str) -> None:
    folder = home.config_agent("mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    started = time.monotonic()
    assert any("device, pipe or socket" in each for each in refused(home).fields["problems"])
    assert time.monotonic() - started < 5


@pytest.mark.skipif(sys.platform == "win32", reason="there are no sockets in folders")
def test_a_socket_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home.config_agent("mine")
    monkeypatch.chdir(folder)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        assert "device, pipe or socket" in refused(home).message


@pytest.mark.parametrize("thousands", [6, pytest.param(100, marks=pytest.mark.long)])
def test_too_many_files_are_refused_and_not_all_counted(home: Home, thousands: int) -> None:
    folder = home.config_agent("mine")
    (folder / "sources").mkdir()
    for number in range(thousands):
        inner = folder / "sources" / str(number)
        inner.mkdir()
        for name in range(1000):
            os.close(os.open(inner / str(name), os.O_CREAT | os.O_WRONLY))
    started = time.monotonic()
    assert f"at most {tree.MAX_FILES} files and folders" in refused(home).message
    assert time.monotonic() - started < 10


def test_a_huge_file_is_refused_unread(home: Home) -> None:
    folder = home.config_agent("mine")
    (folder / "sources").mkdir()
    with (folder / "sources" / "sparse").open("wb") as file:
        file.truncate(2_000_000_000)
    started = time.monotonic()
    assert "got 2000000000" in refused(home).message
    assert time.monotonic() - started < 5


def test_many_large_files_are_too_much(home: Home) -> None:
    folder = home.config_agent("mine")
    (folder / "sources").mkdir()
    for number in range(3):
        with (folder / "sources" / str(number)).open("wb") as file:
            file.truncate(30_000_000)
    assert "at most 64 MB in all" in refused(home).message


def test_folders_in_folders_have_an_end(home: Home) -> None:
    folder = home.config_agent("mine")
    deep = folder.joinpath("sources", *["d"] * 20)
    deep.mkdir(parents=True)
    assert "folders inside each other" in refused(home).message


@pytest.mark.parametrize(
    "name", [b"new\nline", b"tab\t", b"esc\x1b[31m", b"bad\xff", b"back\\slash", "right\u202eleft".encode()]
)
def test_an_unprintable_name_is_refused(home: Home, name: bytes) -> None:
    folder = home.config_agent("mine")
    with open(os.fsencode(folder) + b"/" + name, "w") as file:
        file.write("x")
    assert "a name of printable characters" in refused(home).message


def test_sources_may_hold_any_bytes(home: Home) -> None:
    folder = home.config_agent("mine")
    (folder / "sources").mkdir()
    (folder / "sources" / "data.bin").write_bytes(bytes(range(256)))
    (folder / "sources" / "größe ☂.csv").write_bytes(b"\xff\xfe")
    found = home.resolve("mine")
    assert (found.folder / "sources" / "data.bin").read_bytes() == bytes(range(256))
    assert (found.folder / "sources" / "größe ☂.csv").is_file()


@pytest.mark.parametrize("data", [b"caf\xe9", b"a\0b", b"\x1b[2J", "x".encode("utf-16"), b"", b" \n", b"x" * 70_000])
def test_instructions_are_text(home: Home, data: bytes) -> None:
    folder = home.config_agent("mine")
    (folder / "AGENTS.md").write_bytes(data)
    assert refused(home).fields["file"] == str(folder / "AGENTS.md")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_told(home: Home) -> None:
    folder = home.config_agent("mine")
    (folder / "AGENTS.md").chmod(0)
    assert "cannot be read" in refused(home).message
