"""The house rules that a machine can hold: lint, arrows, sizes, one truth for versions and help."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "server", ROOT / "tools", ROOT / "manifests", ROOT / "tests"]


def python_files() -> list[Path]:
    return [path for source in SOURCES for path in source.rglob("*.py")]


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not beside {sys.executable}: install the test extra"
    return found


def test_ruff_is_clean() -> None:
    done = subprocess.run([tool("ruff"), "check", "."], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_arrows_point_one_way() -> None:
    done = subprocess.run([tool("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_module_passes_500_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in python_files() if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_every_page_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to list tracked files")
def test_no_tracked_file_names_a_machine_or_a_private_index() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    wrong = re.compile(r"(extra-)?index-url\s*=|--(extra-)?index-url|file:///opt/|/work/(main|shared)")
    names = [name for name in listed.stdout.split("\0") if name and name != "tests/test_house.py"]
    found = [n for n in names if (ROOT / n).is_file() and wrong.search((ROOT / n).read_text(errors="replace"))]
    assert found == []
