"""A small internet on loopback for every test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sandbox.egress.parts import Net, internet


@pytest.fixture
async def net(tmp_path: Path, anyio_backend: object) -> AsyncGenerator[Net]:
    async with internet(tmp_path) as made:
        yield made


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The daemon runs on uvloop where there is one, and elsewhere on the loop of the standard library."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
