"""What two readers could understand differently is refused before anything is sent."""

from __future__ import annotations

import pytest

from sandbox.egress.parts import Net, small

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "two lengths",
            "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        ),
        (
            "two content lengths",
            "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        ("a list of lengths", "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc"),
        ("a signed length", "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc"),
        ("another coding", "POST {url}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("an odd coding", "POST {url}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("blank before colon", "GET {url}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n"),
        ("a folded line", "GET {url}/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n"),
        ("two hosts", "GET {url}/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        ("a bare newline", "GET {url}/ HTTP/1.1\r\nHost: x\nX-Evil: 1\r\n\r\n"),
        ("a bare return", "GET {url}/ HTTP/1.1\r\nHost: x\rX-Evil: 1\r\n\r\n"),
        ("a NUL", "GET {url}/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n"),
        ("a blank in the target", "GET {url}/a b HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("userinfo", "GET http://user:pw@127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("userinfo that looks like a host", "GET http://allowed.test@127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a backslash", "GET http://127.0.0.1:{port}\\@evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a fragment", "GET {url}/#@evil.test HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("an escaped host", "GET http://127.0.0.%31:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("another scheme", "GET ftp://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("https without a tunnel", "GET https://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("no proxy request", "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
        ("a port of zero", "GET http://127.0.0.1:0/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a port too large", "GET http://127.0.0.1:65536/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("an empty port", "GET http://127.0.0.1:/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("no host", "GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/0.9", "GET {url}/\r\n\r\n"),
        ("trace", "TRACE {url}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("unknown expectation", "POST {url}/ HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\na"),
        ("connect with a body", "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        ("connect without a port", "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("connect with a path", "CONNECT 127.0.0.1:{port}/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
)
async def test_an_ambiguous_request_is_refused_and_never_sent(net: Net, name: str, message: str) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    text = message.replace("{url}", URL).replace("{port}", str(server.port))
    said = await route.raw(text.encode("latin-1"))
    assert said.startswith(b"HTTP/1.1 403 "), (name, said)
    assert server.seen == []
    assert route.log[-1]["verdict"] == "denied"


@pytest.mark.parametrize(
    "body",
    [
        b"5;x=y\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"-1\r\n\r\n",
    ],
)
async def test_an_upload_in_odd_chunks_never_arrives_whole(net: Net, body: bytes) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    head = f"POST http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = await route.raw(head.encode() + body)
    assert said.startswith(b"HTTP/1.1 403 ")
    assert server.seen == []


async def test_a_head_without_end_is_refused(net: Net) -> None:
    route = await net.proxy(["*"], limits=small(head_bytes=4096))
    said = await route.raw(b"GET http://a.test/ HTTP/1.1\r\n" + b"X: y\r\n" * 2000)
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_what_is_not_http_is_told_at_once(net: Net) -> None:
    route = await net.proxy(["*"])
    assert (await route.raw(b"\x05\x01\x00")).startswith(b"HTTP/1.1 400 ")


async def test_a_hostile_host_stands_in_the_log_as_one_printable_line(net: Net) -> None:
    route = await net.proxy(["allowed.test"])
    await route.raw(b"GET http://ev\x1b[31mil.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
    await route.raw(b"GET http://" + b"a" * 5000 + b".test/ HTTP/1.1\r\nHost: x\r\n\r\n")
    for entry in route.log:
        assert str(entry).isprintable()
        assert len(str(entry)) < 1000
