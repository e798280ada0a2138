from __future__ import annotations

from typing import Any, cast

import pytest

from interactd.engine.checks.arguments import (
    check_config,
    check_key,
    check_labels,
    check_limit,
    check_tools,
    check_ttl,
)
from interactd.errors import InvalidArgument
from interactd.nouns import GenerationConfig


def test_tools_come_out_sorted_and_complete() -> None:
    tools = check_tools([{"type": "function", "name": "b"}, {"name": "a", "description": "x", "parameters": {}}])
    assert tools == [
        {"type": "function", "name": "a", "description": "x", "parameters": {"type": "object"}},
        {"type": "function", "name": "b", "parameters": {"type": "object", "properties": {}}},
    ]


def test_the_chat_completions_nesting_is_understood() -> None:
    assert check_tools([{"type": "function", "function": {"name": "f"}}])[0]["name"] == "f"


@pytest.mark.parametrize(
    "tools",
    [
        {},
        "f",
        ["f"],
        [{}],
        [{"name": ""}],
        [{"name": "a b"}],
        [{"name": "1a"}],
        [{"name": "a" * 65}],
        [{"name": 3}],
        [{"name": "f"}, {"name": "f"}],
        [{"name": "f", "parameters": []}],
        [{"name": "f", "parameters": {"type": "string"}}],
        [{"name": "f", "parameters": {"type": "object", "properties": []}}],
        [{"name": "f", "description": "\ud800"}],
        [{"name": "f", "parameters": {"type": "object", "description": "\x00"}}],
        [{"name": "f", "paramters": {}}],
        [{"type": "google_search"}],
        [{"name": f"f{n}"} for n in range(129)],
        [{"name": "f", "description": "x", "parameters": {"type": "object", "x": "y" * 2_000_000}}],
    ],
)
def test_a_tool_that_no_provider_would_take_is_refused(tools: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_tools(tools)
    assert caught.value.fields["field"].startswith("tools")


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(2_000):
        schema = {"type": "object", "properties": {"x": schema}}
    with pytest.raises(InvalidArgument, match="nested"):
        check_tools([{"name": "f", "parameters": schema}])


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"temperature": True},
        {"top_p": 1.5},
        {"seed": 1.5},
        {"seed": 2**40},
        {"max_output_tokens": 0},
        {"max_output_tokens": 10.0},
        {"stop_sequences": "x"},
        {"stop_sequences": [""]},
        {"stop_sequences": ["x"] * 17},
        {"stop_sequences": ["\ud800"]},
        {"thinking_level": "extreme"},
        {"thinking_summaries": "yes"},
        {"tool_choice": "required"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(config: dict[str, Any]) -> None:
    (name,) = config
    with pytest.raises(InvalidArgument, match=f"generation_config.{name}"):
        check_config(GenerationConfig(**config))


def test_settings_in_range_pass() -> None:
    config = GenerationConfig("high", "auto", 0.5, 1.0, 7, 100, ["END"], "any")
    assert check_config(config) == config
    assert check_config(None) == GenerationConfig()


@pytest.mark.parametrize(
    "labels",
    [
        [],
        {"A": "x"},
        {"1a": "x"},
        {"a" * 64: "x"},
        {"a": "X"},
        {"a": "x" * 64},
        {"a": 1},
        {"a": "ü"},
        {3: "x"},
        {"": ""},
        {f"a{n}": "x" for n in range(65)},
    ],
)
def test_labels_follow_the_interactions_api(labels: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_labels(labels)


def test_legal_labels_pass() -> None:
    assert check_labels({"team-1": "blue_2", "empty": ""}) == {"team-1": "blue_2", "empty": ""}
    assert check_labels(None) == {}


def test_a_time_to_live_has_bounds_a_default_and_for_ever() -> None:
    assert check_ttl(None, 60) == 60
    assert check_ttl(0, 60) is None
    assert check_ttl(1, 60) == 1
    for wrong in (-1, 0.5, 1e12, float("nan"), float("inf"), True, "1h"):
        with pytest.raises(InvalidArgument):
            check_ttl(wrong, 60)


def test_a_digest_depends_on_every_argument_and_on_no_order() -> None:
    def digest(**arguments: Any) -> str:
        key = check_key("k", "me", **arguments)
        assert key is not None
        return key.digest

    one = digest(a=1, b={"x": 1, "y": [GenerationConfig(seed=1)]})
    assert one == digest(b={"y": [GenerationConfig(seed=1)], "x": 1}, a=1)
    assert one != digest(a=1, b={"x": 1, "y": [GenerationConfig(seed=2)]})
    assert check_key(None, "me", a=1) is None


@pytest.mark.parametrize("key", ["", " ", "k" * 256, 3, "\ud800", "a\x00"])
def test_a_key_that_cannot_be_kept_is_refused(key: Any) -> None:
    with pytest.raises(InvalidArgument, match="idempotency_key"):
        check_key(key, "me")


def test_limits_are_whole_numbers_in_range() -> None:
    assert check_limit(5, 10) == 5
    for wrong in (0, 11, -1, True, 1.0, "5", None):
        with pytest.raises(InvalidArgument):
            check_limit(cast("Any", wrong), 10)
