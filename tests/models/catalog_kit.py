"""Catalogs that find only the servers they are given."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from interactd import config
from interactd.errors import (
    InteractdError,
    NotSetUp,
)
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.models.port import Model, ModelInfo
from support.provider import FakeProvider

LOCAL = ("ollama", "lmstudio", "vllm", "llamacpp")
KEY = "sk-test-0123456789abcdef"


class Shelf:
    """Makes catalogs whose local servers are only those given: a test must not find what runs on this machine."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        text: str = "",
        *,
        own: Mapping[str, str] | None = None,
        ring: KeyRing | None = None,
        embedded: Embedded | None = None,
        **local: str,
    ) -> ModelCatalog:
        for name in LOCAL:
            if f"[providers.{name}]" not in text:
                text += f"\n[providers.{name}]\n"
                text += f'base_url = "{local[name]}"\n' if name in local else "enabled = false\n"
        settings = config.parse(text)
        made = ModelCatalog(settings, ring or KeyRing(config.allowed_env(settings), own or {}), embedded)
        self._stack.push_async_callback(made.aclose)
        return made


class Embedded:
    """Stands where the embedded model's own package stands, with or without weights."""

    def __init__(self, ready: bool) -> None:
        self._ready = ready
        self.closed = False

    def ready(self) -> bool:
        return self._ready

    def why_not(self) -> str | None:
        return None if self._ready else "no weights"

    async def resolve(self, name: str = "auto") -> Model:
        raise NotSetUp(f"embedded asked for {name}", repair="interactd setup")

    async def list(self) -> list[ModelInfo]:
        return [ModelInfo("embedded/tiny", "embedded", self._ready, "set up", True, self._ready, 4096)]

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    async with AsyncExitStack() as stack:
        yield Shelf(stack)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(models=["qwen3:8b", "llama3.3:latest", "nomic-embed-text:latest"]) as made:
        yield made


async def error_of(catalog: ModelCatalog, name: str, connection: str | None = None) -> InteractdError:
    with pytest.raises(InteractdError) as caught:
        await catalog.resolve(name, connection=connection)
    assert caught.value.repair, "every error says what to do"
    return caught.value


def far(fake: FakeProvider) -> str:
    """An address that reaches the fake and does not look like this machine's own."""
    return f"http://2130706433:{fake.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
