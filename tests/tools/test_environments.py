"""Environments over the tools: a set of its own, off until it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

import interactd_tools
from tools.conftest import AgentWorld, fields

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {
    "sources": [{"type": "inline", "target": "data/in.txt", "content": "given"}],
    "env": {"TOKEN_OF_MINE": "do-not-show"},
    "limits": {"memory_mb": 256},
}


async def made(agents: AgentWorld, **more: Any) -> str:
    return fields(await agents.ok("create_environment", **{**BODY, **more}))["environment_id"]


async def test_the_set_is_off_until_it_is_asked_for(agents: AgentWorld) -> None:
    result = await interactd_tools.call("create_environment", {}, agents.context())
    assert result.text.startswith("unknown_tool: there is no tool create_environment.")
    result = await interactd_tools.call("create_environment", {}, agents.context(), toolsets=["environments"])
    assert not result.is_error


async def test_one_is_made_shown_used_and_its_values_are_not_shown(agents: AgentWorld) -> None:
    result = await agents.ok("create_environment", **BODY, network=["example.org", "*.example.com"])
    one = fields(result)["environment_id"]
    assert result.text.startswith(f"active · environment {one}")
    assert "Network: example.org, *.example.com" in result.text
    assert f'Next: run_agent_background(environment="{one}", input="...")' in result.text
    shown = await agents.ok("get_environment", environment_id=one[:18])
    for part in ("- inline at ", "TOKEN_OF_MINE", '"memory_mb": 256', '- "data"/', "Kept until "):
        assert part in shown.text
    assert "do-not-show" not in shown.text + str(shown.structured) + result.text
    inside = await agents.ok("get_environment", environment_id=one, path="data")
    assert '- "data/in.txt" · 5 bytes' in inside.text
    deep = await agents.ok("get_environment", environment_id=one, recursive=True)
    assert "data/in.txt" in deep.text
    done = await agents.run("print(open('data/in.txt').read()); open('new', 'w').write('n')", environment=one)
    assert done["environment_id"] == one
    assert '- "new" · 1 byte' in (await agents.ok("get_environment", environment_id=one)).text


async def test_they_are_listed_last_used_first_page_by_page(agents: AgentWorld) -> None:
    assert "No environments." in (await agents.ok("list_environments")).text
    ids = [await made(agents) for _ in range(5)]
    seen: list[str] = []
    arguments: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = await agents.ok("list_environments", **arguments)
        seen += fields(page)["environments"]
        arguments["cursor"] = fields(page)["cursor"]
        if arguments["cursor"]:
            assert f'list_environments(limit=2, cursor="{arguments["cursor"]}")' in page.text
    assert seen == ids[::-1]
    assert arguments["cursor"] is None
    assert "network off" in (await agents.ok("list_environments")).text


async def test_a_fork_is_a_copy_of_its_own(agents: AgentWorld) -> None:
    one = await made(agents)
    forked = await agents.ok("fork_environment", environment_id=one)
    copy = fields(forked)["environment_id"]
    assert f"Forked from {one}." in forked.text
    await agents.run("open('data/in.txt', 'w').write('changed it')", environment=copy)
    assert '"data/in.txt" · 5 bytes' in (await agents.ok("get_environment", environment_id=one, path="data")).text
    assert '"data/in.txt" · 10 bytes' in (await agents.ok("get_environment", environment_id=copy, path="data")).text


async def test_one_is_deleted_with_a_receipt_and_stays_deleted(agents: AgentWorld) -> None:
    one = await made(agents)
    gone = await agents.ok("delete_environment", environment_id=one)
    assert gone.text.startswith(f"deleted · environment {one} · receipt rcp_")
    assert "Removed: 1 file, " in gone.text
    assert fields(gone)["removed"]["files"] == 1
    again = fields(await agents.ok("delete_environment", environment_id=one))
    assert again["receipt_id"] == fields(gone)["receipt_id"]
    for name in ("get_environment", "fork_environment"):
        result = await agents.call(name, {"environment_id": one})
        assert result.is_error
        assert result.text.startswith("deleted: ")
        assert "list those there are" in result.text


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("create_environment", {"network": 7}, "network: expected an object {allowlist: [{domain}]}, a list of dom"),
        ("create_environment", {"network": {"allowlist": [{"domian": "a"}]}}, "network"),
        ("create_environment", {"network": ["http://[x"]}, "network"),
        ("create_environment", {"sources": [{"type": "gopher"}]}, "sources"),
        ("create_environment", {"sources": [{"type": "inline", "target": "../../x", "content": "a"}]}, "sources"),
        ("create_environment", {"sources": "x"}, "sources: expected a list"),
        ("create_environment", {"env": {"A": 7.5}}, "env"),
        ("create_environment", {"env": {"A B": "x"}}, "env"),
        ("create_environment", {"env": {"A": {"credential": "nope"}}}, "nope"),
        ("create_environment", {"limits": {"memory": 1}}, "memory"),
        ("create_environment", {"limits": {"memory_mb": -1}}, "memory_mb"),
        (
            "get_environment",
            {"environment_id": "ses_01"},
            "environment_id: expected an environment id (env_...), got a",
        ),
        ("get_environment", {"environment_id": "env_" + "0" * 26}, "env_" + "0" * 26),
        ("get_environment", {"environment_id": "!"}, "environment_id: expected"),
        ("get_environment", {}, "environment_id: expected an environment id (env_...), got nothing"),
        ("list_environments", {"limit": 0}, "limit: expected a whole number from 1 to 200, got 0"),
        ("delete_environment", {"env": "env_1"}, "env: no such argument"),
    ],
)
async def test_wrong_ones_are_refused_in_words_and_nothing_is_made(
    agents: AgentWorld, name: str, arguments: dict[str, Any], said: str
) -> None:
    result = await agents.call(name, arguments)
    assert result.is_error
    assert said in result.text
    assert result.text.isprintable()
    assert "Next:" in result.text or "." in result.text
    assert fields(await agents.ok("list_environments"))["environments"] == []


@pytest.mark.parametrize("path", ["../..", "/etc", "nothing/here", "data/in.txt", "data/../../..", "\x1b", "a\nb"])
async def test_a_path_never_leaves_the_workspace(agents: AgentWorld, path: str) -> None:
    one = await made(agents)
    result = await agents.call("get_environment", {"environment_id": one, "path": path})
    assert "passwd" not in result.text
    assert "root" not in result.text
    assert result.is_error or '"data/in.txt"' in result.text
