"""The token file."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interactd.errors import ConfigError
from interactd.faces.http.token import load_or_create, renew
from interactd.paths import Paths, find


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find({"INTERACTD_HOME": str(tmp_path)}).make()


def test_the_token_is_made_once_and_only_its_owner_can_read_it(paths: Paths) -> None:
    token = load_or_create(paths)
    assert len(token) >= 43
    assert stat.S_IMODE(paths.token_file.stat().st_mode) == 0o600
    assert load_or_create(paths) == token
    assert [path.name for path in paths.token_file.parent.iterdir()] == ["token"]


def test_processes_that_make_it_at_once_agree(paths: Paths) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(load_or_create, [paths] * 64))) == 1


def test_a_file_that_others_can_read_is_closed_to_them(paths: Paths) -> None:
    token = load_or_create(paths)
    paths.token_file.chmod(0o644)
    assert load_or_create(paths) == token
    assert stat.S_IMODE(paths.token_file.stat().st_mode) == 0o600


def test_a_new_token_replaces_the_old_one(paths: Paths) -> None:
    first = load_or_create(paths)
    second = renew(paths)
    assert second != first
    assert load_or_create(paths) == second


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "\x00" * 40])
def test_a_file_without_a_token_is_no_way_in(paths: Paths, content: str) -> None:
    paths.token_file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_or_create(paths)
    assert "--new" in str(caught.value.repair)
    assert not content.strip() or content not in str(caught.value)
