"""A real container, where podman or docker can run one: commands, limits, and the proxy as the only way out."""

from __future__ import annotations

import asyncio
import os
import shutil
import textwrap
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interactd.nouns import Json
from interactd.paths import find
from interactd.sandbox.egress.ways import NetworkWay, NetworkWays
from interactd.sandbox.launchers import Settings
from interactd.sandbox.launchers.container import Container
from interactd.sandbox.port import Exit, Limits, Output, Sandbox, Spec
from sandbox.egress.parts import Keep, Net
from support import container_image

PODMAN = shutil.which("podman")
RUNTIME = shutil.which("runc") or shutil.which("crun")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PODMAN is None or RUNTIME is None or os.geteuid() != 0, reason="needs podman, and root"),
]
SECRET = "ghp_S3cretValue"
KEEP = Keep({"id": "github", "type": "bearer_token", "token": SECRET})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def settings() -> Settings:
    assert PODMAN is not None
    if not container_image.there(PODMAN):
        pytest.skip("an image cannot be made of this machine's files")
    return Settings(engine=PODMAN, runtime=RUNTIME, image=container_image.NAME)


@pytest.fixture
async def container(settings: Settings, tmp_path: Path) -> AsyncGenerator[Container]:
    made = Container(find({"INTERACTD_HOME": str(tmp_path / "interactd")}), settings)
    found = await made.probe()
    if not found.usable:
        pytest.skip(f"podman does not work on this machine: {found.why}")
    yield made
    await made.aclose()
    left = await asyncio.create_subprocess_exec(
        settings.engine or "podman", "ps", "-aq", "--filter", "label=interactd.sandbox", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await left.communicate()
    assert said == b""
    assert list(Path("/tmp").glob("interactd-way-*")) == []


async def run(sandbox: Sandbox, *argv: str, **more: Any) -> tuple[str, Exit]:
    said, last = b"", None
    async for event in sandbox.exec(argv, **more):
        if isinstance(event, Output):
            said += event.data
        else:
            last = event
    assert isinstance(last, Exit)
    return said.decode(errors="replace"), last


@asynccontextmanager
async def started(container: Container, tmp_path: Path, **more: Any) -> AsyncGenerator[Sandbox]:
    folders = [tmp_path / "env" / part for part in ("ws", "home")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    sandbox = await container.start(Spec("env_test", folders[0], folders[1], **more))
    try:
        yield sandbox
    finally:
        await sandbox.aclose()


async def test_commands_run_and_end_for_the_reason_that_is_told(container: Container, tmp_path: Path) -> None:
    limits = Limits(memory_mb=128, output_bytes=200_000, wall_s=30, pids=64)
    async with started(container, tmp_path, limits=limits) as sandbox:
        assert (await run(sandbox, "bash", "-c", "echo $HOME; echo hi > /workspace/x; cat x"))[0] == "/home/agent\nhi\n"
        assert (tmp_path / "env" / "ws" / "x").read_text() == "hi\n"
        assert (await run(sandbox, "bash", "-c", "exit 7"))[1].code == 7
        said, ended = await run(sandbox, "python3", "-c", "while True: print('x' * 65536)")
        assert (len(said), ended.why) == (200_000, "output")
        _, ended = await run(sandbox, "bash", "-c", "sleep 100 & exec sleep 100", wall_s=1.0)
        assert ended.why == "timeout"
        _, ended = await run(sandbox, "python3", "-c", "x = bytearray(900 << 20)")
        assert ended.why == "memory" or ended.code == 1
        assert (await run(sandbox, "bash", "-c", "echo still here"))[0] == "still here\n"


async def test_nothing_but_the_proxy_is_reached_and_only_what_is_listed(
    net: Net, container: Container, tmp_path: Path
) -> None:
    server = await net.server()
    rules: list[str | Json] = [f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"]
    ways = NetworkWays(KEEP, resolver=net.resolve, upstream=net.roots.trusting())
    (tmp_path / "way").mkdir()
    way: NetworkWay = await ways.open({"allowlist": rules}, {}, tmp_path / "way")
    program = """
        import socket, sys, urllib.request, urllib.error
        port = int(sys.argv[1])
        for url in sys.argv[2:]:
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    print(answer.status, answer.read().decode())
            except urllib.error.HTTPError as exc:
                print(exc.code, exc.read().decode()[:60])
            except OSError as exc:
                print("failed", str(exc)[:60])
        for family, to in ((2, ("127.0.0.1", port)), (2, ("1.1.1.1", 80)), (10, ("::1", port)), (10, ("2606::1", 80))):
            try:
                socket.socket(family).connect(to)
                print("ESCAPED", to)
            except OSError:
                print("stays in")
        try:
            print("ESCAPED", socket.getaddrinfo("example.org", 80))
        except socket.gaierror:
            print("no names")
        print(sorted(name for _n, name in socket.if_nameindex()))
    """
    try:
        async with started(container, tmp_path, env=way.env, egress=way.egress) as sandbox:
            urls = [f"http://{host}:{server.port}/" for host in ("allowed.test", "127.0.0.1", "denied.test")]
            said, ended = await run(sandbox, "python3", "-c", textwrap.dedent(program), str(server.port), *urls)
            lines = [line for line in said.splitlines() if line]
            assert lines[0] == f"200 hello from allowed.test:{server.port}", said
            assert lines[1] == f"200 hello from 127.0.0.1:{server.port}", said
            assert lines[2].startswith("403 interactd: this request was refused"), said
            assert lines[3:] == ["stays in"] * 4 + ["no names", "['lo']"], said
            assert ended.code == 0
            # The folder that the socket is in takes no other.
            line = "for c in 'rm -f proxy' 'touch x'; do $c 2>/dev/null && echo ESCAPED || echo no; done"
            said, _ = await run(sandbox, "bash", "-c", line, cwd="/run/interactd/way")
            assert said == "no\nno\n"
            big, _ = await run(sandbox, "python3", "-c", _BIG, f"http://allowed.test:{server.port}/big")
            assert big.strip().isdigit()
        log = [(entry["host"], entry["verdict"]) for entry in way.log()]
        assert log[:3] == [("allowed.test", "allowed"), ("127.0.0.1", "allowed"), ("denied.test", "denied")]
        assert len(log) == 23
    finally:
        await way.aclose()


_BIG = """
import sys, threading, urllib.request
done = []
def get():
    with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
        done.append(len(answer.read()))
threads = [threading.Thread(target=get) for _ in range(20)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sum(done) if len(done) == 20 else 'lost')
"""
