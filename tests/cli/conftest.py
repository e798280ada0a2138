"""The real commands, run as a person runs them, against a fake provider in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest

from support.hosts import Home, home
from support.provider import FakeProvider

__all__ = ["home"]


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """Where commands are typed."""

    home: Home
    provider: FakeProvider

    async def start(self, *words: str, typed: bool = False, **env: str) -> asyncio.subprocess.Process:
        """Start a command without waiting for it; with `typed` its stdin is a pipe."""
        keys = {"OPENAI_API_KEY": "sk-of-the-terminal", "OPENAI_BASE_URL": self.provider.base_url}
        self.home.root.parent.mkdir(parents=True, exist_ok=True)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "interactd",
            *words,
            env={**self.home.env, **keys, **env},
            stdin=asyncio.subprocess.PIPE if typed else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def finish(self, process: asyncio.subprocess.Process) -> Ran:
        """Wait for a command that was started."""
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def run(self, *words: str, **env: str) -> Ran:
        """Run a command to its end."""
        return await self.finish(await self.start(*words, typed=False, **env))

    async def chat(self, text: str, **env: str) -> dict[str, Any]:
        """Send one turn in a session of its own; returns what `--json` printed."""
        ran = await self.run("chat", "--json", "-m", "openai/fake-model-1", text, **env)
        return ran.json


@pytest.fixture
async def terminal(home: Home, anyio_backend: str) -> AsyncGenerator[Terminal]:
    async with FakeProvider(default="Yes.") as provider:
        yield Terminal(home, provider)
