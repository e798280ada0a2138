"""Prices: where they come from, and what calls cost at them, to the nano-dollar and never less."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd.config.schema import Price as Override
from interactd.models.prices import Price, Prices, Rates, nano
from interactd.nouns import NANO, Usage

TIERED = Price(Rates(2 * NANO, 10 * NANO, NANO // 5), "test", tiers=((200_000, Rates(4 * NANO, 15 * NANO, NANO)),))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("provider", "model", "base_url", "source"),
    [
        ("anthropic", "claude-sonnet-5", None, "genai-prices"),
        ("openai", "gpt-5.5", "https://api.openai.com", "genai-prices"),
        ("openai", "gpt-5.5", "https://api.openai.com/v1", "genai-prices"),
        ("gemini", "gemini-3.5-flash", None, "genai-prices"),
        ("mine", "deepseek-chat", "https://api.deepseek.com", "genai-prices"),
        ("mine", "anthropic/claude-sonnet-4", "https://openrouter.ai/api/v1", "genai-prices"),
        ("openai", "gpt-5.5", "https://gateway.example.com/v1", None),
        ("openai", "gpt-5.5", "https://api.openai.com.example.com", None),
        ("openai", "no-such-model", None, None),
        ("mine", "gpt-5.5", "https://gateway.example.com", None),
        ("mine", "gpt-5.5", None, None),
        ("ollama", "qwen3:8b", "http://127.0.0.1:11434", "local"),
        ("lmstudio", "x", "http://localhost:1234", "local"),
        ("vllm", "x", "http://10.0.0.5:8000", None),
        ("embedded", "qwen", None, "local"),
    ],
)
async def test_who_sends_the_bill_decides(provider: str, model: str, base_url: str | None, source: str | None) -> None:
    price = await Prices().of(provider, model, base_url)
    assert (price is None) == (source is None)
    if price is not None and source is not None:
        assert price.source.startswith(source)
        assert (price.date is not None) == (source == "genai-prices")
        assert price.free == (source == "local")


@pytest.mark.anyio
async def test_the_users_own_figures_come_first_also_for_a_whole_provider() -> None:
    one = Prices({"ollama": Override(input=1, output=2), "ollama/Big": Override(input=3, output=4, cached=0.5)})
    whole = await one.of("ollama", "small", "http://127.0.0.1:11434")
    assert whole is not None
    assert whole.as_dict() == {"usd_per_million": {"input": 1.0, "output": 2.0}, "source": "config"}
    big = await one.of("ollama", "big", None)
    assert big is not None
    assert big.rates == Rates(3 * NANO, 4 * NANO, NANO // 2)


def test_thoughts_caches_and_tools_are_charged_as_what_they_are() -> None:
    price = Price(Rates(2 * NANO, 10 * NANO, NANO // 5, 3 * NANO), "test")
    usage = Usage(input=1_000, output=100, thought=50, cached=400, cache_write=100, tool_use=10)
    assert price.cost(usage) == 510 * 2_000 + 400 * 200 + 100 * 3_000 + 150 * 10_000
    plain = Price(Rates(2 * NANO, 10 * NANO), "test")
    assert plain.cost(usage) == 1_010 * 2_000 + 150 * 10_000, "without a figure of their own they are input"


def test_a_long_request_is_charged_at_its_tier_as_a_whole() -> None:
    assert TIERED.cost(Usage(input=200_000, output=10)) == 200_000 * 2_000 + 10 * 10_000
    assert TIERED.cost(Usage(input=200_001, output=10)) == 200_001 * 4_000 + 10 * 15_000
    assert TIERED.most(200_001, 10) == 200_001 * 4_000 + 10 * 15_000


def test_amounts_are_rounded_up() -> None:
    assert nano(Decimal("0.0000000001")) == 1
    assert Price(Rates(1, 1), "test").cost(Usage(input=1, output=0)) == 1
    assert Price(Rates(0, 0), "test", per_call=5).cost(Usage()) == 5


TOKENS = st.integers(0, 2_000_000)
FIGURES = st.integers(0, 100 * NANO)


@given(
    given=TOKENS, made=TOKENS, thought=TOKENS, cached=TOKENS, written=TOKENS,
    rates=st.tuples(FIGURES, FIGURES, st.none() | FIGURES, st.none() | FIGURES),
    tier=st.none() | st.tuples(TOKENS, FIGURES, FIGURES), left=st.integers(0, 10**13), slack=st.integers(0, 1_000),
)  # fmt: skip
def test_nothing_costs_more_than_its_worst(
    given: int, made: int, thought: int, cached: int, written: int,
    rates: tuple[int, int, int | None, int | None], tier: tuple[int, int, int] | None, left: int, slack: int,
) -> None:  # fmt: skip
    price = Price(Rates(*rates), "test", tiers=() if tier is None else ((tier[0], Rates(*tier[1:])),))
    usage = Usage(input=given, output=made, thought=thought, cached=cached, cache_write=written)
    assert price.cost(usage) <= price.most(given + slack, made + thought + slack)
    fits = price.output_for(given, left)
    if fits >= 0:
        assert price.most(given, min(fits, 10**9)) <= left
