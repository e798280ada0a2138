"""Doctor says which sandboxes work here, and what to do if none does."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from interactd.cli import doctor


def _found(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    findings = list(doctor._sandbox())  # pyright: ignore[reportPrivateUsage]
    capsys.readouterr()
    return [json.loads(json.dumps(doctor.asdict(one))) for one in findings]


def test_each_launcher_is_named_with_what_it_isolates_or_why_it_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTERACTD_HOME", str(tmp_path))
    found = _found(capsys)
    assert {one["name"] for one in found} == {"sandbox"}
    if shutil.which("bwrap"):
        assert any(one["verdict"] == "ok" and one["found"].startswith("bubblewrap: ") for one in found)
    assert not any("process" in one["found"] for one in found)
    others = {"linux": "seatbelt", "darwin": "bubblewrap"}.get(sys.platform, " ")
    assert not any(others in one["found"] for one in found), "what only another system has is no news here"


def test_where_none_works_it_is_bad_and_the_command_that_helps_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTERACTD_HOME", str(tmp_path))
    real = shutil.which

    def which(name: str, mode: int = os.F_OK | os.X_OK, path: str | None = None) -> str | None:
        return None if name in ("bwrap", "docker", "podman") else real(name, mode, path)

    monkeypatch.setattr(shutil, "which", which)
    found = _found(capsys)
    assert found[-1]["verdict"] == "bad"
    assert "interactd setup" in found[-1]["fix"]
    assert any("bubblewrap" in (one["fix"] or "") for one in found[:-1])
