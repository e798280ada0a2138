"""One daemon per user, whoever starts it and however many at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interactd import paths as where
from interactd.daemon.lock import Lock, held
from support.hosts import Home, eventually


@pytest.mark.parametrize("count", [3, 30])
def test_shims_started_at_the_same_instant_share_one_daemon(home: Home, count: int) -> None:
    hosts = [home.host() for _ in range(count)]
    for host in hosts:
        host.ask("initialize", {"protocolVersion": "2025-11-25"}, id_="first")
    assert all("result" in host.answer("first", within_s=90) for host in hosts)
    assert len({host.call("pid") for host in hosts}) == 1
    assert len(home.daemons()) == 1


def test_daemons_started_at_the_same_instant_leave_one(home: Home) -> None:
    started = [home.daemon() for _ in range(8)]
    pid = home.ready()
    losers = [process for process in started if process.pid != pid]
    assert [process.wait(20) for process in losers] == [1] * 7
    assert home.daemons() == [pid]


def test_a_killed_process_does_not_keep_the_lock(home: Home) -> None:
    process = home.daemon()
    home.ready()
    assert held(home.paths)
    process.kill()
    process.wait()
    assert not held(home.paths)
    assert home.paths.socket.exists()  # stale, and in nobody's way
    assert home.host().call("echo", n=1) == {"n": 1}


def test_a_socket_file_that_nobody_listens_on_is_replaced(home: Home) -> None:
    home.paths.make()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home.paths.socket))
    assert home.host().call("echo", n=1) == {"n": 1}


def test_a_plain_file_in_the_sockets_place_is_replaced(home: Home) -> None:
    home.paths.make()
    home.paths.socket.write_text("what is this")
    assert home.host().call("echo", n=1) == {"n": 1}


def test_a_daemon_that_holds_the_lock_and_does_not_listen_yet_is_waited_for(home: Home) -> None:
    home.paths.make()
    lock = Lock.acquire(home.paths)
    assert lock
    host = home.host()
    key = host.ask("tools/call", {"name": "pid"})
    eventually(lambda: (home.paths.state / "start.lock").exists())
    os.close(lock._fd)  # pyright: ignore[reportPrivateUsage] - what the death of its process does
    assert host.answer(key)["result"] in home.daemons()


def test_a_stopped_daemon_is_reported_in_bounded_time_and_never_doubled(home: Home) -> None:
    home.host().call("echo")
    pid = home.ready()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    host = home.host(INTERACTD_START_TIMEOUT_S="2")
    error = host.answer(host.ask("initialize"))["error"]
    assert time.monotonic() - began < 8
    assert str(pid) in error["message"]
    assert "interactd stop --now" in error["message"]
    assert error["data"]["code"] == "daemon_unavailable"
    assert home.daemons() == [pid]
    os.kill(pid, signal.SIGCONT)
    # The shim answers from its last failure for a second, and then tries again.
    eventually(lambda: "result" in host.answer(host.ask("ping")))
    assert host.call("pid") == pid
    assert b"does not answer" in host.stderr


def test_a_daemon_stopped_in_mid_session_is_noticed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from interactd.shim import relay

    script = f"import interactd.shim.relay as r; r.QUIET_S = 0.5; {_run_echo()}"
    assert relay.QUIET_S > 5
    host = home.host_of([sys.executable, "-c", script, "mcp"], INTERACTD_START_TIMEOUT_S="2")
    host.initialize()
    pid = host.call("pid")
    os.kill(pid, signal.SIGSTOP)
    error = host.answer(host.ask("tools/call", {"name": "echo"}))["error"]
    assert str(pid) in error["message"]
    os.kill(pid, signal.SIGCONT)


def test_a_daemon_that_cannot_start_is_an_error_that_says_why(home: Home) -> None:
    host = home.host("--fail", INTERACTD_START_TIMEOUT_S="10")
    error = host.answer(host.ask("initialize"))["error"]
    assert "this application cannot start" in error["message"]
    assert host.hang_up() == 0
    eventually(lambda: home.daemons() == [])


def test_an_interpreter_that_is_gone_is_an_error_that_says_where_to_look(home: Home) -> None:
    script = "from interactd.shim.main import main; main([], command=['/no/such/python'])"
    host = home.host_of([sys.executable, "-c", script])
    error = host.answer(host.ask("initialize"))["error"]
    assert "/no/such/python" in error["message"]
    assert str(home.paths.log_file) in error["message"]
    assert "interactd doctor" in error["message"]


def test_a_home_that_cannot_be_made_is_an_error_that_names_it(home: Home) -> None:
    home.root.write_text("a file where the folder should be")
    host = home.host(INTERACTD_START_TIMEOUT_S="3")
    error = host.answer(host.ask("initialize"))["error"]
    assert str(home.root) in error["message"]


def test_files_and_folders_are_the_users_alone(home: Home) -> None:
    os.umask(before := os.umask(0))
    assert before is not None
    home.host().call("echo")
    for path in [home.root, *home.root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & 0o077 == 0, f"{path} {mode:o}"


def test_folders_that_were_open_to_others_are_closed(home: Home) -> None:
    home.paths.make()
    home.paths.runtime.chmod(0o755)
    home.paths.state.chmod(0o777)
    home.host().call("echo")
    assert stat.S_IMODE(home.paths.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.paths.state.stat().st_mode) == 0o700


def test_a_home_with_a_very_long_path_works(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 30) / ("name" * 30))
    try:
        host = home.host()
        assert host.call("echo", n=1) == {"n": 1}
        assert len(str(home.paths.socket)) < 104
        assert stat.S_IMODE(home.paths.runtime.stat().st_mode) == 0o700
        assert home.host().call("pid") == host.call("pid")
    finally:
        home.close()
        shutil.rmtree(home.paths.runtime)


def test_a_runtime_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 40))
    home.paths.runtime.symlink_to(tmp_path)
    try:
        with pytest.raises(PermissionError):
            home.paths.make()
    finally:
        home.paths.runtime.unlink()


def test_without_home_in_the_environment_the_password_file_says_where(tmp_path: Path) -> None:
    code = "from interactd import paths; print(paths.find().data)"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG_", "INTERACTD_"))}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    import pwd

    assert Path(out.stdout.strip()).is_relative_to(pwd.getpwuid(os.getuid()).pw_dir)


def test_loopback_with_a_token_works_where_unix_sockets_do_not(home: Home) -> None:
    host = home.host(INTERACTD_TRANSPORT="tcp")
    pid = host.call("pid")
    port_file = home.paths.runtime / "daemon.port"
    assert stat.S_IMODE(port_file.stat().st_mode) == 0o600
    assert not home.paths.socket.exists()
    assert home.host().call("pid") == pid  # found without being told
    os.kill(pid, signal.SIGKILL)
    assert host.call("pid") != pid


def test_a_port_that_belongs_to_something_else_now_is_told_nothing(home: Home) -> None:
    home.paths.make()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(10)
        (home.paths.runtime / "daemon.port").write_text(f"{stranger.getsockname()[1]} {'ab' * 32}\n")
        host = home.host(INTERACTD_TRANSPORT="tcp", OPENAI_API_KEY="sk-of-mine")
        peer, _ = stranger.accept()
        with peer:
            heard = peer.recv(65536)
            peer.sendall(b'{"interactd":1,"proof":"no idea"}\n')
            assert b"challenge" in heard
            assert b"ab" * 32 not in heard
            assert b"sk-of-mine" not in heard
        assert host.call("echo", n=1) == {"n": 1}


def test_tcp_without_the_token_is_hung_up_on(home: Home) -> None:
    home.host(INTERACTD_TRANSPORT="tcp").call("echo")
    port = int((home.paths.runtime / "daemon.port").read_text().split()[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b'{"interactd":1,"challenge":"x"}\n')
        assert b"proof" in sock.recv(65536)
        sock.sendall(b'{"interactd":1,"face":"mcp","token":"guess"}\n')
        assert sock.recv(65536) == b""


@pytest.mark.parametrize("env", [{}, {"XDG_STATE_HOME": "/x/state", "XDG_CACHE_HOME": " "}])
def test_folders_are_those_of_platformdirs_on_linux(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs.unix import Unix

    for name in ("INTERACTD_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    oracle, found = Unix("interactd", appauthor=False), where.find()
    _same(oracle, found)


def test_folders_are_those_of_platformdirs_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs.macos import MacOS

    for name in ("INTERACTD_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    _same(MacOS("interactd", appauthor=False), where.find())


def test_folders_are_those_of_platformdirs_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs import windows

    monkeypatch.delenv("INTERACTD_HOME", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", "/c/Users/me/AppData/Local")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "get_win_folder", lambda name: "/c/Users/me/AppData/Local")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    _same(windows.Windows("interactd"), where.find())


def _same(oracle: object, found: where.Paths) -> None:
    names = {"config": "user_config_dir", "data": "user_data_dir", "state": "user_state_dir", "logs": "user_log_dir"}
    names["cache"] = "user_cache_dir"
    assert {mine: str(getattr(found, mine)) for mine in names} == {m: getattr(oracle, o) for m, o in names.items()}


def _run_echo() -> str:
    from support.hosts import ECHO

    return f"import sys, runpy; sys.argv[0] = {str(ECHO)!r}; runpy.run_path({str(ECHO)!r}, run_name='__main__')"
