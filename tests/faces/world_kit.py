"""A home with a provider on loopback, for tests that go the whole way from a host to a model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from faces.kit import Json
from interactd.cli.client import connected as control
from support.hosts import Home
from support.provider import FakeProvider, Reply

SHIM = [sys.executable, "-m", "interactd", "mcp"]
COMMANDS = {"shim": SHIM, "in-process": [*SHIM, "--in-process"]}


@dataclass
class World:
    """A home with a provider configured, and processes that must all be gone at the end."""

    home: Home
    provider: FakeProvider

    @property
    def token(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.home.paths.token_file.read_text().strip()}"}

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Json]:
        """`interactd serve`: the daemon listens while the control connection is open. Yields where."""
        # That client blocks, and the loop of the test serves the provider too.
        opened = control(self.home.paths)
        client = await asyncio.to_thread(opened.__enter__)
        try:
            yield await asyncio.to_thread(client.call, "serve", port=0)
        finally:
            opened.__exit__(None, None, None)


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    home = Home(tmp_path / "home")
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    async with FakeProvider() as provider:
        provider.default = Reply("The horse has four legs.")
        home.paths.make()
        home.paths.config_file.write_text(
            f'[defaults]\nmodel = "fake/fake-model-1"\n'
            f'[providers.fake]\nkind = "openai-chat"\nbase_url = "{provider.base_url}"\n'
            f'models = ["fake-model-1"]\nallow_http = true\n'
        )
        try:
            yield World(home, provider)
        finally:
            await asyncio.to_thread(home.close)
