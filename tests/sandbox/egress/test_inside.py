"""The whole way: real programs in a real bubblewrap sandbox, its proxy as the only door."""

from __future__ import annotations

import platform
import shutil
import socket
import textwrap
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interactd.nouns import Json
from interactd.paths import find
from interactd.sandbox.egress.ways import NetworkWay, NetworkWays
from interactd.sandbox.launchers import Settings, all_launchers
from interactd.sandbox.port import Exit, Output, Sandbox, Spec
from sandbox.egress.parts import Keep, Net, Seen, reply

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(platform.system() != "Linux" or shutil.which("bwrap") is None, reason="needs bubblewrap"),
]
SECRET = "ghp_S3cretValue"
KEEP = Keep(
    {"id": "github", "type": "bearer_token", "token": SECRET},
    {"id": "key", "type": "environment_variable", "value": SECRET, "trusted_domains": ["api.test"]},
)
PYTHON_GET = """
    import sys, urllib.request, urllib.error
    for url in sys.argv[1:]:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                print(answer.status, answer.read().decode())
        except urllib.error.HTTPError as exc:
            print(exc.code, exc.read().decode())
        except OSError as exc:
            print("failed", exc)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Box:
    """A started sandbox and its way out."""

    def __init__(self, sandbox: Sandbox, way: NetworkWay, folder: Path) -> None:
        self.sandbox, self.way, self.folder = sandbox, way, folder

    async def run(self, *argv: str) -> str:
        said, code = b"", None
        async for event in self.sandbox.exec(argv, wall_s=40):
            if isinstance(event, Output):
                said += event.data
            else:
                assert isinstance(event, Exit)
                code = event.code
        return said.decode(errors="replace") + f"[{code}]"

    async def python(self, program: str, *arguments: str) -> str:
        return await self.run("python3", "-c", textwrap.dedent(program), *arguments)


@asynccontextmanager
async def box(
    net: Net, tmp_path: Path, allow: list[str | Json] | None, env: Mapping[str, Any] | None = None
) -> AsyncGenerator[Box]:
    launchers = all_launchers(find({"INTERACTD_HOME": str(tmp_path / "interactd")}).make(), Settings())
    launcher = await launchers.choose("bubblewrap")
    folders = [tmp_path / "env" / part for part in ("ws", "home", "way")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    ways = NetworkWays(KEEP, resolver=net.resolve, upstream=net.roots.trusting())
    way = await ways.open(None if allow is None else {"allowlist": allow}, env or {}, folders[2])
    spec = Spec("env_test", folders[0], folders[1], env=way.env, egress=way.egress)
    try:
        sandbox = await launcher.start(spec)
        try:
            yield Box(sandbox, way, tmp_path)
        finally:
            await sandbox.aclose()
    finally:
        await way.aclose()
        await launchers.aclose()


async def test_python_and_curl_reach_what_is_listed_and_nothing_else(net: Net, tmp_path: Path) -> None:
    server, secret_server = await net.server(), await net.server()
    net.names["rebound.test"] = [["127.0.0.1"]]
    rules: list[str | Json] = [
        f"allowed.test:{server.port}",
        f"127.0.0.1:{server.port}",
        f"rebound.test:{secret_server.port}",
    ]
    async with box(net, tmp_path, rules) as inside:
        said = await inside.python(
            PYTHON_GET,
            f"http://allowed.test:{server.port}/",
            f"http://127.0.0.1:{server.port}/",
            f"http://denied.test:{server.port}/",
            f"http://rebound.test:{secret_server.port}/",
            f"https://denied.test:{server.port}/",
        )
        lines = [line for line in said.splitlines() if line]
        assert lines[0] == f"200 hello from allowed.test:{server.port}"
        assert lines[1] == f"200 hello from 127.0.0.1:{server.port}"
        assert lines[2].startswith("403 interactd: this request was refused: denied.test is not in this environment's")
        assert "resolves to an address that is loopback" in lines[3]
        assert "Tunnel connection failed: 403 denied.test is not in this environment's network allow-list" in lines[4]
        if Path("/usr/bin/curl").exists():
            curled = await inside.run("curl", "-sS", f"http://allowed.test:{server.port}/curl")
            assert curled == f"hello from allowed.test:{server.port}[0]"
        assert secret_server.seen == []
        verdicts = [(entry["host"], entry["verdict"]) for entry in inside.way.log()]
        assert verdicts[:5] == [
            ("allowed.test", "allowed"),
            ("127.0.0.1", "allowed"),
            ("denied.test", "denied"),
            ("rebound.test", "denied"),
            ("denied.test", "denied"),
        ]


DIRECT = """
    import socket, sys
    port = int(sys.argv[1])
    def tell(name, act):
        try:
            act()
            print(name, "got out")
        except OSError as exc:
            print(name, "stayed in")
    def udp(to):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.sendto(b"x" * 12, to)
            sock.recv(10)
    tell("host-loopback", lambda: socket.create_connection(("127.0.0.1", port), 2))
    tell("tcp", lambda: socket.create_connection(("1.1.1.1", 443), 2))
    tell("tcp6", lambda: socket.create_connection(("2606:4700:4700::1111", 443), 2))
    tell("metadata", lambda: socket.create_connection(("169.254.169.254", 80), 2))
    tell("udp", lambda: udp(("8.8.8.8", 53)))
    tell("dns", lambda: socket.getaddrinfo("allowed.test", 80))
"""


@pytest.mark.parametrize("network", [True, False])
async def test_there_is_no_other_way_out_dns_included(net: Net, tmp_path: Path, network: bool) -> None:
    server = await net.server()
    rules: list[str | Json] | None = [f"allowed.test:{server.port}"] if network else None
    async with box(net, tmp_path, rules) as inside:
        said = await inside.python(DIRECT, str(server.port))
        assert "got out" not in said
        assert said.count("stayed in") == 6
    assert server.connections == 0


async def test_without_a_network_there_is_no_proxy_to_talk_to(net: Net, tmp_path: Path) -> None:
    async with box(net, tmp_path, None) as inside:
        assert inside.way.egress is None
        said = await inside.python(
            "import socket\ntry:\n  socket.create_connection(('127.0.0.1', 3128), 2); print('there')\n"
            "except ConnectionRefusedError: print('none')"
        )
        assert said.startswith("none")


async def test_when_the_proxy_ends_the_sandbox_has_no_network(net: Net, tmp_path: Path) -> None:
    server = await net.server()
    async with box(net, tmp_path, [f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"]) as inside:
        url = f"http://allowed.test:{server.port}/"
        assert (await inside.python(PYTHON_GET, url)).startswith("200 ")
        assert inside.way.egress is not None
        await inside.way.egress.aclose()
        assert (await inside.python(PYTHON_GET, url)).startswith("failed ")
        assert "got out" not in await inside.python(DIRECT, str(server.port))


async def test_a_secret_reaches_its_server_over_tls_and_is_nowhere_in_the_sandbox(net: Net, tmp_path: Path) -> None:
    server = await net.server(
        lambda seen: reply((seen.header("authorization") or seen.header("x-key") or "none").encode()),
        tls=["api.test"],
    )
    rules: list[str | Json] = [
        {"domain": f"api.test:{server.port}", "credential": "github"},
        f"127.0.0.1:{server.port}",
    ]
    async with box(net, tmp_path, rules, {"TOKEN": {"credential": "key"}}) as inside:
        url = f"https://api.test:{server.port}/"
        assert (await inside.python(PYTHON_GET, url)).startswith(f"200 Bearer {'*' * len(SECRET)}")
        program = """
            import os, sys, urllib.request
            request = urllib.request.Request(sys.argv[1], headers={"X-Key": os.environ["TOKEN"]})
            print(urllib.request.urlopen(request, timeout=20).status, os.environ["TOKEN"][:21])
        """
        assert (await inside.python(program, url)).startswith("200 interactd-credential-")
        if Path("/usr/bin/curl").exists():
            assert (await inside.run("curl", "-sS", url)).startswith("Bearer ***")
        seen: list[Seen] = server.seen
        assert {entry.header("authorization") for entry in seen} == {f"Bearer {SECRET}"}
        assert SECRET in [entry.header("x-key") for entry in seen]
        search = f"""
            import os
            secret, found = {SECRET[::-1]!r}[::-1].encode(), []
            for top in ("/workspace", os.environ["HOME"], "/tmp", "/etc", "/proc/self", "/run", "/agent"):
                for folder, _, names in os.walk(top):
                    for name in names:
                        path = os.path.join(folder, name)
                        try:
                            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                        except OSError:
                            continue
                        try:
                            if secret in os.read(fd, 5_000_000):
                                found.append(path)
                        except OSError:
                            pass
                        finally:
                            os.close(fd)
            print("found", found, [k for k, v in os.environ.items() if secret.decode() in v])
        """
        assert (await inside.python(search)).startswith("found [] []")
        assert SECRET not in str(inside.way.log())
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


async def test_two_sandboxes_have_each_their_own_policy_and_log(net: Net, tmp_path: Path) -> None:
    server = await net.server()
    address = f"127.0.0.1:{server.port}"
    url = f"http://allowed.test:{server.port}/"
    async with box(net, tmp_path / "a", [f"allowed.test:{server.port}", address]) as first:
        async with box(net, tmp_path / "b", ["other.test"]) as second:
            assert (await first.python(PYTHON_GET, url)).startswith("200 ")
            assert (await second.python(PYTHON_GET, url)).startswith("403 ")
            assert (len(first.way.log()), len(second.way.log())) == (1, 1)


async def test_the_listener_is_not_reachable_from_the_host(net: Net, tmp_path: Path) -> None:
    async with box(net, tmp_path, ["allowed.test"]):
        with socket.socket() as sock:
            sock.settimeout(1)
            assert sock.connect_ex(("127.0.0.1", 3128)) != 0
