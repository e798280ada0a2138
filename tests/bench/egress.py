"""What the egress proxy costs: a request through it beside the same request without it, in one run.

    python tests/bench/egress.py [--requests 300] [--megabytes 50]

Server and proxy are processes of their own, as in life; the client is this one, with http.client. Direct and proxied
requests take turns, so that a busy machine hurts both alike. Times are in milliseconds, minimum and median.
"""

# ruff: noqa: E402 - the helpers are below tests, not beside this file

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder, whose sandbox.py would be found first

from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.proxy import Proxy
from sandbox.egress.parts import Keep, TestAuthority, internet

KEEP = Keep({"id": "key", "type": "bearer_token", "token": "a-secret-for-the-bench"})
NAMES = ["closed.test", "ended.test"]


def run(role: Coroutine[None, None, None]) -> None:
    """Run a role as the daemon would: on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(role)
    else:
        uvloop.run(role)


async def serve(folder: Path, megabytes: int) -> None:
    """Two servers, plain and TLS; prints their ports, ends when stdin does."""
    big = b"x" * (megabytes << 20)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = big if head.startswith(b"GET /big") else b"hello"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            writer.close()

    roots = TestAuthority.make(folder)
    (folder / "roots.pem").write_bytes(roots.pem)
    plain = await asyncio.start_server(handle, "127.0.0.1", 0)
    secure = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=roots.server(*NAMES))
    print(json.dumps([server.sockets[0].getsockname()[1] for server in (plain, secure)]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def proxy(folder: Path, ports: list[int]) -> None:
    """The proxy; prints its port."""
    plain, secure = ports
    rules = [
        f"127.0.0.1:{plain}",
        f"127.0.0.1:{secure}",
        f"closed.test:{secure}",
        {"domain": f"ended.test:{secure}", "credential": "key"},
    ]
    policy = Policy.from_environment({"allowlist": rules}, {}, KEEP)
    trusting = ssl.create_default_context(cafile=folder / "roots.pem")
    async with internet(folder) as net:
        made = await Proxy.open(policy, folder, resolver=net.resolve, upstream=trusting)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        serving = asyncio.create_task(made.serve(listener))
        print(json.dumps(listener.getsockname()[1]), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await made.aclose()
        await serving


class Client:
    """One way to ask; `kept` asks again on the same connection."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection], url: str, kept: bool) -> None:
        self._connect, self._url = connect, url
        self._held = connect() if kept else None
        self.times: list[float] = []

    def ask(self, path: str = "/") -> int:
        connection = self._held or self._connect()
        connection.request("GET", self._url + path)
        size = len(connection.getresponse().read())
        if self._held is None:
            connection.close()
        return size

    def measure(self) -> None:
        began = time.perf_counter()
        self.ask()
        self.times.append((time.perf_counter() - began) * 1000)


def clients(folder: Path, plain: int, secure: int, port: int) -> dict[str, tuple[Client, Client]]:
    """Return pairs of a direct client and a proxied one."""
    server, sandbox = (ssl.create_default_context(cafile=folder / name) for name in ("roots.pem", "ca.pem"))

    def direct() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", plain)

    def proxied() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port)

    def direct_tls() -> http.client.HTTPConnection:
        connection = http.client.HTTPSConnection("closed.test", secure, context=server)
        sock = socket.create_connection(("127.0.0.1", secure))
        connection.sock = server.wrap_socket(sock, server_hostname="closed.test")
        return connection

    def tunnel(name: str, trusting: ssl.SSLContext) -> Callable[[], http.client.HTTPConnection]:
        def connect() -> http.client.HTTPConnection:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting)
            connection.set_tunnel(name, secure)
            return connection

        return connect

    url = f"http://127.0.0.1:{plain}"
    closed, ended = tunnel("closed.test", server), tunnel("ended.test", sandbox)
    return {
        "http, new connection": (Client(direct, "", False), Client(proxied, url, False)),
        "http, kept connection": (Client(direct, "", True), Client(proxied, url, True)),
        "https closed, new tunnel": (Client(direct_tls, "", False), Client(closed, "", False)),
        "https closed, kept tunnel": (Client(direct_tls, "", True), Client(closed, "", True)),
        "https ended, new tunnel": (Client(direct_tls, "", False), Client(ended, "", False)),
        "https ended, kept tunnel": (Client(direct_tls, "", True), Client(ended, "", True)),
    }


def child(stack: ExitStack, *arguments: str) -> object:
    """Start this file in a role and return what it prints first."""
    started = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(started.wait, 20)
    stack.callback(cast("IO[str]", started.stdin).close)
    stack.callback(cast("IO[str]", started.stdout).close)
    return json.loads(cast("IO[str]", started.stdout).readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=json.loads, default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        role, folder = given.role[0], Path(given.role[1])
        run(serve(folder, given.megabytes) if role == "serve" else proxy(folder, given.ports))
        return
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ports = cast("list[int]", child(stack, "--role", "serve", name, "--megabytes", str(given.megabytes)))
        port = cast("int", child(stack, "--role", "proxy", name, "--ports", json.dumps(ports)))
        pairs = clients(Path(name), ports[0], ports[1], port)
        print(
            f"{'way':28}{'direct min/p50':>18}{'proxied min/p50':>18}{'added p50':>11}{'MB/s direct':>13}{'proxied':>9}"
        )
        for way, (direct, proxied) in pairs.items():
            for _ in range(given.requests):
                direct.measure()
                proxied.measure()
            speeds: list[float] = []
            for client in (direct, proxied):
                began = time.perf_counter()
                assert client.ask("/big") == given.megabytes << 20
                speeds.append(given.megabytes / (time.perf_counter() - began))
            figures = [(min(c.times), statistics.median(c.times)) for c in (direct, proxied)]
            shown = "".join(f"{low:10.2f} /{mid:6.2f}" for low, mid in figures)
            print(f"{way:28}{shown}{figures[1][1] - figures[0][1]:11.2f}{speeds[0]:13.0f}{speeds[1]:9.0f}")


if __name__ == "__main__":
    main()
