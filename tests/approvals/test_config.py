"""The user's own policy in the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from interactd.config import parse
from interactd.errors import ConfigError

GOOD = """
[approvals]
deadline_s = 600
default = "allow"

[approvals.tools]
files = "always_allow"

[[approvals.rules]]
tools = "code_execution"
command = "ls.*"
decision = "allow"
"""


def test_a_policy_is_read_as_it_is_kept() -> None:
    assert parse(GOOD).approvals == {
        "deadline_s": 600.0,
        "default": "allow",
        "tools": {"files": "always_allow"},
        "rules": [{"tools": ["code_execution"], "command": "ls.*", "decision": "allow"}],
    }
    assert parse("").approvals == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[approvals]\npolicy = 'never'", "policy: expected one of always_allow"),
        ("[approvals]\npolcy = 'auto'", "unknown field 'polcy'; did you mean policy?"),
        ("[approvals]\n[[approvals.rules]]\ncommand = '('\ndecision = 'allow'", r"rules\[0\].command: not a regular"),
        ("approvals = 5", "expected one of always_allow"),
    ],
)
def test_a_wrong_policy_is_told_with_the_file_and_the_field(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        parse(text, Path("/etc/x.toml"))
    assert "/etc/x.toml" in told.value.message
    assert "approvals" in told.value.message
