"""Having the system start the daemon at login: what is written, and what is said when that cannot be."""

from __future__ import annotations

import configparser
import json
import plistlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from interactd.daemon import service
from interactd.paths import Paths, find
from support.hosts import Home, eventually


class System:
    """A service manager that notes what it is told, and fails at the commands it was given."""

    def __init__(self, *failing: str) -> None:
        self.told: list[str] = []
        self._failing = failing

    def __call__(self, words: Sequence[str]) -> str | None:
        self.told.append(" ".join(words))
        return "no bus" if any(part in words for part in self._failing) else None


def a_home(tmp_path: Path) -> tuple[Paths, dict[str, str]]:
    env = {"HOME": str(tmp_path), "INTERACTD_HOME": str(tmp_path / "its home 100%")}
    return find(env), env


def test_a_systemd_unit_starts_this_installation_in_this_home(tmp_path: Path) -> None:
    paths, env = a_home(tmp_path)
    system = System()
    assert service.main(["install"], paths, platform="linux", env=env, run=system) == 0
    file = tmp_path / ".config" / "systemd" / "user" / "interactd.service"
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.read_string(file.read_text())
    command = shlex.split(read["Service"]["ExecStart"])
    assert command == [sys.executable, "-P", "-m", "interactd", "daemon", "--foreground", "--stay"]
    assert read["Service"]["Restart"] == "on-failure"
    assert read["Service"]["Environment"] == f'"INTERACTD_HOME={tmp_path}/its home 100%%"'
    assert read["Service"]["EnvironmentFile"].startswith("-")
    assert read["Install"]["WantedBy"] == "default.target"
    assert system.told == ["systemctl --user daemon-reload", "systemctl --user enable --now interactd.service"]


def test_a_launchd_agent_starts_it_on_a_mac(tmp_path: Path) -> None:
    paths, env = a_home(tmp_path)
    system = System()
    assert service.main(["install"], paths, platform="darwin", env=env, run=system) == 0
    file = tmp_path / "Library" / "LaunchAgents" / "org.interactd.daemon.plist"
    agent = plistlib.loads(file.read_bytes())
    assert agent["ProgramArguments"][-3:] == ["daemon", "--foreground", "--stay"]
    assert agent["EnvironmentVariables"] == {"INTERACTD_HOME": env["INTERACTD_HOME"]}
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["Umask"] == 0o077
    assert any("bootstrap" in told for told in system.told)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_taking_it_back_leaves_nothing(tmp_path: Path, platform: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths, env = a_home(tmp_path)
    assert service.main(["uninstall", "--json"], paths, platform=platform, env=env, run=System()) == 0
    assert json.loads(capsys.readouterr().out)["message"] == "It is not installed."
    service.main(["install"], paths, platform=platform, env=env, run=System())
    file = service.place(platform, env)
    assert file is not None
    assert file.exists()
    system = System()
    assert service.main(["uninstall"], paths, platform=platform, env=env, run=system) == 0
    assert not file.exists()
    assert any("disable --now" in told or "bootout" in told for told in system.told)


def test_where_the_service_manager_fails_it_is_said_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, env = a_home(tmp_path)
    assert service.main(["install", "--json"], paths, platform="linux", env=env, run=System("enable")) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["done"]
    assert "`systemctl --user enable --now interactd.service` failed: no bus" in said["message"]
    assert service.main(["install"], paths, platform="win32", env=env, run=System()) == 1
    assert "schtasks" in capsys.readouterr().err
    assert service.main(["install", "--now"], paths, platform="linux", env=env, run=System()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="flock and signals")
def test_a_daemon_that_stays_waits_for_its_turn_and_is_never_idle(home: Home) -> None:
    first = home.daemon("--idle", "60")
    pid = home.ready()
    assert pid == first.pid
    command = [sys.executable, "-P", "-m", "interactd", "daemon", "--foreground", "--stay"]
    second = subprocess.Popen(
        command, env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: second.pid in home.daemons())
        first.terminate()
        first.wait(30)
        eventually(lambda: home.record().get("pid") == second.pid and "ready_at" in home.record())
        status = subprocess.run(
            [sys.executable, "-m", "interactd", "status", "--json"], env=home.env, capture_output=True, check=False
        )
        assert json.loads(status.stdout)["info"]["idle_exit_s"] == 0
    finally:
        second.terminate()
        assert second.wait(30) == 0
