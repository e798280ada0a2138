"""A small internet on loopback for every test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sandbox.egress.parts import Net, internet


@pytest.fixture
async def net(tmp_path: Path) -> AsyncGenerator[Net]:
    async with internet(tmp_path) as made:
        yield made
