"""A model behind a fake provider, for tests of calls over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from interactd import config
from interactd.config import Kind
from interactd.errors import (
    InteractdError,
)
from interactd.models.codecs import codec
from interactd.models.http.clients import Clients
from interactd.models.keys import KeyRing
from interactd.models.port import ModelEvent, ModelRequest, StepDelta
from interactd.models.providers import Provider
from interactd.models.transport import Backoff, HttpModel
from interactd.nouns import user_input
from support.provider import FakeProvider

KEY = "sk-test-0123456789abcdef"
KINDS: tuple[Kind, ...] = ("openai-chat", "openai-responses", "anthropic", "gemini")
CHAT: Kind = "openai-chat"


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.aclose()


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as made:
        yield made


def model(clients: Clients, url: str, kind: Kind = CHAT, **settings: Any) -> HttpModel:
    ring = KeyRing(own={"OPENAI_API_KEY": KEY})
    table = config.Provider(kind=kind, base_url=url, api_key_env="OPENAI_API_KEY", **settings)
    provider = Provider("fake", kind, url, table, ("OPENAI_API_KEY",), KEY, "OPENAI_API_KEY")
    return HttpModel(provider, "fake-model-1", codec(kind, "fake"), clients, ring, backoff=Backoff(0.01, 0.02))


def ask(text: str = "hello") -> ModelRequest:
    return ModelRequest("fake-model-1", [user_input(text)])


async def collect(made: HttpModel, request: ModelRequest | None = None) -> list[ModelEvent]:
    return [event async for event in made.stream(request or ask())]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, StepDelta) and event.kind == "text")


async def failure(made: HttpModel, request: ModelRequest | None = None) -> InteractdError:
    with pytest.raises(InteractdError) as caught:
        await collect(made, request)
    assert caught.value.repair, "every error says what to do"
    assert KEY not in str(caught.value.as_dict())
    return caught.value
