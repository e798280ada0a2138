"""What a command does to those who watch it, and what is left of it when the next one runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.launchers.kit import Rig, identities, rigs, wait_for

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap is for Linux")

# A child that has left its session, and goes on unless it is ended.
CHILD = """
import os, signal, socket, subprocess, sys, time
guard = os.getppid()
if os.fork() == 0:
    os.setsid()
    for number in (1, 2, 15):
        signal.signal(number, signal.SIG_IGN)
    {act}
    while True:
        open('/workspace/alive', 'a').write('.')
        time.sleep(0.01)
time.sleep({rest})
"""
ACTS = {
    "kill": "os.kill(guard, signal.SIGKILL)",
    "interrupt": "os.kill(guard, signal.SIGINT)",
    "fault": "os.kill(guard, signal.SIGSEGV)",
    "alarm": "os.kill(guard, signal.SIGALRM)",
    "end_twice": "os.kill(guard, signal.SIGTERM); os.kill(guard, signal.SIGTERM)",
    "forge_and_kill": "os.system('echo -n 0 0 0 > /proc/%d/fd/3' % guard); os.kill(guard, signal.SIGKILL)",
    "stopped": "os.kill(guard, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.fixture(scope="module", params=identities())
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from rigs(request.param)


@pytest.fixture(autouse=True)
def nothing_left(rig: Rig) -> Iterator[None]:
    before = rig.left()
    yield
    assert wait_for(rig.left, lambda after: after == before) == before


@pytest.mark.parametrize("act", list(ACTS))
def test_whatever_a_command_does_to_its_guard_nothing_of_it_goes_on(rig: Rig, act: str) -> None:
    code = CHILD.format(act=ACTS[act], rest=1 if act == "stopped" else 20)
    try:
        ended = rig.python(code, keep="one", wall_s=2.5)
        assert "error" not in ended, ended
        count = "import os, time; time.sleep(0.1); print([n for n in os.listdir('/proc') if n.isdigit()])"
        got = rig.python(count, keep="one")
        assert len(got["said"].split()) == 3, got  # the first process, a guard, and who asks
    finally:
        rig.ask({"do": "close", "keep": "one"})


def test_a_first_process_that_gets_no_time_cannot_hold_up_the_host(rig: Rig) -> None:
    code = """
import ctypes, os, time
none = ctypes.byref(ctypes.c_int(0))
for which, pid in ((0, 1), (1, 1), (2, 0), (0, os.getppid())):
    try:
        os.setpriority(which, pid, 19)
    except OSError as error:
        print(pid, error.errno)
    ctypes.CDLL(None).sched_setscheduler(pid, 5, none) if which == 0 else None
print(os.sched_getscheduler(1), os.getpriority(0, 1) < 19, flush=True)
for _ in range(20):
    if os.fork() == 0:
        while True:
            pass
time.sleep(60)
"""
    began = time.monotonic()
    got = rig.python(code, limits={"wall_s": 1, "pids": 64})
    assert got["said"].splitlines() == ["1 1", "1 1", "0 1", "0 True"], got
    assert got["why"] == "timeout", got
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("link", ["/oldroot{0}", "../../oldroot{0}", "{0}", "/newroot/home/agent", "/newroot/etc"])
def test_a_mount_goes_through_no_link_that_code_put_on_its_way(rig: Rig, link: str) -> None:
    """bubblewrap follows it while the whole host is still there, and makes what folders are missing."""
    victim = rig.home / "victim"
    victim.mkdir(exist_ok=True)
    if os.getuid() == 0:
        os.chown(victim, rig.uid, rig.uid)
    source = rig.folder / "mounted"
    source.mkdir(exist_ok=True)
    source.joinpath("file").write_text("from the host")
    mounts = [[str(source), "/workspace/above/inner/here"]]
    for target in (link.format(victim), "/nowhere"):
        rig.shell(f"rm -rf above; ln -s {target} above")
        got = rig.shell("true", mounts=mounts)
        assert got.get("error", {}).get("code") == "invalid_argument", got
    rig.shell("rm above")
    assert rig.shell("cat above/inner/here/file", mounts=mounts)["said"] == "from the host"
    rig.shell("mv above/inner above/other; ln -s /oldroot/tmp above/inner")
    assert rig.shell("true", mounts=mounts)["error"]["field"] == "mounts"
    rig.shell("rm -rf above")
    assert list(victim.iterdir()) == []


MEMORY = {
    "tcp": """
listener = socket.create_server(('127.0.0.1', 0), backlog=500)
while len(held) < 400:
    a = socket.create_connection(listener.getsockname()); held.append(a); held.append(listener.accept()[0])
    for one in held[-2:]: one.setsockopt(1, 7, 4 << 20); one.setsockopt(1, 8, 4 << 20)
    a.setblocking(False)
    try:
        while total < 400 << 20: total += a.send(bytes(65536))
    except BlockingIOError: pass
""",
    "unix": """
while len(held) < 900:
    a, b = socket.socketpair(); held += [a, b]; a.setblocking(False)
    try:
        while True: total += a.send(bytes(65536))
    except BlockingIOError: pass
""",
    "pipes": """
while len(held) < 900:
    a, b = os.pipe(); held += [a, b]; os.set_blocking(b, False)
    try:
        while True: total += os.write(b, bytes(65536))
    except BlockingIOError: pass
""",
    "system_v": """
import ctypes
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
while total < 400 << 20:
    at = libc.shmat(libc.shmget(0, 16 << 20, 0o1600), None, 0)
    ctypes.memset(ctypes.c_void_p(at), 1, 16 << 20); libc.shmdt(ctypes.c_void_p(at)); total += 16 << 20
""",
}


@pytest.mark.parametrize("kind", list(MEMORY))
def test_memory_that_no_process_has_is_within_the_limit_too(rig: Rig, kind: str) -> None:
    got = rig.python(
        f"import os, socket\nheld, total = [], 0\n{MEMORY[kind]}\nprint(total >> 20)", limits={"memory_mb": 64}
    )
    if got["isolation"]["memory"] != "enforced":
        pytest.skip("it is watched here, not enforced, and says so")
    assert got["why"] == "memory" or int(got["said"]) <= 80, got


def test_a_sandbox_that_rests_does_nothing_and_goes_on_when_it_is_woken(rig: Rig) -> None:
    """Also where a thread outlives the first one of its process, so that the process looks dead."""
    code = """
import ctypes, os, threading, time
def go_on():
    while True:
        open('/workspace/alive', 'a').write('.')
        time.sleep(0.005)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    alive = Path(rig.home, "env", "ws", "alive")
    alive.unlink(missing_ok=True)
    rig.ask({"do": "begin", "keep": "r", "argv": ["python3", "-c", code]})
    try:
        assert wait_for(lambda: alive.exists() and alive.stat().st_size, bool, 10)
        assert rig.ask({"do": "rest", "keep": "r"})["still"]
        size = alive.stat().st_size
        time.sleep(0.2)
        assert alive.stat().st_size == size
        rig.ask({"do": "wake", "keep": "r"})
        assert wait_for(lambda: alive.stat().st_size, lambda now: now > size, 10) > size
    finally:
        rig.ask({"do": "close", "keep": "r"})
