"""The parts that meet other parts: the proxy's socket, streams, cancelling, mounts, refusals."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from interactd.errors import InvalidArgument, SandboxFailed, SandboxUnavailable
from interactd.paths import find
from interactd.sandbox.launchers import Settings, all_launchers
from interactd.sandbox.launchers.bubblewrap import Bubblewrap
from interactd.sandbox.launchers.process import Process
from interactd.sandbox.port import Exit, Limits, Mount, Output, Sandbox, Spec

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


class Answering:
    """Stands for the proxy: answers every connection with one line, and remembers that it was asked."""

    def __init__(self, ca_file: Path | None = None) -> None:
        self.ca_file = ca_file
        self.asked = 0

    async def serve(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked += 1
            await reader.readline()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, sock=listener)
        async with server:
            await server.serve_forever()


def open_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="interactd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def launcher(folder: Path) -> AsyncIterator[Bubblewrap]:
    before = open_now()
    made = Bubblewrap(find({"INTERACTD_HOME": str(folder / "home")}))
    if not (await made.probe()).usable:
        pytest.skip("bubblewrap cannot be used on this machine")
    yield made
    await made.aclose()
    assert open_now() == before


@pytest.fixture
def spec(folder: Path) -> Spec:
    for name in ("ws", "agent"):
        (folder / name).mkdir()
    return Spec("hooks", folder / "ws", folder / "agent", limits=Limits(wall_s=20))


async def ran(sandbox: Sandbox, *argv: str, wall_s: float | None = None) -> tuple[str, Exit]:
    said, ended = b"", None
    async for event in sandbox.exec(argv, wall_s=wall_s):
        if isinstance(event, Output):
            said += event.data
        else:
            ended = event
    assert ended is not None
    return said.decode(errors="replace"), ended


FETCH = "import os,urllib.request as r;print(r.urlopen('http://example.org/').read(), os.environ.get('HTTPS_PROXY'))"


async def test_the_proxy_is_the_only_way_out_and_programs_find_it(launcher: Bubblewrap, spec: Spec) -> None:
    proxy = Answering()
    sandbox = await launcher.start(replace(spec, egress=proxy))
    try:
        said, _exit = await ran(sandbox, "python3", "-c", FETCH)
        assert said == "b'hi' http://127.0.0.1:3128\n"
        assert proxy.asked == 1
        direct = "import socket;socket.create_connection(('192.0.2.1', 80), 2)"
        assert "unreachable" in (await ran(sandbox, "python3", "-c", direct))[0]
    finally:
        await sandbox.aclose()


async def test_a_sandbox_without_a_proxy_has_no_listener_and_no_variables(launcher: Bubblewrap, spec: Spec) -> None:
    sandbox = await launcher.start(spec)
    try:
        said, ended = await ran(sandbox, "python3", "-c", FETCH)
        assert ended.code == 1
        assert "Temporary failure" in said or "Name or service" in said
    finally:
        await sandbox.aclose()


async def test_the_certificate_bundle_is_where_every_client_looks(
    launcher: Bubblewrap, spec: Spec, folder: Path
) -> None:
    bundle = folder / "bundle.pem"
    bundle.write_text("certificates")
    sandbox = await launcher.start(replace(spec, egress=Answering(bundle)))
    names = (
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
        "PIP_CERT",
    )
    try:
        said, _exit = await ran(sandbox, "sh", "-c", "cat " + " ".join(f'"${name}"' for name in names))
        assert said == "certificates" * len(names)
    finally:
        await sandbox.aclose()


async def test_two_sandboxes_have_two_proxies(launcher: Bubblewrap, spec: Spec) -> None:
    first, second = Answering(), Answering()
    sandboxes = [await launcher.start(replace(spec, environment_id="a", egress=proxy)) for proxy in (first, second)]
    try:
        await ran(sandboxes[1], "python3", "-c", FETCH)
        assert (first.asked, second.asked) == (0, 1)
    finally:
        for sandbox in sandboxes:
            await sandbox.aclose()


async def test_a_kernel_can_be_talked_to_while_other_commands_run(launcher: Bubblewrap, spec: Spec) -> None:
    sandbox = await launcher.start(spec)
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def typed() -> AsyncIterator[bytes]:
        while (line := await lines.get()) is not None:
            yield line

    try:
        kernel = sandbox.exec(
            ["python3", "-c", "import sys\nfor l in sys.stdin: sys.stdout.write(f'{eval(l)}\\n')"], stdin=typed()
        )
        await lines.put(b"6 * 7\n")
        answer = await anext(kernel)
        assert answer == Output("stdout", b"42\n")
        assert (await ran(sandbox, "echo", "beside"))[0] == "beside\n"
        await lines.put(b"6 * 8\n")
        assert await anext(kernel) == Output("stdout", b"48\n")
        await lines.put(None)
        ended = await anext(kernel)
        assert isinstance(ended, Exit)
        assert ended.code == 0
    finally:
        await sandbox.aclose()


async def test_closing_the_iterator_ends_the_command_and_nothing_else(launcher: Bubblewrap, spec: Spec) -> None:
    sandbox = await launcher.start(spec)
    try:
        stream = sandbox.exec(["sh", "-c", "sleep 300 & echo up; wait"])
        async with aclosing(stream):  # type: ignore[type-var]
            assert await anext(stream) == Output("stdout", b"up\n")
        assert "sleep" not in (await ran(sandbox, "sh", "-c", "cat /proc/[0-9]*/comm"))[0]
    finally:
        await sandbox.aclose()


async def test_closing_the_sandbox_tells_running_commands_that_they_were_cancelled(
    launcher: Bubblewrap, spec: Spec
) -> None:
    sandbox = await launcher.start(spec)
    stream = sandbox.exec(["sh", "-c", "echo up; sleep 300"])
    assert await anext(stream) == Output("stdout", b"up\n")
    async with asyncio.timeout(2):
        await sandbox.aclose()
    ended = await anext(stream)
    assert isinstance(ended, Exit)
    assert ended.why == "cancelled"
    with pytest.raises(SandboxFailed):
        await anext(sandbox.exec(["true"]))


async def test_a_cancelled_start_leaves_nothing(launcher: Bubblewrap, spec: Spec) -> None:
    for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.03):
        task = asyncio.ensure_future(launcher.start(spec))
        await asyncio.sleep(delay)
        if not task.cancel():
            await (await task).aclose()
            continue
        try:
            await (await task).aclose()
        except asyncio.CancelledError:
            continue


async def test_folders_are_mounted_as_told(launcher: Bubblewrap, spec: Spec, folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "data").write_text("shared")
    sandbox = await launcher.start(replace(spec, mounts=(Mount(folder / "lib", "/workspace/lib"),)))
    try:
        said, _exit = await ran(sandbox, "sh", "-c", "cat /workspace/lib/data; echo no > /workspace/lib/data")
        assert said.startswith("shared")
        assert "Read-only" in said
    finally:
        await sandbox.aclose()


@pytest.mark.parametrize("target", ["/etc/x", "/usr", "relative", "/workspace/../etc", "/proc/1", "/workspace", "/"])
async def test_a_mount_over_the_sandbox_itself_is_refused(launcher: Bubblewrap, spec: Spec, target: str) -> None:
    with pytest.raises(InvalidArgument):
        await launcher.start(replace(spec, mounts=(Mount(Path("/usr"), target),)))


async def test_a_missing_workspace_is_a_failure_with_nothing_left(launcher: Bubblewrap, spec: Spec) -> None:
    with pytest.raises(SandboxFailed):
        await launcher.start(replace(spec, workspace=Path("/nowhere/at/all")))


async def test_a_killed_helper_ends_its_sandboxes_and_is_replaced(launcher: Bubblewrap, spec: Spec) -> None:
    sandbox = await launcher.start(spec)
    stream = sandbox.exec(["sh", "-c", "echo up; sleep 300"])
    await anext(stream)
    helper = int(Path("/proc/self/task").joinpath(str(os.getpid()), "children").read_text().split()[-1])
    os.kill(helper, 9)
    ended = await anext(stream)
    assert isinstance(ended, Exit)
    assert ended.why in ("sandbox_died", "cancelled")
    await sandbox.aclose()
    again = await launcher.start(spec)
    assert (await ran(again, "echo", "back"))[0] == "back\n"
    await again.aclose()


async def test_without_bubblewrap_nothing_runs_and_the_repair_is_a_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_apt(name: str, path: str | None = None) -> str | None:
        return "/usr/bin/apt-get" if name == "apt-get" and path is None else None

    monkeypatch.setattr(shutil, "which", only_apt)
    launchers = all_launchers(find({"INTERACTD_HOME": str(folder)}), Settings())
    with pytest.raises(SandboxUnavailable) as caught:
        await launchers.choose()
    assert "install bubblewrap" in str(caught.value.repair)
    assert "interactd setup" in str(caught.value.repair)


async def test_a_weaker_launcher_is_refused_and_process_is_never_a_fallback(launcher: Bubblewrap, folder: Path) -> None:
    launchers = all_launchers(find({"INTERACTD_HOME": str(folder)}), Settings(cgroups=False))
    try:
        assert (await launchers.choose(None, {"filesystem": "enforced"})).name == "bubblewrap"
        with pytest.raises(SandboxUnavailable) as caught:
            await launchers.choose(None, {"memory": "enforced"})
        assert "memory is best_effort" in str(caught.value)
        assert "process" not in str(caught.value.fields["refused"])
        assert "seatbelt" not in str(caught.value), "nobody on Linux can do anything about that"
        with pytest.raises(SandboxUnavailable, match="seatbelt exists on macOS only"):
            await launchers.choose("seatbelt")
        assert (await launchers.choose("process")).name == "process"
        with pytest.raises(SandboxUnavailable):
            await launchers.choose("process", {"filesystem": "enforced"})
        with pytest.raises(InvalidArgument):
            await launchers.choose("jail")
    finally:
        await launchers.aclose()


async def test_memory_is_watched_where_no_group_can_be_made(folder: Path, spec: Spec) -> None:
    launcher = Bubblewrap(find({"INTERACTD_HOME": str(folder / "home")}), Settings(cgroups=False))
    sandbox = await launcher.start(replace(spec, limits=Limits(memory_mb=100, wall_s=10)))
    code = "import os,time\n"
    code += "for _ in range(4):\n if os.fork() == 0: x = bytearray(50 << 20); time.sleep(9); os._exit(0)\ntime.sleep(9)"
    try:
        assert sandbox.isolation.memory == "best_effort"
        assert (await ran(sandbox, "python3", "-c", code))[1].why == "memory"
    finally:
        await launcher.aclose()


async def test_a_plain_process_says_that_it_is_none_and_still_ends_its_tree(folder: Path, spec: Spec) -> None:
    launcher = Process(find({"INTERACTD_HOME": str(folder)}))
    sandbox = await launcher.start(spec)
    try:
        assert {sandbox.isolation.filesystem, sandbox.isolation.network, sandbox.isolation.syscalls} == {"absent"}
        said, ended = await ran(sandbox, "sh", "-c", "pwd; setsid sleep 4567 & (sleep 4567 &) ; echo $HOME")
        assert said.split() == [str(spec.workspace), str(spec.home)]
        assert ended.code == 0
        left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"4567" in _bytes(p)]
        assert left == []
        assert (await ran(sandbox, "sleep", "300", wall_s=0.3))[1].why == "timeout"
    finally:
        await sandbox.aclose()
        await launcher.aclose()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
