"""A daemon's socket over the small tool set."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from faces.kit import Daemon, SmallTools


@pytest.fixture
def tools() -> SmallTools:
    return SmallTools()


@pytest.fixture
def daemon(tmp_path: Path, tools: SmallTools) -> Daemon:
    return Daemon(tmp_path, tools, None)


@pytest.fixture
async def socket(anyio_backend: str, daemon: Daemon) -> AsyncGenerator[str]:
    async with daemon.listening() as path:
        yield path
