"""hooks.json and SKILL.md: what is accepted, and the line of what is wrong."""

from __future__ import annotations

import json
import re

import pytest

from interactd.errors import BadManifest
from support.agent_folders import Home, skill

NOTHING: list[object] = []
COMMAND = {"type": "command", "command": "python3 hooks/check.py"}


def hooks(**group: object) -> str:
    return json.dumps({"guard": group}, indent=1)


@pytest.mark.parametrize(
    ("written", "line", "field", "words"),
    [
        ("[]", 1, None, "expected an object of groups, got a list|an object of groups of hooks, got a list"),
        ("", 1, None, "expected a value, got the end"),
        ("{", 1, None, "got the end"),
        ('{"a": {}, "a": {}}', 1, "a", "stands here twice"),
        ('{\n "guard": []}', 2, "guard", "with pre_tool_execution or post_tool_execution, got a list"),
        ('{\n "pre_tool_execution": []}', 2, "pre_tool_execution", "the events go inside a named group"),
        ('{"guard":\n {"enabeld": true}}', 2, "guard.enabeld", "did you mean 'enabled'"),
        ('{"guard":\n {"enabled": "no"}}', 2, "guard.enabled", "expected true or false, got 'no'"),
        ('{"guard":\n {"pre_tool_execution": null}}', 2, "guard.pre_tool_execution", "expected a list, got nothing"),
        ('{"guard":\n {"pre_tool_use": []}}', 2, "guard.pre_tool_use", "did you mean 'pre_tool_execution'"),
        (hooks(pre_tool_execution=[{"hooks": NOTHING}]), 5, "guard.pre_tool_execution[0].hooks", "at least one"),
        (hooks(pre_tool_execution=[5]), 4, "guard.pre_tool_execution[0]", "expected a mapping"),
        (
            hooks(pre_tool_execution=[{"matcher": "(", "hooks": [COMMAND]}]),
            5,
            "guard.pre_tool_execution[0].matcher",
            "regular expression",
        ),
        (
            hooks(pre_tool_execution=[{"matcher": "(?=a)b", "hooks": [COMMAND]}]),
            5,
            "guard.pre_tool_execution[0].matcher",
            "without look-around",
        ),
        (
            hooks(pre_tool_execution=[{"matcher": "([a-z]+)+x", "hooks": [COMMAND]}]),
            5,
            "guard.pre_tool_execution[0].matcher",
            "without a repeat inside a repeat",
        ),
        (
            hooks(post_tool_execution=[{"hooks": [{"type": "shell", "command": "x"}]}]),
            7,
            "guard.post_tool_execution[0].hooks[0].type",
            "expected type command or http, got 'shell'",
        ),
        (
            hooks(post_tool_execution=[{"hooks": [{**COMMAND, "timeout": 0}]}]),
            9,
            "guard.post_tool_execution[0].hooks[0].timeout",
            "more than 0",
        ),
        (
            hooks(post_tool_execution=[{"hooks": [{"type": "command", "command": " "}]}]),
            8,
            "guard.post_tool_execution[0].hooks[0].command",
            "a command line",
        ),
        (
            hooks(post_tool_execution=[{"hooks": [{"type": "http", "url": "ftp://x"}]}]),
            8,
            "guard.post_tool_execution[0].hooks[0].url",
            "https://example.org/hook",
        ),
        ('{"guard": {"enabled": true,}}', 1, "guard", "take the comma away"),
        ('{"a\\u0000": {}}', 1, None, "control character U\\+0000"),
    ],
)  # fmt: skip
def test_a_wrong_hook_is_told_with_its_line(home: Home, written: str, line: int, field: str | None, words: str) -> None:
    folder = home.config_agent("hooked")
    (folder / "hooks.json").write_text(written)
    with pytest.raises(BadManifest) as told:
        home.resolve("hooked")
    error = told.value
    assert error.fields["file"] == str(folder / "hooks.json")
    assert (error.fields["line"], error.fields["field"]) == (line, field), error.message
    assert re.search(words, error.message), error.message


def test_hooks_arrive_as_they_were_written(home: Home) -> None:
    folder = home.config_agent("hooked")
    written = {
        "guard": {
            "pre_tool_execution": [{"matcher": "code_.*|delete_file", "hooks": [{**COMMAND, "timeout": 2.5}]}],
            "post_tool_execution": [{"matcher": "*", "hooks": [{"type": "http", "url": "https://example.org/x"}]}],
        },
        "off": {"enabled": False},
    }
    (folder / "hooks.json").write_text(json.dumps(written))
    assert home.resolve("hooked").hooks == written


@pytest.mark.parametrize(
    ("written", "line", "field", "words"),
    [
        ("", 1, None, "expected `---`, the start of the front matter"),
        ("# Title\n", 1, None, "got '# Title'"),
        ("---\nname: good\n", 1, None, "has no end"),
        ("---\n---\nBody\n", 2, None, "the front matter is empty"),
        ("---\n- a\n---\nBody\n", 2, None, "got a list"),
        ("---\nname: good\n---\nBody\n", 2, "description", "is missing"),
        ("---\ndescription: x\n---\nBody\n", 2, "name", "is missing"),
        ("---\n\n\nname: Good\ndescription: x\n---\nBody\n", 4, "name", "lower-case letters"),
        ("---\nname: other\ndescription: x\n---\nBody\n", 2, "name", "expected 'good', the folder's name, got 'other'"),
        ("---\nname: good\ndescription: ' '\n---\nBody\n", 3, "description", "what the skill does"),
        (f"---\nname: good\ndescription: {'x' * 1025}\n---\nB\n", 3, "description", "at most 1024"),
        ("---\nname: good\ndescription: x\ndescripton: y\n---\nB\n", 4, "descripton", "did you mean 'description'"),
        ("---\nname: good\ndescription: Use it: now\n---\nB\n", 3, None, "needs quotes"),
        ("---\nname: good\ndescription: x\nmetadata: 5\n---\nB\n", 4, "metadata", "expected a mapping"),
        ("---\nname: good\ndescription: x\n---\n\n \n", 4, None, "expected instructions after the front matter"),
        ("---\nname: good\ndescription: x\n---\n\nB\0\n", 6, None, r"control character U\+0000"),
    ],
)
def test_a_wrong_skill_is_told_with_its_line(
    home: Home, written: str, line: int, field: str | None, words: str
) -> None:
    folder = home.config_agent("skilled")
    file = skill(folder, "good")
    file.write_text(written)
    with pytest.raises(BadManifest) as told:
        home.resolve("skilled")
    error = told.value
    assert error.fields["file"] == str(file)
    assert (error.fields["line"], error.fields["field"]) == (line, field), error.message
    assert re.search(words, error.message), error.message


def test_a_skill_of_another_product_is_read(home: Home) -> None:
    folder = home.config_agent("skilled")
    front = (
        "---\r\nname: good\r\ndescription: >\r\n  Reads tables,\r\n  and sums them.\r\nversion: 1.2\r\n"
        "license: MIT\r\nallowed-tools: Read, Bash\r\nmetadata: {author: someone}\r\n---\r\nBody\r\n"
    )
    (skill(folder, "good")).write_bytes(b"\xef\xbb\xbf" + front.encode())
    (found,) = home.resolve("skilled").skills
    assert (found.name, found.description) == ("good", "Reads tables, and sums them.")
    assert found.path == "/agent/skills/good/SKILL.md"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("skills/good/skill.md", "is missing; expected this name for skill.md"),
        ("skills/stray.md", "expected a folder with a SKILL.md in it"),
        ("SKILL.md", "expected the name skills/NAME/SKILL.md"),
        ("agent.yml", "expected the name agent.yaml"),
        ("agents.md", "expected the name AGENTS.md"),
        ("Skills/x/SKILL.md", "expected the name skills"),
        ("hooks.yaml", "expected the name hooks.json"),
    ],
)
def test_a_file_with_nearly_the_right_name_is_told(home: Home, name: str, words: str) -> None:
    folder = home.config_agent("named")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("---\nname: good\ndescription: x\n---\nBody\n")
    with pytest.raises(BadManifest, match=words):
        home.resolve("named")


def test_an_agent_has_no_more_than_a_hundred_skills(home: Home) -> None:
    folder = home.config_agent("skilled")
    for number in range(101):
        skill(folder, f"s{number}")
    with pytest.raises(BadManifest, match="at most 100 skills, got 101"):
        home.resolve("skilled")
