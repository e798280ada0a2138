"""What policies say about a call, and which of several holds."""

from __future__ import annotations

from typing import Any

import pytest

from interactd.approvals import Layer, Malformed, clean, decide, parse
from interactd.approvals.matching import MAX_TEXT
from interactd.approvals.shape import MAX_RULES

ALLOW_ALL = {"decision": "allow"}


def said(policy: Any, tool: str = "code_execution", *, read_only: bool = False, **arguments: Any) -> str:
    kept = clean(policy)
    layers = [] if kept is None else [Layer("the session", parse(kept))]
    groups = {"write_file": "files", "view_file": "files"}
    names = [tool, *([groups[tool]] if tool in groups else [])]
    return decide(layers, names, arguments, read_only=read_only).decision


@pytest.mark.parametrize(
    ("policy", "decision"),
    [
        (None, "allow"),
        ({}, "allow"),
        ("always_allow", "allow"),
        ("always_ask", "ask"),
        ("auto", "ask"),
        ({"tools": {"code_execution": "always_ask"}}, "ask"),
        ({"tools": {"files": "always_ask"}}, "allow"),
        ({"policy": "always_ask", "tools": {"code_execution": "always_allow"}}, "allow"),
        ({"policy": "always_allow", "tools": {"code_*": "always_ask"}}, "ask"),
        ({"rules": [{"tools": "files", "decision": "allow"}]}, "ask"),
        ({"rules": [{"decision": "deny"}, {"decision": "allow"}]}, "deny"),
        ({"policy": "always_allow", "rules": [{"decision": "deny"}]}, "allow"),
        ({"policy": "always_ask", "rules": [{"decision": "allow"}]}, "ask"),
        ({"deadline_s": 5}, "allow"),
    ],
)
def test_a_policy_decides_by_its_word_its_tools_and_its_first_rule_that_fits(policy: Any, decision: str) -> None:
    assert said(policy, code="ls") == decision


def test_a_tools_own_name_goes_before_its_groups() -> None:
    policy = {"tools": {"files": "always_ask", "view_file": "always_allow"}}
    assert said(policy, "view_file", path="a") == "allow"
    assert said(policy, "write_file", path="a") == "ask"


@pytest.mark.parametrize(
    ("path", "decision"),
    [
        ("reports/a.md", "allow"),
        ("reports/deep/er/a.md", "allow"),
        ("/workspace/reports/a.md", "allow"),
        ("./reports/./a.md", "allow"),
        ("reports", "ask"),
        ("reports/../secret.md", "ask"),
        ("other/reports/a.md", "ask"),
        ("../workspace/reports/a.md", "allow"),
        ("/reports/a.md", "ask"),
        ("/etc/passwd.csv", "ask"),
        ("a.csv", "allow"),
        ("deep/er/a.csv", "allow"),
        ("a.csv/b", "ask"),
        ("", "ask"),
        (5, "ask"),
    ],
)
def test_paths_are_compared_as_they_are_and_only_in_the_workspace(path: Any, decision: str) -> None:
    policy = {"rules": [{"paths": ["reports/**", "*.csv"], "decision": "allow"}]}
    assert said(policy, "write_file", path=path) == decision


@pytest.mark.parametrize(
    ("code", "decision"),
    [
        ("git status", "allow"),
        ("  git log\n", "allow"),
        ("git push", "ask"),
        ("git status; rm -rf /", "ask"),
        ("x\ngit status", "ask"),
        ("echo\nrm -rf x", "deny"),
    ],
)
def test_a_command_has_to_match_as_a_whole(code: str, decision: str) -> None:
    policy = {
        "rules": [
            {"command": ".*rm -rf.*x", "decision": "deny"},
            {"command": "git (status|log)", "decision": "allow"},
        ]
    }
    assert said(policy, code=code) == decision


@pytest.mark.parametrize(
    ("url", "decision"),
    [
        ("https://example.org/a", "allow"),
        ("https://EXAMPLE.org./a", "allow"),
        ("https://www.example.org", "ask"),
        ("https://a.b.example.net:8443/", "allow"),
        ("https://example.net", "ask"),
        ("https://example.org.evil.test", "ask"),
        ("https://example.org@evil.test/", "ask"),
        ("https://evil.test/?example.org", "ask"),
        ("https://bücher.example", "allow"),
        ("https://[::1", "ask"),
        ("example.org", "ask"),
    ],
)
def test_domains_are_those_of_the_address(url: str, decision: str) -> None:
    domains = ["example.org", "*.example.net", "xn--bcher-kva.example"]
    assert said({"rules": [{"domains": domains, "decision": "allow"}]}, "url_fetch", url=url) == decision


def test_other_arguments_and_looking_can_be_conditions() -> None:
    policy = {
        "rules": [
            {"arguments": {"language": "bash", "code": ".*sudo.*"}, "decision": "deny"},
            {"read_only": True, "decision": "allow"},
            {"arguments": {"n": "[0-9]", "flag": "true"}, "decision": "allow"},
        ]
    }
    assert said(policy, language="bash", code="sudo x") == "deny"
    assert said(policy, language="python", code="sudo x") == "ask"
    assert said(policy, "view_file", read_only=True, path="a") == "allow"
    assert said(policy, "other", n=5, flag=True) == "allow"
    assert said(policy, "other", n=55, flag=True) == "ask"
    assert said(policy, "other") == "ask"


def test_a_text_too_long_to_compare_is_asked_about_whatever_the_later_rules_say() -> None:
    policy = {"rules": [{"command": ".*secret.*", "decision": "deny"}, ALLOW_ALL]}
    assert said(policy, code="x" * (MAX_TEXT + 1)) == "ask"
    assert said(policy, code="x" * MAX_TEXT) == "allow"


def test_no_pattern_takes_for_ever() -> None:
    policy = {"rules": [{"command": "(a*)*(a|b|ab)*(.*x.*){20}", "decision": "deny"}]}
    # A matcher that goes back and tries again would never come to the end of this.
    assert said(policy, code="a" * MAX_TEXT) == "ask"


WRONG: list[tuple[Any, str]] = [
    ("sometimes", "approvals"),
    (7, "approvals"),
    ([], "approvals"),
    ({"polcy": "auto"}, "approvals"),
    ({"policy": "ask"}, "approvals.policy"),
    ({"tools": []}, "approvals.tools"),
    ({"tools": {"files": None}}, "approvals.tools.files"),
    ({"tools": {"fils": "auto"}}, "approvals.tools.fils"),
    ({"rules": {}}, "approvals.rules"),
    ({"rules": ["allow"]}, "approvals.rules[0]"),
    ({"rules": [ALLOW_ALL, {"decision": "no"}]}, "approvals.rules[1].decision"),
    ({"rules": [{**ALLOW_ALL, "path": "a"}]}, "approvals.rules[0]"),
    ({"rules": [{**ALLOW_ALL, "paths": []}]}, "approvals.rules[0].paths"),
    ({"rules": [{**ALLOW_ALL, "paths": "../a"}]}, "approvals.rules[0].paths"),
    ({"rules": [{**ALLOW_ALL, "tools": ["fils"]}]}, "approvals.rules[0].tools"),
    ({"rules": [{**ALLOW_ALL, "command": "(?=x)"}]}, "approvals.rules[0].command"),
    ({"rules": [{**ALLOW_ALL, "command": ""}]}, "approvals.rules[0].command"),
    ({"rules": [{**ALLOW_ALL, "command": "a" * 2000}]}, "approvals.rules[0].command"),
    ({"rules": [{**ALLOW_ALL, "domains": ["https://x.org"]}]}, "approvals.rules[0].domains"),
    ({"rules": [{**ALLOW_ALL, "domains": ["*"]}]}, "approvals.rules[0].domains"),
    ({"rules": [{**ALLOW_ALL, "arguments": {}}]}, "approvals.rules[0].arguments"),
    ({"rules": [{**ALLOW_ALL, "arguments": {"n": 5}}]}, "approvals.rules[0].arguments.n"),
    ({"rules": [{**ALLOW_ALL, "read_only": "yes"}]}, "approvals.rules[0].read_only"),
    ({"rules": [{**ALLOW_ALL, "reason": "two\nlines"}]}, "approvals.rules[0].reason"),
    ({"rules": [ALLOW_ALL] * (MAX_RULES + 1)}, "approvals.rules"),
    ({"deadline_s": True}, "approvals.deadline_s"),
    ({"deadline_s": 0.5}, "approvals.deadline_s"),
    ({"default": "ask"}, "approvals.default"),
]


@pytest.mark.parametrize(("policy", "where"), WRONG)
def test_what_is_no_policy_is_told_by_its_field(policy: Any, where: str) -> None:
    with pytest.raises(Malformed) as told:
        clean(policy, known=("files", "code_execution"))
    assert told.value.where("approvals") == where


def test_the_strictest_place_holds_with_its_reason() -> None:
    layers = [
        Layer("agent a", parse(clean("always_allow") or {}), replaceable=True),
        Layer("the session", parse({"rules": [{"decision": "deny", "reason": "never"}]})),
        Layer("the turn", parse(clean("always_ask") or {})),
    ]
    verdict = decide(layers, ["code_execution"], {}, read_only=False)
    assert (verdict.decision, verdict.reason, verdict.by) == ("deny", "never", ("the session",))


def test_of_those_who_ask_the_shortest_patience_and_any_no_hold() -> None:
    def layer(**more: Any) -> Layer:
        return Layer("x", parse({"policy": "always_ask", **more}))

    def asked(*layers: Layer) -> tuple[float, str]:
        verdict = decide(layers, ["t"], {}, read_only=False)
        return verdict.deadline_s, verdict.default

    usual = Layer("your configuration", parse({"deadline_s": 50, "default": "allow"}), configuration=True)
    assert asked(layer()) == (86_400, "deny")
    assert asked(layer(deadline_s=9, default="allow"), layer(deadline_s=5)) == (5, "deny")
    assert asked(layer(deadline_s=9, default="allow"), layer(default="allow")) == (9, "allow")
    assert asked(usual, layer()) == (50, "allow")
    assert asked(usual, layer(default="deny")) == (50, "deny")


def test_the_configuration_takes_the_place_of_agent_and_environment_where_it_says_something() -> None:
    agent = Layer("agent a", parse(clean("always_ask") or {}), replaceable=True)
    config = Layer("your configuration", parse({"tools": {"files": "always_allow"}}), configuration=True)
    assert decide([config, agent], ["view_file", "files"], {}, read_only=True).decision == "allow"
    assert decide([config, agent], ["code_execution"], {}, read_only=False).decision == "ask"
    turn = Layer("the turn", parse({"tools": {"view_file": "always_ask"}}))
    assert decide([config, agent, turn], ["view_file", "files"], {}, read_only=True).decision == "ask"
