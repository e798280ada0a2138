from __future__ import annotations

from pathlib import Path

import pytest

from interactd.sandbox.environments.presence import Presence
from sandbox.environments.kit import world

fcntl = pytest.importorskip("fcntl", reason="locks of this kind exist on POSIX systems only")


def test_the_first_is_alone_and_those_who_come_later_are_not(tmp_path: Path) -> None:
    first, second = Presence(tmp_path / "data" / "lock"), Presence(tmp_path / "data" / "lock")
    assert first.enter()
    first.stay()
    assert not second.enter()
    first.leave()
    third = Presence(tmp_path / "data" / "lock")
    assert not third.enter()
    second.leave()
    third.leave()
    third.leave()
    assert Presence(tmp_path / "data" / "lock").enter()


@pytest.mark.anyio
async def test_a_daemon_that_starts_beside_another_leaves_what_that_one_is_making_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as first:
        half = tmp_path / "data" / "environments" / ".new-env_half"
        half.mkdir()
        row = {"id": "env_half", "owner": "local", "status": "creating", "created_at": 0.0, "last_used_at": 0.0}
        row |= {"expires_at": 9e9, "forked_from": None, "size_bytes": None, "file_count": None, "body": {}}
        await first.store.put_environment(row)
        async with world(tmp_path):
            assert half.is_dir()
            assert await first.store.get_environment("env_half") is not None
    async with world(tmp_path) as alone:
        assert not half.exists()
        assert await alone.store.get_environment("env_half") is None
