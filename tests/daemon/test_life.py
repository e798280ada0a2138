"""How a daemon ends: idle, told to, replaced by another version, or with the ground gone under it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interactd.daemon import commands, log
from interactd.daemon.health import health
from interactd.daemon.lock import held
from interactd.shim import record
from support.hosts import Home, eventually


def test_an_idle_daemon_leaves_by_itself(home: Home) -> None:
    host = home.host("--idle", "0.5")
    host.call("echo")
    assert host.hang_up() == 0
    eventually(lambda: not home.daemons(), within_s=10)
    assert "nothing to do" in home.record()["left"]
    assert not home.paths.socket.exists()


def test_a_connected_host_keeps_the_daemon(home: Home) -> None:
    host = home.host("--idle", "0.2")
    pid = host.call("pid")
    time.sleep(0.8)  # four times the idle limit; there is no event for something that must not happen
    assert home.daemons() == [pid]


def test_a_busy_daemon_does_not_leave(home: Home) -> None:
    host = home.host("--idle", "0.2")
    host.initialize()
    pid = host.call("pid")
    other = home.host()
    other.ask("tools/call", {"name": "sleep", "arguments": {"s": 1.5}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    assert home.daemons() == [pid]
    host.close()
    time.sleep(0.6)
    assert home.daemons() == [pid]


def test_sigterm_drains_before_it_leaves(home: Home) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    key = host.ask("tools/call", {"name": "sleep", "arguments": {"s": 0.8}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    os.kill(pid, signal.SIGTERM)
    assert host.answer(key)["result"] == "slept"
    eventually(lambda: pid not in home.daemons())


def test_it_lives_and_leaves_on_asyncios_own_loop_too(home: Home) -> None:
    host = home.host("--asyncio")
    first = host.call("pid")
    home.paths.socket.unlink()
    eventually(home.paths.socket.exists)
    os.kill(first, signal.SIGTERM)
    eventually(lambda: first not in home.daemons())
    assert host.call("pid") != first
    log_text = home.paths.log_file.read_text()
    assert "Traceback" not in log_text


def test_what_comes_while_a_daemon_drains_is_answered_by_the_next(home: Home) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    host.ask("tools/call", {"name": "sleep", "arguments": {"s": 1.5}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: "left" in home.record())
    assert host.call("pid") != pid


def test_a_drain_is_bounded(home: Home) -> None:
    host = home.host("--drain", "0.5")
    pid = host.call("pid")
    host.ask("tools/call", {"name": "sleep", "arguments": {"s": 600}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    host.close()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not home.daemons(), within_s=10)


def test_a_second_signal_ends_it_at_once(home: Home) -> None:
    process = home.daemon("--drain", "60")
    pid = home.ready()
    host = home.host()
    host.ask("tools/call", {"name": "sleep", "arguments": {"s": 600}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: "left" in home.record())
    os.kill(pid, signal.SIGTERM)
    assert process.wait(3) == 1
    host.close()


def test_a_newer_shim_replaces_an_older_daemon(home: Home) -> None:
    old = home.host("--version", "0.1.0")
    old.initialize()
    first = old.call("pid")
    new = home.host("--version", "0.2.0")
    second = new.call("pid")
    assert second != first
    assert home.record()["version"] == "0.2.0"
    assert old.call("pid") == second  # an older client is served by the newer daemon
    assert len(home.daemons()) == 1


def test_an_older_shim_starts_the_newest_daemon_on_record(home: Home) -> None:
    new = home.host("--version", "0.10.0")
    os.kill(new.call("pid"), signal.SIGKILL)
    new.close()
    eventually(lambda: not home.daemons())
    old = home.host("--version", "0.9.0")
    old.call("echo")
    assert home.record()["version"] == "0.10.0"


def test_an_older_shim_starts_its_own_when_the_newest_is_broken(home: Home) -> None:
    home.paths.make()
    broken = {"version": "9.0.0", "command": [sys.executable, "-c", "raise SystemExit(3)"]}
    record.write(home.paths, {"pid": 1, "version": "9.0.0", "newest": broken})
    assert home.host().call("echo", n=1) == {"n": 1}


def test_a_hand_over_waits_for_the_running_step(home: Home) -> None:
    old = home.host("--version", "0.1.0")
    old.initialize()
    key = old.ask("tools/call", {"name": "sleep", "arguments": {"s": 1.0}})
    eventually(lambda: json.loads(_status(home))["engine"]["busy"])
    new = home.host("--version", "0.2.0")
    assert new.call("echo", n=1) == {"n": 1}
    assert old.answer(key)["result"] == "slept"


def test_a_daemon_whose_home_is_deleted_leaves(home: Home) -> None:
    home.host("--idle", "0.4").call("echo")
    shutil.rmtree(home.root)
    eventually(lambda: not home.daemons(), within_s=10)


def test_a_daemon_whose_lock_is_deleted_makes_way_for_the_next(home: Home) -> None:
    host = home.host()
    first = host.call("pid")
    home.paths.lock.unlink()
    other = home.host()
    second = other.call("pid")
    assert second != first
    eventually(lambda: home.daemons() == [second])
    assert host.call("pid") == second


def test_a_removed_socket_is_made_again(home: Home) -> None:
    home.host("--idle", "2").call("echo")
    pid = home.ready()
    home.paths.socket.unlink()
    assert home.host("--idle", "2").call("pid") == pid


def test_stop_waits_until_it_is_gone_and_says_who_starts_it_again(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    host = home.host()
    pid = host.call("pid")
    assert commands.stop(home.paths) == 0
    out = capsys.readouterr().out
    assert str(pid) in out
    assert "1 connected host(s)" in out
    assert home.daemons() == []
    assert commands.stop(home.paths) == 0
    assert "No daemon" in capsys.readouterr().out


def test_stop_tells_the_truth_about_a_daemon_that_hangs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    pid = home.host().call("pid")
    os.kill(pid, signal.SIGSTOP)
    script = "import sys; from interactd import paths; from interactd.daemon import commands as c; "
    script += "c.ENGINE_S = 1.0; sys.exit(c.stop(paths.find()))"
    done = subprocess.run([sys.executable, "-c", script], env=home.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pid {pid}" in done.stderr
    assert "--now" in done.stderr
    assert commands.stop(home.paths, now=True, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"stopped": True, "pid": pid, "killed": True, "message": f"The daemon (pid {pid}) was killed."}
    assert not held(home.paths)


def test_stop_now_does_not_wait_for_the_running_step(home: Home) -> None:
    host = home.host("--drain", "30")
    host.ask("tools/call", {"name": "sleep", "arguments": {"s": 600}})
    eventually(lambda: held(home.paths) and json.loads(_status(home))["engine"]["busy"])
    began = time.monotonic()
    assert commands.stop(home.paths, now=True) == 0
    assert time.monotonic() - began < 4


def test_status_names_who_is_connected(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    assert commands.status(home.paths) == 0
    out = capsys.readouterr().out
    assert f"running, pid {pid}" in out
    assert f"raw, pid {host.pid}" in out
    assert "3 unread" in out
    assert "embedded/x" in out
    assert str(home.paths.log_file) in out


def test_status_tells_the_truth_when_there_is_no_daemon_or_it_hangs(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.status(home.paths, as_json=True) == 3
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"
    assert not home.root.exists()  # looking changes nothing
    pid = home.host().call("pid")
    home.ready()
    os.kill(pid, signal.SIGSTOP)
    found = health(home.paths, timeout_s=1.0)
    assert (found["state"], found["pid"]) == ("hangs", pid)
    assert "stop --now" in found["problems"][0]["repair"]


def test_health_names_files_that_others_can_open(home: Home) -> None:
    home.host().call("echo")
    home.paths.log_file.chmod(0o644)
    found = health(home.paths)
    assert found["state"] == "running"
    assert [each["code"] for each in found["problems"]] == ["permissions"]
    assert str(home.paths.log_file) in found["problems"][0]["message"]


def test_the_daemon_command_starts_one_and_says_so(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    script = f"import sys; sys.argv = ['echo.py', 'daemon']; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})"
    script += "\nfrom support import echo\nfrom interactd.shim import spawn"
    script += f"\nspawn.own_command = lambda: [sys.executable, '-P', {str(_echo())!r}, 'daemon']\necho.main()"
    done = subprocess.run([sys.executable, "-c", script], env=home.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pid {home.ready()}" in done.stdout


def test_a_second_daemon_in_the_foreground_says_that_there_is_one(home: Home) -> None:
    home.daemon()
    home.ready()
    other = home.daemon()
    assert other.wait(20) == 1
    assert other.stderr
    assert b"another daemon runs already" in other.stderr.read()


def test_the_log_rotates_and_takes_printed_lines_along(home: Home) -> None:
    home.paths.make()
    script = (
        "import logging, os; from interactd import paths; from interactd.daemon import log\n"
        "log.MAX_BYTES = 20_000\n"
        "log.set_up(paths.find(), foreground=False)\n"
        "for n in range(4000): logging.getLogger('x').info('line %d', n)\n"
        "print('printed', flush=True); os.write(2, b'from C code')\n"
    )
    subprocess.run([sys.executable, "-c", script], env=home.env, check=True)
    files = sorted(path.name for path in home.paths.logs.iterdir())
    assert files == ["daemon.log", *(f"daemon.log.{n}" for n in range(1, 6))]
    newest = home.paths.log_file.read_text()
    assert "line 3999" in newest
    assert "printed" in newest
    assert "from C code" in newest
    assert {path.stat().st_mode & 0o777 for path in home.paths.logs.iterdir()} == {0o600}


def test_uncaught_exceptions_and_crashes_are_in_the_log(home: Home) -> None:
    home.paths.make()
    script = (
        "import ctypes, threading; from interactd import paths; from interactd.daemon import log\n"
        "log.set_up(paths.find(), foreground=False)\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "ctypes.string_at(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=home.env, capture_output=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    text = home.paths.log_file.read_text()
    assert "ZeroDivisionError" in text
    assert "Segmentation fault" in text


def test_the_log_has_no_secrets() -> None:
    log.remember_secrets({"my-own-odd-credential"})
    text = log.redact(
        "GET /v1?key=abcdefgh123&x=1 Authorization: Bearer eyJhbGciOi.x.y sk-proj-abcdefghijklmnop1234 "
        'my-own-odd-credential {"api_key": "0123456789"} token=short key of the matter'
    )
    for secret in ("abcdefgh123", "eyJhbGciOi", "sk-proj", "my-own-odd", "0123456789"):
        assert secret not in text
    assert "key of the matter" in text
    assert "x=1" in text


def _echo() -> Path:
    return Path(__file__).parent.parent / "support" / "echo.py"


def _status(home: Home) -> str:
    script = "from interactd import paths; from interactd.daemon.commands import status; "
    script += "status(paths.find(), as_json=True)"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=home.env, capture_output=True, text=True, check=True).stdout
