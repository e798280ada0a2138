"""Trees that hostile code made to cost, hide or mislead whoever looks through them from outside."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from interactd.errors import InvalidArgument
from interactd.sandbox.environments.workspace import _hits  # pyright: ignore[reportPrivateUsage]
from interactd.sandbox.folder import beneath, sweep, trees
from interactd.sandbox.launchers.bubblewrap import recipe
from interactd.sandbox.launchers.bubblewrap.watch import size
from interactd.sandbox.port import Mount, Spec


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    above = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.remove(above, b"tree")
    finally:
        os.close(above)


def nested(root: int, depth: int, name: bytes) -> int:
    """Make folders in each other; returns the last one, open."""
    here = os.dup(root)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    return here


def test_a_deep_and_wide_tree_costs_no_memory_and_is_counted_as_a_whole(root: int) -> None:
    """Paths of 75 KB for each of two thousand folders were 150 MB; a hundred thousand are a machine's memory."""
    last = nested(root, 300, b"d" * 250)
    try:
        for number in range(2000):
            os.mkdir(b"%d" % number, dir_fd=last)
        os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=last))
    finally:
        os.close(last)
    tracemalloc.start()
    try:
        _bytes, files, whole = sweep.weigh(root)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (files, whole) == (1, True)
    assert peak < 8 << 20


def test_what_is_too_deep_to_be_looked_at_counts_as_too_much(root: int, tmp_path: Path) -> None:
    os.close(nested(root, 1200, b"d" * 200))
    assert not sweep.weigh(root)[2]
    assert size(tmp_path / "tree") > 1 << 50


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root; the attack suite tries it as a user")
def test_a_closed_folder_is_measured_and_left_as_it_was(root: int, tmp_path: Path) -> None:
    closed = tmp_path / "tree" / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_bytes(b"x" * 100_000)
    closed.chmod(0o100)
    used, files, whole = sweep.weigh(root)
    assert (files, whole) == (1, True)
    assert used >= 100_000
    assert closed.stat().st_mode & 0o777 == 0o100


def test_many_files_without_content_are_not_nothing(root: int, tmp_path: Path) -> None:
    for number in range(17_000):
        os.mknod(b"%d" % number, 0o100644, dir_fd=root)
    assert size(tmp_path / "tree") >= 17_000 * 16_384


def test_a_mode_is_never_changed_through_a_link(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is being removed is swapped for a link between the refusal and the change of its mode."""
    victim = tmp_path / "victim"
    victim.write_text("of somebody else")
    victim.chmod(0o640)
    (tmp_path / "tree" / "gone" / "swapped").mkdir(parents=True)
    rename = os.rename

    def swap(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if source == b"swapped":
            os.rmdir(source, dir_fd=src_dir_fd)
            os.symlink(victim, source, dir_fd=src_dir_fd)
            raise PermissionError
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", swap)
    with pytest.raises(OSError, match="symbolic link"):
        trees.remove(root, b"gone")
    monkeypatch.undo()
    assert victim.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError, match="symbolic link"):
        beneath.change_mode(root, b"gone/swapped", lambda _mode: 0o777)


@pytest.mark.parametrize("target", ["/workspace/link", "/workspace/link/x", "/workspace/file/x", "/home/agent/link/x"])
def test_a_mounts_target_is_reached_through_folders_only(tmp_path: Path, target: str) -> None:
    for part in ("ws", "home", "source"):
        (tmp_path / part).mkdir()
    for part in ("ws", "home"):
        (tmp_path / part / "link").symlink_to("/tmp")
    (tmp_path / "ws" / "file").write_text("")
    mounts = (Mount(tmp_path / "source", target),)
    with pytest.raises(InvalidArgument):
        recipe.check_targets(Spec("e", tmp_path / "ws", tmp_path / "home", mounts=mounts))


def test_what_a_planted_python_prints_for_a_search_is_read_with_care() -> None:
    lines = [b"[" * 100_000, b'{"path": 1, "line": 1, "text": "x"}', b'{"path": "a", "line": ' + b"9" * 5000 + b"}"]
    assert _hits(b"\n".join([*lines, b'{"path": "a", "line": 1, "text": "b"}']), 10) == [
        {"path": "a", "line": 1, "text": "b"}
    ]
