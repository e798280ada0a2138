"""What a bubblewrap sandbox promises its caller: whole trees end, limits tell the truth, nothing outlives it."""

# ruff: noqa: E501 - programs on one line

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.launchers.kit import Rig, below, identities, rigs, wait_for

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap is for Linux")


@pytest.fixture(scope="module", params=identities())
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from rigs(request.param)


@pytest.fixture(autouse=True)
def nothing_left(rig: Rig) -> Iterator[None]:
    before = rig.left()
    yield
    assert wait_for(rig.left, lambda after: after == before) == before


@pytest.fixture
def kept(rig: Rig) -> Iterator[str]:
    """A sandbox that stays for the whole test."""
    yield "kept"
    rig.ask({"do": "close", "keep": "kept"})


def alive(rig: Rig, kept: str) -> set[str]:
    return set(rig.shell("cat /proc/[0-9]*/comm", keep=kept)["said"].split())


def test_what_a_command_left_running_ends_with_it(rig: Rig, kept: str) -> None:
    daemon = "import os,time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: os.execvp('sleep', ['sleep', '300'])\n os._exit(0)"
    rig.shell("(sleep 100 &) ; setsid sleep 200 & disown ; echo started", keep=kept)
    rig.python(daemon, keep=kept)
    assert "sleep" not in alive(rig, kept)


def test_a_background_process_lives_as_long_as_its_own_command(rig: Rig, kept: str) -> None:
    server = "(python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 &) ; "
    asking = (
        "for i in $(seq 100); do curl -s http://127.0.0.1:8123/ -o /dev/null && echo served && break; sleep 0.05; done"
    )
    fallback = "python3 -c \"import socket,time\nfor i in range(100):\n try: socket.create_connection(('127.0.0.1',8123)); print('served'); break\n except OSError: time.sleep(.05)\""
    got = rig.shell(server + (asking if Path("/usr/bin/curl").exists() else fallback), keep=kept)
    assert "served" in got["said"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_command_that_kills_its_guard_takes_its_tree_along(rig: Rig, kept: str, number: int) -> None:
    code = f"import os,time\nif os.fork() == 0:\n os.setsid(); time.sleep(300)\nos.kill(os.getppid(), {int(number)})\ntime.sleep(300)"
    got = rig.python(code, keep=kept, wall_s=0.8)
    assert got["signal"] == 9
    assert rig.shell("ls -d /proc/[0-9]* | wc -l", keep=kept)["said"].split()[0] in ("4", "5")


def test_a_fork_bomb_that_runs_to_its_time_limit_leaves_a_sandbox_that_works_or_ends(rig: Rig) -> None:
    got = rig.shell(":(){ :|:& };: ; sleep 10", wall_s=0.7, limits={"pids": 100})
    assert (got["why"], got["signal"]) == ("timeout", 9)
    assert got["wall_s"] < 4


def test_time_is_kept_by_the_host(rig: Rig, kept: str) -> None:
    got = rig.shell("trap '' TERM INT HUP; sleep 60 & wait; sleep 60", keep=kept, wall_s=0.4)
    assert (got["why"], got["signal"], got["code"]) == ("timeout", 9, None)
    assert 0.4 <= got["wall_s"] < 3
    assert rig.shell("echo next", keep=kept)["said"] == "next\n"


def test_too_much_output_ends_a_command_and_keeps_the_beginning(rig: Rig, kept: str) -> None:
    got = rig.shell("echo first; yes", keep=kept, limits={"output_bytes": 5000})
    assert (got["why"], got["size"]) == ("output", 5000)
    assert got["said"].startswith("first\n")
    assert "yes" not in alive(rig, kept)


def test_a_small_file_limit_is_called_disk(rig: Rig) -> None:
    got = rig.shell("head -c 30000000 /dev/zero > f; exit $?", limits={"file_mb": 10})
    assert got["why"] == "disk", got
    assert (rig.home / "env" / "ws" / "f").stat().st_size <= 10 << 20


def test_filling_the_workspace_ends_the_command_and_deleting_is_possible_after(rig: Rig) -> None:
    limits = {"disk_mb": 20, "file_mb": 8, "wall_s": 20}
    filler = "i=0; while true; do head -c 4000000 /dev/zero > f$i || exit 1; i=$((i+1)); sleep 0.02; done"
    got = rig.shell(filler, limits=limits, environment="full")
    assert got["why"] == "disk", got
    deleted = rig.shell("rm -f f*; echo done", limits=limits, environment="full")
    assert (deleted["why"], deleted["code"]) == ("exit", 0)


def test_running_out_of_memory_is_said(rig: Rig) -> None:
    got = rig.python("x = [bytearray(10 << 20) for _ in range(60)]\nprint(len(x))", limits={"memory_mb": 150})
    if got["isolation"]["memory"] == "enforced":
        assert got["why"] == "memory", got
    assert got["code"] != 0


def test_many_processes_together_are_held_to_the_memory_limit(rig: Rig) -> None:
    code = "import os,time\nfor _ in range(8):\n if os.fork() == 0:\n  x = bytearray(60 << 20)\n  for i in range(0, len(x), 4096): x[i] = 1\n  time.sleep(20)\n  os._exit(0)\ntime.sleep(20)"
    got = rig.python(code, limits={"memory_mb": 200}, wall_s=5)
    assert got["why"] == "memory" or got["isolation"]["memory"] == "enforced", got


def test_one_core_is_one_core(rig: Rig) -> None:
    spin = "import os,time\nfor _ in range(3): os.fork()\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nfor _ in range(8):\n try: os.wait()\n except OSError: pass"
    got = rig.python(spin, limits={"cpu": 0.3})
    if got["isolation"]["cpu"] != "enforced":
        pytest.skip("no control group for this user here")
    assert got["cpu_s"] / got["wall_s"] < 0.5


def test_the_exit_tells_code_and_signal(rig: Rig, kept: str) -> None:
    assert rig.shell("exit 7", keep=kept)["code"] == 7
    killed = rig.shell("kill -SEGV $$", keep=kept)
    assert (killed["code"], killed["signal"], killed["why"]) == (None, signal.SIGSEGV, "exit")
    missing = rig.ask({"do": "exec", "argv": ["no-such-program"], "keep": kept})
    assert missing["code"] == 127
    assert "no-such-program" in missing["said"]


def test_input_reaches_the_command_and_one_that_does_not_read_it_still_ends(rig: Rig, kept: str) -> None:
    assert rig.shell("wc -c", keep=kept, stdin="x" * 300_000)["said"].strip() == "300000"
    assert rig.shell("exit 0", keep=kept, stdin="x" * 300_000)["code"] == 0


def test_a_long_command_line_is_refused_in_words(rig: Rig, kept: str) -> None:
    got = rig.ask({"do": "exec", "argv": ["echo", "x" * 5_000_000], "keep": kept})
    assert got["error"]["code"] == "invalid_argument"
    assert rig.ask({"do": "exec", "argv": ["true", "x" * 200_000], "keep": kept})["code"] == 126


def test_files_persist_and_everything_else_does_not(rig: Rig) -> None:
    rig.shell("echo here > /workspace/kept; echo here > ~/kept; echo gone > /tmp/f; sleep 100 &")
    got = rig.shell("cat /workspace/kept ~/kept; ls /tmp /dev/shm")
    assert got["said"].split() == ["here", "here", "/dev/shm:", "/tmp:"]


def test_two_environments_do_not_see_each_other(rig: Rig) -> None:
    rig.shell("echo a > /workspace/mine; sleep 100 & disown", environment="one", keep="one")
    try:
        got = rig.shell("ls /workspace; ls -d /proc/[0-9]* | wc -l", environment="two")
        assert got["said"].split()[0] in ("4", "5", "6")
        folders = [rig.home / name / "ws" for name in ("one", "two")]
        if rig.identity == "root":
            owners = {folder.stat().st_uid for folder in folders}
            assert len(owners) == 2
            assert min(owners) > 0x70000000
    finally:
        rig.ask({"do": "close", "keep": "one"})


def test_the_sandbox_is_in_the_group_it_says_it_is_in(rig: Rig, kept: str) -> None:
    got = rig.shell("echo up", keep=kept)
    if got["isolation"]["memory"] != "enforced":
        pytest.skip("no control group for this user here")
    first = next(
        pid
        for pid in below(rig.process.pid)
        if "/supervisor.py" in Path(f"/proc/{pid}/cmdline").read_text()
        and "bwrap" not in Path(f"/proc/{pid}/comm").read_text()
    )
    groups = Path(f"/proc/{first}/cgroup").read_text()
    assert f"interactd-{rig.process.pid}-" in groups


def test_tools_that_people_use_work_under_the_filter(rig: Rig, kept: str) -> None:
    line = (
        "set -e; python3 -c 'import sqlite3,multiprocessing,threading,asyncio,ssl,venv; "
        'print(multiprocessing.get_context("fork").Pool(2).map(abs,[-1,-2]))\'; '
        "tar cf /tmp/a.tar -C /etc hosts; tar xf /tmp/a.tar -C /tmp; chmod 755 /tmp/hosts; mkfifo /tmp/p; "
        "command -v git >/dev/null && git init -q /workspace/repo; ps aux >/dev/null; echo all"
    )
    assert rig.shell(line, keep=kept)["said"].splitlines()[-1] == "all"


@pytest.mark.skipif(os.getuid() != 0, reason="the driver of another identity is killed by root")
def test_a_killed_daemon_leaves_nothing_and_the_next_one_cleans_up(rig: Rig) -> None:
    victim = Rig(rig.folder / f"victim-{rig.identity}", rig.identity)
    try:
        victim.shell("(setsid sleep 4321 &)", keep="x")
        assert victim.process.stdin is not None
        victim.process.stdin.write('{"do": "exec", "argv": ["sleep", "4321"], "keep": "x"}\n')
        victim.process.stdin.flush()
        tree = wait_for(lambda: below(victim.process.pid), lambda pids: len(pids) >= 5)
        assert len(tree) >= 5
        victim.process.kill()
        victim.process.wait()
        left = wait_for(lambda: [pid for pid in tree if running(pid)], lambda pids: not pids)
        assert left == []
        rig.ask({"do": "reap"})
        groups = Path("/sys/fs/cgroup").glob(f"**/interactd-{victim.process.pid}-*")
        assert list(groups) == []
    finally:
        for stream in (victim.process.stdin, victim.process.stdout):
            if stream:
                stream.close()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
