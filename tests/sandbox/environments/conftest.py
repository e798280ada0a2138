"""A world per test, over real sandboxes."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from interactd.sandbox.folder import trees
from sandbox.environments.kit import World, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncGenerator[World]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        async with world(tmp_path / "home") as made:
            yield made
    finally:
        # What a failed test leaves may be deeper than pytest's own cleaning can go.
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            trees.remove(fd, b"home")
        finally:
            os.close(fd)
