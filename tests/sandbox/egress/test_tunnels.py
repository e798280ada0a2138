"""Tunnels: TLS only, to the name that was asked for, and closed to us."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from interactd.sandbox.egress.wire.hello import NotTls, read_client_hello
from interactd.sandbox.egress.wire.stream import Reader
from sandbox.egress.parts import WAIT_S, Net, reply, until

pytestmark = pytest.mark.anyio


async def test_a_tunnel_to_a_listed_name_carries_the_servers_own_tls(net: Net) -> None:
    server = await net.server(tls=["allowed.test"])
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    answer = await route.https(f"https://allowed.test:{server.port}/x", roots=net.roots.trusting())
    assert answer.status == 200
    await until(lambda: route.log[0]["ms"] is not None)
    (entry,) = route.log
    assert (entry["method"], entry["host"], entry["port"], entry["verdict"]) == (
        "CONNECT",
        "allowed.test",
        server.port,
        "allowed",
    )
    assert entry["bytes_up"] > 200
    assert entry["bytes_down"] > 200
    assert route.proxy.ca_file is None


async def test_a_refused_tunnel_says_why_where_clients_show_it(net: Net) -> None:
    route = await net.proxy(["allowed.test"])
    with pytest.raises(OSError, match=r"403 denied\.test is not in this environment's network allow-list"):
        await route.https("https://denied.test/", roots=net.roots.trusting())


@pytest.mark.parametrize(
    ("target", "words"),
    [("127.0.0.1:443", "the address"), ("allowed.test:22", "port 22"), ("[::1]:443", "the address")],
)
async def test_a_tunnel_elsewhere_is_refused(net: Net, target: str, words: str) -> None:
    route = await net.proxy(["allowed.test"])
    said = await route.raw(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403 ")
    assert words.encode() in said


async def test_a_tunnel_to_a_rebound_name_is_refused(net: Net) -> None:
    net.names["rebound.test"] = [["169.254.169.254"]]
    route = await net.proxy(["rebound.test"])
    said = await route.raw(b"CONNECT rebound.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 rebound.test resolves to an address that is ")


@pytest.mark.parametrize("name", ["other.test", None, "allowed.test.evil.test"])
async def test_another_name_inside_the_tunnel_is_cut_off_with_an_alert(net: Net, name: str | None) -> None:
    server = await net.server(tls=["allowed.test"])
    route = await net.proxy([f"allowed.test:{server.port}", f"other.test:{server.port}", f"127.0.0.1:{server.port}"])
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        await route.handshake(f"allowed.test:{server.port}", name, net.roots.trusting())
    await until(lambda: route.log[0]["ms"] is not None)
    assert route.log[0]["verdict"] == "denied"
    assert "server" in route.log[0]["reason"] or "asks for" in route.log[0]["reason"]
    assert server.seen == []


async def test_a_tunnel_to_a_listed_address_needs_no_name_inside(net: Net) -> None:
    server = await net.server(tls=["127.0.0.1"])
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    await route.handshake(f"127.0.0.1:{server.port}", None, net.roots.trusting())
    await until(lambda: route.log[0]["ms"] is not None)
    assert route.log[0]["verdict"] == "allowed"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x02\x00\x00\x05hello", b"\x80\x2e\x01"]
)
async def test_what_is_not_tls_does_not_go_through_a_tunnel(net: Net, data: bytes) -> None:
    server = await net.server()
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    head = f"CONNECT allowed.test:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    said = await route.raw(head + data, finish=False)
    assert said in (b"", b"HTTP/1.1 200 Connection established\r\n\r\n")
    await until(lambda: route.log[0]["ms"] is not None)
    assert route.log[0]["verdict"] == "denied"
    assert "TLS" in route.log[0]["reason"]
    assert server.seen == []


async def test_an_encrypted_client_hello_is_refused(net: Net) -> None:
    server = await net.server(tls=["allowed.test"])
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    head = f"CONNECT allowed.test:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    hello = with_extension(client_hello("allowed.test"), 0xFE0D, b"\x00" * 20)
    await route.raw(head + hello, finish=False)
    await until(lambda: route.log[0]["ms"] is not None)
    assert "encrypted client hello" in route.log[0]["reason"]


async def test_a_hello_in_small_pieces_and_many_records_is_read_whole() -> None:
    hello = client_hello("allowed.test")
    body = hello[5:]
    records = b"".join(b"\x16\x03\x01" + len(p).to_bytes(2, "big") + p for p in (body[:3], body[3:50], body[50:]))
    read = await read_client_hello(Reader(Pieces(records)))
    assert read.names == ("allowed.test",)
    assert read.raw == records


@pytest.mark.parametrize("at", [5, 9, 12, 43, 44, 60, 100])
async def test_a_broken_hello_is_not_tls_or_its_true_name_is_found(at: int) -> None:
    # Whatever one byte is turned into: an error, or a parse that still sees the one name.
    hello = client_hello("allowed.test")
    for value in (0, 1, 0x7F, 0xFF):
        broken = hello[:at] + bytes([value]) + hello[at + 1 :]
        try:
            read = await read_client_hello(Reader(Pieces(broken)))
        except (NotTls, EOFError):
            continue
        assert read.names in ((), ("allowed.test",))


async def test_both_ends_of_a_tunnel_may_end_first(net: Net) -> None:
    server = await net.server(lambda seen: reply(b"x" * 3_000_000), tls=["allowed.test"])
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    answer = await route.https(f"https://allowed.test:{server.port}/", roots=net.roots.trusting())
    assert len(answer.body) == 3_000_000
    server.stop()
    await until(lambda: route.log[0]["ms"] is not None)
    assert route.log[0]["bytes_down"] > 3_000_000


async def test_a_server_that_hangs_up_ends_the_tunnel(net: Net) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    route = await net.proxy([f"allowed.test:{port}", f"127.0.0.1:{port}"])
    with pytest.raises(OSError, match=r"."):
        await route.handshake(f"allowed.test:{port}", "allowed.test", net.roots.trusting())
    await until(lambda: route.log[0]["ms"] is not None)
    server.close()


class Pieces:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def recv(self, count: int = 7) -> bytes:
        out, self._data = self._data[:7], self._data[7:]
        return out

    async def send(self, data: bytes) -> None:
        raise AssertionError("nothing is sent")

    async def finish(self) -> None:
        return


def client_hello(name: str) -> bytes:
    """The very bytes that OpenSSL would send."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(into, out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def with_extension(hello: bytes, kind: int, content: bytes) -> bytes:
    """Add an extension at the end and mend the three lengths around it."""
    added = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    total = int.from_bytes(hello[at : at + 2], "big") + len(added)
    body = hello[9:at] + total.to_bytes(2, "big") + hello[at + 2 :] + added
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


async def test_a_client_that_opens_a_tunnel_and_says_nothing_is_let_go(net: Net) -> None:
    from sandbox.egress.parts import small

    server = await net.server()
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"], limits=small(tls_s=0.05))
    head = f"CONNECT allowed.test:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with asyncio.timeout(WAIT_S):
        await route.raw(head, finish=False)
    assert "no TLS began" in route.log[0]["reason"]
    assert socket.getdefaulttimeout() is None
