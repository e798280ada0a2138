"""A real llama-server, found and called as any other one would be, over each wire that it speaks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from interactd import config
from interactd.errors import KeyRefused
from interactd.models.catalog import ModelCatalog
from interactd.models.embedded.child import Start
from interactd.models.embedded.weights.table import lookup
from interactd.models.keys import KeyRing
from interactd.models.port import Finished, ModelRequest, StepDelta
from interactd.nouns import GenerationConfig, user_input
from support.weights import TEST_MODEL, fetch

pytestmark = pytest.mark.anyio
pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")

KEY = "a-key-for-this-test-only"
OTHERS = "".join(f"[providers.{name}]\nenabled = false\n" for name in ("ollama", "lmstudio", "vllm"))


@pytest.fixture(scope="session")
def small_weights() -> Path:
    return fetch() / f"{lookup(TEST_MODEL).sha256}.gguf"


@pytest.fixture
async def server(small_weights: Path) -> AsyncIterator[str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "interactd.models.embedded.child", stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        start = Start(str(small_weights), "small", KEY, 1, 1024, 16, os.getpid())
        child.stdin.write(json.dumps(asdict(start)).encode() + b"\n")
        line = await asyncio.wait_for(child.stdout.readline(), 60)
        yield json.loads(line)["url"]
    finally:
        child.stdin.close()
        await asyncio.wait_for(child.wait(), 10)


async def call(catalog: ModelCatalog, name: str) -> tuple[str, Finished]:
    model = await catalog.resolve(name)
    request = ModelRequest(
        model.name, [user_input("Say hello.")], config=GenerationConfig(max_output_tokens=16, temperature=0)
    )
    text, last = "", None
    async for event in model.stream(request):
        text += event.text if isinstance(event, StepDelta) and event.kind == "text" else ""
        last = event
    assert isinstance(last, Finished)
    return text, last


async def test_a_real_server_answers_on_every_wire_it_speaks(server: str) -> None:
    tables = "".join(
        f'[providers.{name}]\nkind = "{kind}"\nbase_url = "{server}"\napi_key_env = "SMALL_KEY"\n'
        for name, kind in (("chat", "openai-chat"), ("responses", "openai-responses"), ("messages", "anthropic"))
    )
    settings = config.parse(OTHERS + tables + "[providers.llamacpp]\nenabled = false\n")
    catalog = ModelCatalog(settings, KeyRing(config.allowed_env(settings), {"SMALL_KEY": KEY}))
    try:
        said: dict[str, Any] = {}
        for name in ("chat", "responses", "messages"):
            text, last = await call(catalog, f"{name}/small")
            said[name] = text
            assert text.strip()
            assert last.reason in ("stop", "length")
            assert last.usage is not None
            assert (last.usage.output or 0) > 0
        assert len(set(said.values())) == 1, f"the same prompt, greedy: {said}"
        lines = await catalog.list(refresh=True)
        listed = [line.id for line in lines if line.available]
        assert listed == ["chat/small", "responses/small", "messages/small"], lines
    finally:
        await catalog.aclose()


async def test_a_real_server_is_found_with_the_window_it_was_started_with(server: str) -> None:
    text = f'{OTHERS}[providers.llamacpp]\nbase_url = "{server}"\n'
    settings = config.parse(text + 'api_key_env = "SMALL_KEY"\n')
    catalog = ModelCatalog(settings, KeyRing(config.allowed_env(settings), {"SMALL_KEY": KEY}))
    try:
        found = await catalog.resolve("auto")
        assert (found.label, found.context_window) == ("llamacpp/small", 1024)
    finally:
        await catalog.aclose()
    catalog = ModelCatalog(config.parse(text), KeyRing(own={}))
    try:
        with pytest.raises(KeyRefused):
            await call(catalog, "llamacpp/small")
        line = next(line for line in await catalog.list() if line.provider == "llamacpp")
        assert "it wants a key" in line.detail
    finally:
        await catalog.aclose()
