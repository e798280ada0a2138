"""An engine with agents for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.agents.kit import Rig, rig


@pytest.fixture
async def it(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made
