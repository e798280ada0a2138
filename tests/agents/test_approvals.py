"""What an agent has to ask before doing: in its entries of tools, as a whole, and in what builds on it."""

from __future__ import annotations

import pytest

from interactd.approvals import Layer, decide, parse
from interactd.errors import BadManifest
from support.agent_folders import Home

WRONG = [
    ("tools:\n  - {type: code_execution, policy: maybe}", 4, "tools[0].policy"),
    ("tools:\n  - type: files\n    rules: [{decision: no}]", 5, "tools[0].rules[0].decision"),
    ("tools:\n  - type: files\n    policy: always_ask\n    rules: [{decision: allow}]", 5, "tools[0].policy"),
    ("tools:\n  - {type: function, name: f, policy: always_ask}", 4, "tools[0].policy"),
    ("approvals: sometimes", 3, "approvals"),
    ("approvals:\n  tools:\n    code_exection: always_ask", 5, "approvals.tools.code_exection"),
    ("approvals:\n  rules:\n    - {decision: allow, command: '('}", 5, "approvals.rules[0].command"),
    ("approvals:\n  deadline_s: never", 4, "approvals.deadline_s"),
]


def decisions(home: Home, agent: str, **calls: tuple[str, ...]) -> dict[str, str]:
    layers = [Layer("agent", parse(kept)) for kept in home.resolve(agent).approvals]
    return {name: decide(layers, names, {}, read_only=False).decision for name, names in calls.items()}


CODE = {"code": ("code_execution",), "write": ("write_file", "files"), "fetch": ("url_fetch",)}


@pytest.mark.parametrize(("written", "line", "field"), WRONG)
def test_a_wrong_policy_is_told_with_file_line_and_field(home: Home, written: str, line: int, field: str) -> None:
    home.config_agent("wrong", written)
    with pytest.raises(BadManifest) as told:
        home.resolve("wrong")
    assert (told.value.fields["line"], told.value.fields["field"]) == (line, field), told.value.fields["problems"]


def test_an_agent_without_a_word_about_it_asks_nothing(home: Home) -> None:
    home.config_agent("plain")
    assert home.resolve("plain").approvals == ()


def test_entries_of_tools_have_policies_of_their_own(home: Home) -> None:
    home.config_agent(
        "careful",
        "tools:\n  - {type: code_execution, policy: always_ask}\n  - files\n"
        "  - {type: url_fetch, policy: always_allow}",
    )
    assert decisions(home, "careful", **CODE) == {"code": "ask", "write": "allow", "fetch": "allow"}


def test_rules_of_an_entry_are_for_its_tool_alone(home: Home) -> None:
    home.config_agent(
        "ruled",
        "tools:\n  - code_execution\n  - url_fetch\n  - type: files\n    rules: [{paths: 'a/**', decision: allow}]",
    )
    layers = [Layer("agent", parse(kept)) for kept in home.resolve("ruled").approvals]

    def said(*names: str, **arguments: str) -> str:
        return decide(layers, names, arguments, read_only=False).decision

    assert said("write_file", "files", path="a/b") == "allow"
    assert said("write_file", "files", path="b") == "ask"
    assert said("code_execution", code="x") == "allow"


def test_an_entrys_policy_goes_before_the_agents_whole(home: Home) -> None:
    tools = "tools:\n  - {type: files, policy: always_allow}\n  - code_execution\n"
    home.config_agent("both", f"{tools}approvals: always_ask")
    assert decisions(home, "both", **CODE) == {"code": "ask", "write": "allow", "fetch": "ask"}


def test_an_heir_of_the_users_replaces_what_it_says_and_inherits_the_rest(home: Home) -> None:
    home.config_agent("base", "tools:\n  - {type: code_execution, policy: always_ask}\n  - files\napprovals: auto")
    home.config_agent("same", "base_agent: base")
    home.config_agent("other", "base_agent: base\napprovals: always_allow")
    home.config_agent("tooled", "base_agent: base\ntools: [code_execution, files]\napprovals: always_allow")
    assert decisions(home, "same", **CODE)["write"] == "ask"
    assert decisions(home, "other", **CODE) == {"code": "ask", "write": "allow", "fetch": "allow"}
    assert decisions(home, "tooled", **CODE)["code"] == "allow"


def test_what_a_project_brings_only_makes_it_stricter(home: Home) -> None:
    home.project_agent("loose", "base_agent: antigravity\ntools: [code_execution]\napprovals: always_allow")
    home.project_agent("tight", "base_agent: antigravity\napprovals: always_ask")
    assert decisions(home, "loose", **CODE)["code"] == "allow"
    assert decisions(home, "tight", **CODE)["code"] == "ask"
    home.config_agent("antigravity", "shadows: true\nbase_agent: antigravity\napprovals: always_ask")
    assert decisions(home, "antigravity", **CODE)["code"] == "ask"


def test_a_kept_copy_asks_as_its_folder_did(home: Home) -> None:
    home.config_agent("kept", "approvals: {policy: always_ask, deadline_s: 60}")
    first = home.resolve("kept")
    home.config_agent("kept", "approvals: always_allow")
    assert (
        home.resolve("kept", pinned=first.hash).approvals
        == first.approvals
        == ({"policy": "always_ask", "deadline_s": 60.0},)
    )
