"""base_agent: what an heir adds, replaces and cannot do."""

from __future__ import annotations

import json

import pytest

from interactd.errors import BadManifest
from support.agent_folders import Home, skill

BASE = """
model: openai/base
tools: [code_execution, {type: function, name: ask}]
generation_config: {temperature: 0.1, seed: 1}
environment:
  sources: [{type: inline, target: a, content: base}]
  env: {A: base, B: base}
  network: {allowlist: [base.org]}
  limits: {memory_mb: 256, pids: 64}
requires: {filesystem: enforced, network: enforced}
limits: {steps: 10, seconds: 100}
budget: {usd: 5, tokens: 1000, turn: {usd: 1, steps: 9}}
"""


def test_an_heir_has_all_that_it_does_not_change(home: Home) -> None:
    home.config_agent("base", BASE, "Base.")
    home.config_agent("heir", "base_agent: base", "")
    base, heir = home.resolve("base"), home.resolve("heir")
    for name in ("model", "tools", "functions", "generation_config", "environment", "requires", "limits", "budget"):
        assert getattr(heir, name) == getattr(base, name), name
    assert (heir.id, heir.base_agent, heir.instructions) == ("heir", "base", "Base.")
    assert heir.hash != base.hash


def test_what_an_heir_says_goes_over_its_base(home: Home) -> None:
    home.config_agent("base", BASE, "Base.")
    home.config_agent(
        "heir",
        """
        base_agent: base
        model: openai/heir
        tools: [files]
        generation_config: {temperature: 0.9}
        environment:
          sources: [{type: inline, target: b, content: heir}]
          env: {B: heir, C: heir}
          network: disabled
          limits: {pids: 128}
        requires: {memory: enforced}
        limits: {steps: 20}
        budget: {usd: 7, turn: {steps: 3}}
        """,
        "Heir.",
    )
    heir = home.resolve("heir")
    assert heir.instructions == "Base.\n\nHeir."
    assert (heir.model, heir.tools, heir.functions) == ("openai/heir", ("files",), ())
    assert heir.generation_config.as_dict() == {"temperature": 0.9, "seed": 1}
    assert heir.budget == {"usd": 7, "tokens": 1000, "turn": {"usd": 1, "steps": 3}}
    assert heir.environment == {
        "sources": [
            {"type": "inline", "target": "a", "content": "base"},
            {"type": "inline", "target": "b", "content": "heir"},
        ],
        "env": {"A": "base", "B": "heir", "C": "heir"},
        "network": "disabled",
        "limits": {"memory_mb": 256, "pids": 128},
    }
    assert heir.requires == {"filesystem": "enforced", "network": "enforced", "memory": "enforced"}
    assert (heir.limits.steps, heir.limits.seconds) == (20, 100)


def test_skills_files_and_hooks_are_merged_into_one_folder(home: Home) -> None:
    base = home.config_agent("base", "", "Base.")
    skill(base, "one")
    skill(base, "two")
    (base / "skills" / "two" / "old.py").write_text("old")
    (base / "hooks.json").write_text('{"a": {"enabled": true}, "b": {"enabled": true}}')
    (base / "sources").mkdir()
    (base / "sources" / "data.csv").write_text("base")
    (base / "sources" / "thing").write_text("a file")
    heir = home.config_agent("heir", "base_agent: base", "Heir.")
    skill(heir, "two", "---\nname: two\ndescription: New.\n---\nNew.\n")
    skill(heir, "three")
    (heir / "hooks.json").write_text('{"b": {"enabled": false}}')
    (heir / "sources" / "thing").mkdir(parents=True)
    (heir / "sources" / "thing" / "inside").write_text("now a folder")
    found = home.resolve("heir")
    assert [(each.name, each.description) for each in found.skills] == [
        ("one", "Use it for one."),
        ("three", "Use it for three."),
        ("two", "New."),
    ]
    assert not (found.folder / "skills" / "two" / "old.py").exists()
    assert found.hooks == {"a": {"enabled": True}, "b": {"enabled": False}}
    assert json.loads((found.folder / "hooks.json").read_text()) == found.hooks
    assert (found.folder / "sources" / "data.csv").read_text() == "base"
    assert (found.folder / "sources" / "thing" / "inside").read_text() == "now a folder"
    assert (found.folder / "AGENTS.md").read_text() == "Base.\n\nHeir.\n"
    assert found.environment["sources"] == [
        {"type": "local", "source": str(found.folder / "sources"), "target": "/workspace", "mode": "copy"}
    ]


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_circle_is_found(home: Home, length: int) -> None:
    for number in range(length):
        home.config_agent(f"a{number}", f"base_agent: a{(number + 1) % length}")
    home.config_agent("outside", "base_agent: a0")
    with pytest.raises(BadManifest, match="is a circle: a0 -> a1 -> ") as told:
        home.resolve("a0")
    assert (told.value.fields["line"], told.value.fields["field"]) == (3, "base_agent")
    with pytest.raises(BadManifest, match="is a circle"):
        home.resolve("outside")
    assert len(home.list()[0]) == 1


def test_an_agent_is_not_its_own_base(home: Home) -> None:
    home.config_agent("self", "base_agent: self")
    with pytest.raises(BadManifest, match="is the agent itself"):
        home.resolve("self")


def test_bases_are_not_endless(home: Home) -> None:
    home.config_agent("a0")
    for number in range(1, 12):
        home.config_agent(f"a{number}", f"base_agent: a{number - 1}")
    assert len(home.resolve("a8").layers) == 9
    with pytest.raises(BadManifest, match="at most 8 bases"):
        home.resolve("a9")


def test_a_base_that_is_not_there_gets_a_suggestion(home: Home) -> None:
    home.config_agent("heir", "base_agent: antigravty")
    with pytest.raises(BadManifest, match="got 'antigravty'; did you mean 'antigravity'"):
        home.resolve("heir")


def test_the_users_agents_do_not_build_on_a_projects(home: Home) -> None:
    home.project_agent("ours")
    home.config_agent("heir", "base_agent: ours")
    with pytest.raises(BadManifest, match="expected a built-in agent or one of the config folder"):
        home.resolve("heir")


def test_a_broken_base_is_told_at_the_heir_and_at_itself(home: Home) -> None:
    base = home.config_agent("base", "limits: {steps: 0}")
    heir = home.config_agent("heir", "base_agent: base")
    with pytest.raises(BadManifest) as told:
        home.resolve("heir")
    assert told.value.fields["file"] == str(heir / "agent.yaml")
    assert any(str(base / "agent.yaml") in each for each in told.value.fields["problems"])


def test_an_agent_without_base_needs_instructions(home: Home) -> None:
    home.config_agent("silent", instructions="")
    with pytest.raises(BadManifest, match=r"AGENTS\.md: is missing"):
        home.resolve("silent")


def test_a_dated_id_is_a_base_too(home: Home) -> None:
    home.config_agent("heir", "base_agent: antigravity-preview-09-2026")
    assert home.resolve("heir").layers[0].id == "antigravity"


def test_a_projects_heir_may_lower_its_bases_budget_and_not_raise_it(home: Home) -> None:
    home.project_agent("base", "budget: {usd: 5, tokens: 1000, turn: {usd: 1}}")
    home.project_agent(
        "heir", "base_agent: base\nbudget: {usd: 100, tokens: 10, seconds: 60, turn: {usd: 9, steps: 2}}"
    )
    assert home.resolve("heir").budget == {
        "usd": 5,
        "tokens": 10,
        "seconds": 60,
        "turn": {"usd": 1, "steps": 2},
    }
