"""Tricks between two readers of the same bytes: what the server is sent is one clean message for each request."""

from __future__ import annotations

import pytest

from sandbox.egress.parts import Net

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:{port}"
TAIL = "GET http://denied.test/smuggled HTTP/1.1\r\nHost: denied.test\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("the same length twice", "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"
         "abc"),
        ("chunked twice", "POST {url}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked in two headers", "POST {url}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("chunked in HTTP/1.0", "POST {url}/ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a length that is connection's", "POST {url}/ HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\n"
         "Content-Length: {tail}\r\n\r\n" + TAIL),
        ("a coding that is connection's", "POST {url}/ HTTP/1.1\r\nHost: x\r\nConnection: Transfer-Encoding\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + TAIL),
        ("an underscore", "POST {url}/ HTTP/1.1\r\nHost: x\r\nContent_Length: 3\r\n\r\n" + TAIL),
        ("a get with a body", "GET {url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {tail}\r\n\r\n" + TAIL),
        ("tabs in the request line", "GET\t{url}/\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        ("two blanks in it", "GET  {url}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a version of its own", "GET {url}/ HTTP/1.9\r\nHost: x\r\n\r\n"),
        ("a header without a name", "GET {url}/ HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n"),
        ("a first line that is blank", "\r\nGET {url}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("h2c", "GET {url}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
         "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("pipelined", "GET {url}/ HTTP/1.1\r\nHost: x\r\n\r\n" + TAIL),
        ("a host that is connection's", "GET {url}/ HTTP/1.1\r\nConnection: Host\r\nHost: denied.test\r\n\r\n"),
        ("a forwarded host", "GET {url}/ HTTP/1.1\r\nHost: denied.test\r\nX-Forwarded-Host: denied.test\r\n\r\n"),
    ],
)  # fmt: skip
async def test_a_server_never_sees_a_second_reading(net: Net, name: str, message: str) -> None:
    server, other = await net.server(), await net.server()
    net.names["denied.test"] = [["127.0.0.1"]]
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    text = message.replace("{url}", URL).replace("{port}", str(server.port)).replace("{tail}", str(len(TAIL)))
    said = await route.raw(text.encode("latin-1"))
    assert len(server.seen) <= 1, name
    for seen in server.seen:
        assert "smuggled" not in seen.target
        assert seen.header("host") == f"127.0.0.1:{server.port}", name
        assert seen.header("upgrade") is None, name
        assert [header for header, _ in seen.headers].count("content-length") <= 1
        assert not (seen.header("content-length") and seen.header("transfer-encoding"))
    assert other.seen == []
    assert not any(entry["host"] == "denied.test" and entry["verdict"] == "allowed" for entry in route.log)
    assert said.startswith(b"HTTP/1.1 ") or not said


@pytest.mark.parametrize(
    "host",
    [
        "127.1:{port}", "2130706433:{port}", "0x7f000001:{port}", "017700000001:{port}", "127.0.0.1.:{port}",
        "[::ffff:127.0.0.1]:{port}", "[::1%25lo]:{port}", "[0:0:0:0:0:ffff:7f00:1]:{port}", "127.0.0.1:0{port}",
        "127.0.0.1:{port}:80", "127.0.0.1:{port},denied.test", "1\uff12\uff17.0.0.1:{port}", "127\u3002" "0.0.1:{port}",
        "localhost:{port}", "LOCALHOST.:{port}", "allowed.test:{port}\t", "allowed.test\xad:{port}",
        "allowed.test..:{port}", ".allowed.test:{port}", "xallowed.test:{port}",
        "allowed.test.denied.test:{port}", "allowed_test:{port}",
    ],
)  # fmt: skip
async def test_no_spelling_of_an_address_or_name_reaches_what_is_not_listed(net: Net, host: str) -> None:
    server = await net.server()
    for name in ("allowed.test.denied.test", "xallowed.test", "localhost"):
        net.names[name] = [["127.0.0.1"]]
    route = await net.proxy([f"allowed.test:{server.port}"])
    target = host.replace("{port}", str(server.port))
    for request in (
        f"GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        said = await route.raw(request.encode("utf-8"))
        assert not said.startswith(b"HTTP/1.1 200"), said
    assert server.seen == []
