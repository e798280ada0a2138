"""Thinking levels and settings: what is documented is what is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interactd.models.codecs import thinking
from interactd.nouns import THINKING_LEVELS, Step, user_input
from models.codecs.kit import Json, body, call, result

DOC = Path(__file__).resolve().parents[3] / "docs" / "thinking.md"
ASK = [user_input("x")]
ADD: Json = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


def sent(kind: str, provider: str, model: str, steps: list[Step] | None = None, tools: Any = (), **config: Any) -> Json:
    return body(kind, provider, model, steps or ASK, tools=list(tools), config=config)


def test_the_document_has_the_table_that_the_code_uses() -> None:
    inside = DOC.read_text().partition("<!-- levels: begin -->")[2].partition("<!-- levels: end -->")[0]
    assert inside.strip() == thinking.table().strip()


def rows(title: str) -> list[list[str]]:
    """The cells of one table of the document."""
    part = DOC.read_text().partition(f"### {title}")[2].partition("\n#")[0].partition("<!--")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_each_cell_of_the_document_is_what_a_request_carries() -> None:
    seen = 0
    cases: list[tuple[str, str, str, Callable[[Json], Any]]] = [
        ("OpenAI, Azure", "openai-chat", "openai", lambda made: made.get("reasoning_effort")),
        ("OpenAI, Azure", "openai-responses", "openai", lambda made: made.get("reasoning", {}).get("effort")),
        ("xAI", "openai-chat", "xai", lambda made: made.get("reasoning_effort")),
        ("OpenRouter", "openai-chat", "openrouter", lambda made: made.get("reasoning", {}).get("effort")),
        ("Ollama", "openai-chat", "ollama", lambda made: made.get("reasoning_effort")),
        (
            "Anthropic",
            "anthropic",
            "anthropic",
            lambda made: made.get("output_config", {}).get("effort") or made.get("thinking", {}).get("budget_tokens"),
        ),
        (
            "Gemini",
            "gemini",
            "gemini",
            lambda made: next(iter(made.get("generationConfig", {}).get("thinkingConfig", {}).values()), None),
        ),
    ]
    for title, kind, provider, where in cases:
        for _, example, *cells, _ in rows(title):
            for level, cell in zip(THINKING_LEVELS, cells, strict=True):
                got = where(sent(kind, provider, example, thinking_level=level))
                assert str(got) == (cell if cell != "-" else "None"), (title, example, level)
                seen += 1
    assert seen > 200


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-3-haiku-20240307", "Claude 3"),
        ("claude-3-5-haiku-latest", "Claude 3.5"),
        ("claude-3.5-sonnet", "Claude 3.5"),
        ("claude-3-7-sonnet-20250219", "Claude 3.7"),
        ("claude-opus-4-20250514", "Claude 4, 4.1"),
        ("claude-opus-4-1", "Claude 4, 4.1"),
        ("claude-sonnet-4-5-20250929", "Claude 4.5"),
        ("us.anthropic.claude-opus-4-6-v1:0", "Claude 4.6"),
        ("claude-opus-4-7", "Claude 4.7, 4.8"),
        ("claude-sonnet-5", "Claude 5"),
        ("claude-fable-5", "Claude Fable 5, Mythos 5"),
        ("claude-mythos-preview", "Claude Fable 5, Mythos 5"),
        ("claude-fable-5-1", "Claude 5.1 and later"),
        ("claude-haiku-5-5", "Claude 5.1 and later"),
        ("claude-sonnet-9", "Claude 5.1 and later"),
        ("qwen3-30b", "not a Claude"),
    ],
)
def test_a_claude_is_known_by_its_name(model: str, name: str) -> None:
    assert thinking.claude(model).name == name


def test_a_thinking_budget_is_always_below_max_tokens() -> None:
    for limit in (None, 1, 1024, 1025, 1500, 4096, 20000, 60000):
        for level in THINKING_LEVELS:
            made = sent("anthropic", "anthropic", "claude-sonnet-4-5", thinking_level=level, max_output_tokens=limit)
            if limit is not None:
                assert made["max_tokens"] == limit
            if "thinking" in made:
                assert 1024 <= made["thinking"]["budget_tokens"] < made["max_tokens"]
            else:
                assert limit is not None
                assert limit <= 1024


def test_a_budget_is_not_asked_for_where_the_model_would_refuse_it() -> None:
    forced = sent("anthropic", "anthropic", "claude-sonnet-4-5", tools=[ADD], thinking_level="high", tool_choice="any")
    assert "thinking" not in forced
    assert forced["tool_choice"] == {"type": "any"}
    middle = [*ASK, call("c1", "add"), result("c1", "1")]
    assert "thinking" not in sent("anthropic", "anthropic", "claude-sonnet-4-5", middle, [ADD], thinking_level="high")
    block = {"type": "thinking", "thinking": "t", "signature": "s"}
    own = Step("thought", {"summary": []}, {"provider": "anthropic", "model": "m", "block": block})
    kept = [*ASK, own, call("c1", "add"), result("c1", "1")]
    assert "thinking" in sent("anthropic", "anthropic", "claude-sonnet-4-5", kept, [ADD], thinking_level="high")


def test_newer_claudes_drop_thoughts_whose_conversation_changed_instead_of_the_turn() -> None:
    made = sent("anthropic", "anthropic", "claude-opus-5-5", tools=[ADD], tool_choice="any", temperature=0.5)
    assert made["thinking"] == {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
    assert made["tool_choice"] == {"type": "auto"}
    assert "temperature" not in made


@pytest.mark.parametrize(
    ("kind", "provider", "model", "level", "kept"),
    [
        ("openai-chat", "openai", "gpt-4o", None, True),
        ("openai-chat", "openai", "o3", None, False),
        ("openai-chat", "openai", "gpt-5.1", None, True),
        ("openai-chat", "openai", "gpt-5.1", "low", False),
        ("openai-responses", "openai", "gpt-5.5", None, False),
        ("openai-responses", "openai", "gpt-4.1", None, True),
        ("openai-chat", "ollama", "qwen3", "high", True),
        ("anthropic", "anthropic", "claude-haiku-4-5", None, True),
        ("anthropic", "anthropic", "claude-haiku-4-5", "low", False),
        ("anthropic", "anthropic", "claude-opus-4-8", None, False),
        ("gemini", "gemini", "gemini-3-pro-preview", "high", True),
    ],
)
def test_sampling_is_left_out_where_a_model_refuses_it(
    kind: str, provider: str, model: str, level: Any, kept: bool
) -> None:
    made = sent(kind, provider, model, thinking_level=level, temperature=0.3)
    assert ("temperature" in (made.get("generationConfig", {}) if kind == "gemini" else made)) is kept


def test_summaries_are_asked_for_in_each_wires_words() -> None:
    assert sent("openai-responses", "openai", "gpt-5", thinking_summaries="auto")["reasoning"] == {"summary": "auto"}
    assert "reasoning" not in sent("openai-responses", "openai", "gpt-4o", thinking_summaries="auto")
    adaptive = sent("anthropic", "anthropic", "claude-opus-5", thinking_level="low", thinking_summaries="auto")
    assert adaptive["thinking"] == {"type": "adaptive", "display": "summarized"}
    quiet = sent("gemini", "gemini", "gemini-2.5-flash", thinking_summaries="none")
    assert quiet["generationConfig"]["thinkingConfig"] == {"includeThoughts": False}
    assert "generationConfig" not in sent("gemini", "gemini", "gemini-2.0-flash", thinking_summaries="auto")
    assert sent("openai-chat", "openrouter", "x/y", thinking_summaries="none")["reasoning"] == {"exclude": True}


def test_every_other_setting_has_its_place() -> None:
    config: Json = {"max_output_tokens": 99, "seed": 7, "stop_sequences": ["END"], "top_p": 0.9}
    assert (
        sent("openai-chat", "openai", "gpt-4o", **config).items()
        >= {
            "max_completion_tokens": 99,
            "seed": 7,
            "stop": ["END"],
            "top_p": 0.9,
        }.items()
    )
    assert sent("openai-chat", "ollama", "llama3", **config)["max_tokens"] == 99
    assert sent("openai-chat", "mistral", "mistral-large", **config)["random_seed"] == 7
    assert sent("openai-responses", "openai", "gpt-4o", **config)["max_output_tokens"] == 99
    assert sent("anthropic", "anthropic", "claude-haiku-4-5", **config)["stop_sequences"] == ["END"]
    assert sent("gemini", "gemini", "gemini-2.0-flash", **config)["generationConfig"] == {
        "maxOutputTokens": 99,
        "seed": 7,
        "stopSequences": ["END"],
        "topP": 0.9,
    }
