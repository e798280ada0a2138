"""`interactd agents`: list, show, validate, new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interactd.cli.main import main
from support.agent_folders import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path)
    made.project.mkdir()
    monkeypatch.setenv("INTERACTD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(made.project)
    return made


@pytest.mark.parametrize("command", [["agents"], ["agents", "list"]])
def test_the_list_is_a_line_an_agent_and_problems_below(
    home: Home, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    home.project_agent("ours", "base_agent: antigravity\nmodel: ollama/x")
    home.config_agent("broken", "modle: x")
    assert main(command) == 0
    out = capsys.readouterr()
    rows = [line.split("\t") for line in out.out.splitlines()]
    assert [row[:3] for row in rows] == [["antigravity", "built-in", "-"], ["ours", "built-in + project", "ollama/x"]]
    assert all(len(row[4]) == 12 for row in rows)
    assert "1 problem:" in out.err
    assert f"{home.config / 'broken' / 'agent.yaml'}:3: modle: unknown field" in out.err


@pytest.mark.parametrize("command", [["agents", "--json"], ["agents", "list", "--json"], ["agents", "--json", "list"]])
def test_the_list_is_json_when_asked(home: Home, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    home.config_agent("broken", "modle: x")
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in said["agents"]] == ["antigravity"]
    assert (said["problems"][0]["line"], said["problems"][0]["field"]) == (3, "modle")


def test_show_has_everything(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home.config_agent(
        "mine",
        "base_agent: antigravity\nenvironment: {env: {KEY: sk-secret}, network: {allowlist: [x.org]}}",
        "Mine.",
    )
    assert main(["agents", "show", "mine"]) == 0
    out = capsys.readouterr().out
    for part in ("from:        built-in + config", "requires:    filesystem enforced, network enforced", str(folder)):
        assert part in out
    assert "x.org" in out
    assert "skills/data-analysis/describe.py" in out
    assert "- data-analysis: " in out
    assert "Mine." in out
    assert main(["agents", "show", "mine", "--json"]) == 0
    both = capsys.readouterr().out
    assert json.loads(both)["layers"][1]["files"]["AGENTS.md"]
    assert "sk-secret" not in out + both


def test_show_of_what_is_not_there_or_broken_is_an_error(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.config_agent("broken", "modle: x")
    assert main(["agents", "show", "nothing"]) == 1
    assert "not_found" in capsys.readouterr().err
    assert main(["agents", "show", "broken"]) == 1
    assert "bad_manifest" in capsys.readouterr().err


def test_validate_tells_all_problems_and_fails(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home.config_agent("broken", "modle: x\nlimits: {steps: 0}")
    (folder / "hooks.json").write_text("[")
    for target in ([], ["broken"], [str(folder)], ["../home/config/agents/broken"]):
        assert main(["agents", "validate", *target]) == 1
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 3, said
    assert main(["agents", "validate", "broken", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 3
    assert main(["agents", "validate", "antigravity"]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_validate_knows_a_folder_anywhere(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support.agent_folders import write

    folder = write(tmp_path / "elsewhere" / "draft", "base_agent: antigravity")
    assert main(["agents", "validate", str(folder)]) == 0
    theirs = write(tmp_path / "other" / ".agents" / "agents" / "theirs", "environment: {env: {A: {credential: x}}}")
    assert main(["agents", "validate", str(theirs)]) == 1
    assert "gets no credentials" in capsys.readouterr().out
    (tmp_path / "other" / ".agents" / "hooks.json").write_text("[]")
    assert main(["agents", "validate", str(tmp_path / "other" / ".agents")]) == 1
    assert main(["agents", "validate", str(tmp_path / "nowhere") + "/"]) == 1
    assert "not_found" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [[], ["--project"], ["--base", "antigravity"]])
def test_a_new_agent_validates_as_it_stands(home: Home, capsys: pytest.CaptureFixture[str], extra: list[str]) -> None:
    assert main(["agents", "new", "fresh", *extra]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[0])
    assert folder == (home.local if "--project" in extra else home.config) / "fresh"
    assert main(["agents", "validate", "fresh"]) == 0
    text = (folder / "agent.yaml").read_text()
    # Everything that is commented out is right as well.
    lines = text.split("\n")
    lines = [line[2:] if line.startswith("# ") and (":" in line or line.startswith("#  ")) else line for line in lines]
    (folder / "agent.yaml").write_text("\n".join(line for line in lines if not line.startswith(("An agent", "Every"))))
    assert main(["agents", "validate", "fresh"]) == 0, (folder / "agent.yaml").read_text()


@pytest.mark.parametrize("name", ["antigravity", "antigravity-preview-09-2026", "Big", "", "../x", "a" * 64, "-a"])
def test_a_new_agent_needs_an_id_of_its_own(home: Home, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["agents", "new", "--", name]) == 1
    assert "invalid_argument" in capsys.readouterr().err
    assert not home.config.exists()


def test_a_new_agent_does_not_touch_one_that_is_there(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home.config_agent("mine", instructions="Mine.")
    assert main(["agents", "new", "mine"]) == 1
    assert "conflict" in capsys.readouterr().err
    assert (folder / "AGENTS.md").read_text() == "Mine."
    assert [each.name for each in home.config.iterdir()] == ["mine"]


def test_a_new_agent_with_an_unknown_base_is_made_and_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "new", "mine", "--base", "nobody"]) == 0
    assert "note:" in capsys.readouterr().out
