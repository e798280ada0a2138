"""The agent that ships: whole, short enough for a small model, and its script does what its skill says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import interactd_agents
from interactd.agents.port import BUILTIN_TOOLS
from support.agent_folders import Home

FOLDER = Path(interactd_agents.FOLDER) / "antigravity"
DESCRIBE = FOLDER / "skills" / "data-analysis" / "describe.py"


def test_the_built_in_agent_is_whole(home: Home) -> None:
    found, problems = home.list()
    agent = found["antigravity"]
    assert problems == []
    assert agent.tools == BUILTIN_TOOLS
    assert agent.requires == {"filesystem": "enforced", "network": "enforced"}
    assert agent.environment.get("network") is None
    assert [each.name for each in agent.skills] == ["data-analysis", "web-reading", "writing-reports"]


def test_its_instructions_leave_room_in_a_small_window(home: Home) -> None:
    found = home.resolve("antigravity")
    listed = sum(len(each.name) + len(each.description) for each in found.skills)
    assert len(found.instructions) + listed < 3000


def test_what_its_skills_refer_to_is_there() -> None:
    for file in FOLDER.rglob("*.md"):
        for name in re.findall(r"/agent/(\S+)", file.read_text()):
            assert (FOLDER / name).is_file(), f"{file.name} names {name}"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (
            "a,b\n1,x\n2,\n",
            ["2 rows, 2 columns, separator ','", "'a': number, 1 to 2, mean 1.5", "'b': text, 1 different"],
        ),
        ("a;b\n1;x\n2;y\n", ["separator ';'", "'b': text, 2 different, such as 'x', 'y'"]),
        ("a,b\n1\n2,y,z\n", ["2 rows have another number of cells"]),
        ('\ufeffa,b\n"1,000",x\n', ["'a': number, 1000 to 1000"]),
        ("", ["0 rows, 0 columns"]),
        ("a,b\n", ["0 rows, 2 columns"]),
        ("n\n1\nx\n", ["1 of them are numbers"]),
    ],
)
def test_its_script_says_what_a_table_holds(tmp_path: Path, content: str, lines: list[str]) -> None:
    file = tmp_path / "table.csv"
    file.write_text(content, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", str(DESCRIBE), str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    for line in lines:
        assert line in done.stdout, done.stdout


def test_its_script_says_how_to_use_it() -> None:
    done = subprocess.run([sys.executable, str(DESCRIBE)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "describe.py FILE" in done.stderr
