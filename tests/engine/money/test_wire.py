"""Over the true wire: providers that say nothing of usage, or nonsense, or one thing after another; retries count."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S
from interactd.config import Kind, parse
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Result
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.models.prices import Prices
from interactd.nouns import GenerationConfig
from interactd.store.sqlite import SqliteStore
from support.provider import FakeProvider, Fault, Raw, Reply, sse

pytestmark = pytest.mark.anyio
KINDS: tuple[Kind, ...] = ("openai-chat", "openai-responses", "anthropic", "gemini")
SHORT = GenerationConfig(max_output_tokens=100)


@asynccontextmanager
async def engine(folder: Path, provider: FakeProvider, kind: Kind = "openai-chat") -> AsyncGenerator[LocalEngine]:
    config = parse(
        f'[providers.fake]\nkind = "{kind}"\nbase_url = "{provider.base_url}"\nmodels = ["fake-model-1"]\n'
        '[prices."fake/fake-model-1"]\ninput = 1e6\noutput = 1e6\n[embedded]\nenabled = false\n'
    )
    catalog = ModelCatalog(config, KeyRing())
    made = LocalEngine(
        SqliteStore(folder / "a.db"), catalog, EngineSettings(), money=MoneySettings(Prices(config.prices))
    )
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


async def turn(one: LocalEngine, **more: Any) -> Result:
    session = await one.create_session(model="fake/fake-model-1", generation_config=SHORT)
    sent = await one.send_turn(session.id, "hello", **more)
    return await one.wait(sent.interaction.id, PATIENCE_S)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_provider_reports_is_what_a_call_cost(tmp_path: Path, kind: Kind) -> None:
    async with FakeProvider(default=Reply("Hi.", input_tokens=40, output_tokens=7)) as fake:
        async with engine(tmp_path, fake, kind) as one:
            result = await turn(one)
    assert result.cost is not None
    assert (result.cost["usd"], result.cost.get("unsure_usd")) == (47, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_provider_that_reports_nothing_is_taken_at_its_worst(tmp_path: Path, kind: Kind) -> None:
    async with FakeProvider(default=Reply("Hi.", usage=False)) as fake, engine(tmp_path, fake, kind) as one:
        result = await turn(one, budget={"usd": 10_000})
    assert result.interaction.status == "completed"
    assert result.cost is not None
    assert result.cost["unsure_usd"] == result.cost["usd"]
    assert 100 <= result.cost["usd"] < 1_000


def chat(*usages: dict[str, Any]) -> Raw:
    """A chat stream that reports usage more than once."""
    head = {"id": "c", "object": "chat.completion.chunk", "model": "fake-model-1"}
    parts = [sse({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi."}}]})]
    parts += [sse({**head, "choices": [], "usage": usage}) for usage in usages[:-1]]
    parts.append(sse({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    parts.append(sse({**head, "choices": [], "usage": usages[-1]}))
    return Raw([*parts, sse("[DONE]")])


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 5}, None),
        ({"prompt_tokens": 30, "completion_tokens": -1}, None),
        ({"prompt_tokens": "many", "completion_tokens": 5}, None),
        ({"prompt_tokens": 30, "completion_tokens": 10**18}, None),
        ({"prompt_tokens": 9e99, "completion_tokens": 5}, None),
        ({"prompt_tokens": 30, "completion_tokens": 5}, 35),
    ],
)
async def test_nonsense_is_not_believed(tmp_path: Path, usage: dict[str, Any], cost: float | None) -> None:
    async with FakeProvider(default=chat(usage)) as fake, engine(tmp_path, fake) as one:
        result = await turn(one)
    assert result.cost is not None
    assert ("unsure_usd" in result.cost) == (cost is None)
    assert result.cost["usd"] == cost if cost else 100 < result.cost["usd"] < 1_000


async def test_the_last_of_changing_figures_counts(tmp_path: Path) -> None:
    figures = [{"prompt_tokens": 30, "completion_tokens": n, "total_tokens": 30 + n} for n in (1, 50, 3)]
    async with FakeProvider(default=chat(*figures)) as fake, engine(tmp_path, fake) as one:
        result = await turn(one)
    assert result.cost is not None
    assert result.cost["usd"] == 33


async def test_a_call_that_is_made_again_after_a_lost_answer_is_paid_twice(tmp_path: Path) -> None:
    async with FakeProvider() as fake, engine(tmp_path, fake) as one:
        fake.script([Raw([b": nothing yet\n\n"], abort=True), Reply("Hi.", input_tokens=40, output_tokens=7)])
        result = await turn(one)
        assert len(fake.requests) == 2
    assert result.interaction.status == "completed"
    assert result.cost is not None
    assert result.cost["steps"] == 2
    assert result.cost["usd"] == result.cost["unsure_usd"] + 47


async def test_a_call_that_was_refused_and_made_again_is_paid_once(tmp_path: Path) -> None:
    async with FakeProvider() as fake, engine(tmp_path, fake) as one:
        fake.script([Fault(429, "slow", retry_after=0.01), Fault(503), Reply("Hi.", input_tokens=40, output_tokens=7)])
        result = await turn(one)
        assert len(fake.requests) == 3
    assert result.cost is not None
    assert (result.cost["usd"], result.cost["steps"], result.cost.get("unsure_usd")) == (47, 1, None)


async def test_no_retry_is_made_for_which_the_budget_has_no_room(tmp_path: Path) -> None:
    async with FakeProvider() as fake, engine(tmp_path, fake) as one:
        fake.script([Raw([b": nothing yet\n\n"], abort=True), Reply("Hi.")])
        result = await turn(one, budget={"steps": 1})
        assert len(fake.requests) == 1
    assert result.interaction.status == "budget_exceeded"


async def test_the_provider_is_told_how_long_the_answer_may_be(tmp_path: Path) -> None:
    async with FakeProvider(default=Reply("Hi.")) as fake, engine(tmp_path, fake) as one:
        session = await one.create_session(model="fake/fake-model-1")
        sent = await one.send_turn(session.id, "hello", budget={"usd": 500})
        await one.wait(sent.interaction.id, PATIENCE_S)
        asked = json.loads(fake.requests[0].body)
    assert 64 <= asked["max_tokens"] < 500
