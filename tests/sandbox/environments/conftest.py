"""A world per test, over real sandboxes."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sandbox.environments.kit import World, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncGenerator[World]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    async with world(tmp_path / "home") as made:
        yield made
