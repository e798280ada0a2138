"""The list of tools is what hosts put into every prompt: its names, schemas and size are held here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

import interactd_tools
from interactd import paths
from interactd.errors import InvalidArgument
from interactd.models.embedded.weights.table import lookup
from interactd_tools import TOOLS, select
from interactd_tools.docs import estimate, render, size
from support.tokenizer import count

SNAPSHOT = Path(__file__).parent / "tools_list.json"
PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
MOST_TOKENS = 3500
MOST_BYTES = 14_000
NAMES = [
    "create_session",
    "send_turn",
    "run_agent_background",
    "get_interaction",
    "respond",
    "cancel_interaction",
    "fetch_artifacts",
    "list_sessions",
    "get_session",
    "fork_session",
    "delete_session",
    "search_history",
    "list_agents",
    "server_status",
]
ENVIRONMENTS = [
    "create_environment",
    "list_environments",
    "get_environment",
    "fork_environment",
    "delete_environment",
]
SCHEDULES = [
    "create_trigger",
    "list_triggers",
    "update_trigger",
    "run_trigger",
    "delete_trigger",
    "list_executions",
    "create_webhook",
    "list_webhooks",
    "update_webhook",
    "ping_webhook",
    "rotate_secret",
    "delete_webhook",
    "list_deliveries",
    "redeliver",
]

DATA = ["export_data", "import_data", "keep_session", "get_storage"]
MONEY = ["get_usage", "set_budget"]


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(inner, dict):
            yield from nodes(cast("dict[str, Any]", inner))


def test_the_names_are_fixed_and_so_is_their_order() -> None:
    assert [tool.name for tool in select()] == NAMES
    assert [tool.name for tool in select(["environments"])] == NAMES + ENVIRONMENTS
    assert [tool.name for tool in select(["schedules"])] == NAMES + SCHEDULES
    assert list(TOOLS) == NAMES + ENVIRONMENTS + SCHEDULES + DATA + MONEY


def test_the_list_is_the_snapshot_and_its_size_is_known() -> None:
    listed = [tool.as_dict() for tool in select(["all"])]
    assert {"bytes": size(select()), "tools": listed} == json.loads(SNAPSHOT.read_text()), (
        "run: python tests/tools/test_list.py"
    )


def test_the_list_is_small() -> None:
    assert size(select()) < MOST_BYTES
    assert estimate(size(select())) < MOST_TOKENS


@pytest.mark.parametrize("model", ["qwen2.5-coder-0.5b"])
def test_the_list_costs_less_than_3500_tokens_to_a_real_model(model: str) -> None:
    weights = paths.find().weights / lookup(model).file
    if not weights.exists():
        pytest.skip(f"needs the weights of {model}: interactd setup")
    compact = json.dumps([tool.as_dict() for tool in select()], ensure_ascii=False, separators=(",", ":"))
    assert count(compact, weights) < MOST_TOKENS


@pytest.mark.parametrize("name", NAMES + ENVIRONMENTS + SCHEDULES + DATA + MONEY)
def test_a_schema_has_nothing_that_a_host_refuses(name: str) -> None:
    schema = TOOLS[name].input_schema
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    allowed = {"type", "description", "enum", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength"}
    allowed |= {"default", "properties", "required", "items", "additionalProperties"}
    for node in nodes(schema):
        assert set(node) <= allowed, set(node) - allowed
        assert isinstance(node["type"], str)
    for field, inner in schema["properties"].items():
        assert re.fullmatch(r"[a-z_]{1,40}", field)
        assert len(inner.get("description", "")) <= 120


@pytest.mark.parametrize("name", NAMES + ENVIRONMENTS + SCHEDULES + DATA + MONEY)
def test_a_tool_says_what_when_and_what_next_in_little_room(name: str) -> None:
    tool = TOOLS[name].as_dict()
    assert re.fullmatch(r"[a-z_]{1,24}", name)
    assert 0 < len(tool["title"]) <= 40
    assert 80 < len(tool["description"].encode()) < 1500
    hints = tool["annotations"]
    assert set(hints) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    assert not (hints["readOnlyHint"] and hints["destructiveHint"])
    assert hints["readOnlyHint"] == name.startswith(("get_", "list_", "search_", "server_", "fetch_"))


def test_only_what_takes_away_is_destructive() -> None:
    takers = [name for name, tool in TOOLS.items() if tool.annotations.destructive]
    assert takers == ["cancel_interaction", "delete_session", "delete_environment", "delete_trigger", "delete_webhook"]


def test_an_unknown_toolset_is_refused_by_name() -> None:
    known = "core, data, environments, money, schedules, all"
    with pytest.raises(InvalidArgument, match=f"expected some of {known}, got 'sched"):
        select(["scheduels"])
    assert select() == interactd_tools.select(["core", ""])
    assert select(["all"]) == select(["schedules", "environments", "data", "money"]) == list(TOOLS.values())


def test_the_page_of_the_tools_is_made_from_them() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m interactd_tools.docs docs/tools.md"


if __name__ == "__main__":
    made = {"bytes": size(select()), "tools": [tool.as_dict() for tool in select(["all"])]}
    SNAPSHOT.write_text(json.dumps(made, indent=1) + "\n")
