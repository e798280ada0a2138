"""Plain HTTP through the proxy: what is listed goes out as one clean message, the rest stays in."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from interactd.sandbox.egress.policy.addresses import is_own
from interactd.sandbox.egress.policy.hosts import as_address
from sandbox.egress.parts import Net, Seen, reply, until

pytestmark = pytest.mark.anyio


async def test_a_listed_host_is_reached_by_name_through_the_outside_resolver(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    answer = await route.get(f"http://allowed.test:{server.port}/page?q=1")
    assert (answer.status, answer.text) == (200, f"hello from allowed.test:{server.port}")
    assert server.seen[0].target == "/page?q=1"
    assert net.lookups == ["allowed.test"]


async def test_a_host_that_is_not_listed_gets_a_403_that_says_how_to_allow_it(net: Net) -> None:
    route = await net.proxy(["allowed.test"])
    answer = await route.get("http://denied.test/")
    assert answer.status == 403
    assert "denied.test is not in this environment's network allow-list" in answer.reason
    assert '{"domain": "denied.test"}' in answer.text
    assert "allowed.test" in answer.text
    assert net.lookups == []


async def test_every_request_is_in_the_log_with_its_verdict_and_bytes(net: Net) -> None:
    server = await net.server()
    told: list[object] = []
    route = await net.proxy([f"127.0.0.1:{server.port}"], on_request=told.append)
    before = time.time()
    await route.get(f"http://127.0.0.1:{server.port}/secret-path", method="POST", body=b"x" * 1000)
    await route.get("http://denied.test/")
    await until(lambda: len(told) == 2)
    allowed, denied = route.log
    assert told == [allowed, denied]
    assert (allowed["method"], allowed["host"], allowed["port"], allowed["verdict"], allowed["status"]) == (
        "POST",
        "127.0.0.1",
        server.port,
        "allowed",
        200,
    )
    assert allowed["bytes_up"] > 1000
    assert allowed["bytes_down"] > len("hello from ")
    assert allowed["bytes"] == allowed["bytes_up"] + allowed["bytes_down"]
    assert allowed["ms"] > 0
    assert before <= allowed["at"] <= time.time()
    assert (denied["host"], denied["port"], denied["verdict"]) == ("denied.test", 80, "denied")
    assert "allow-list" in denied["reason"]
    assert "secret-path" not in str(route.log)


@pytest.mark.parametrize(
    ("host", "out"),
    [
        ("a.wild.test", True),
        ("a.b.wild.test", True),
        ("wild.test", False),
        ("evilwild.test", False),
        ("wild.test.evil.test", False),
    ],
)
async def test_a_wildcard_means_subdomains_only(net: Net, host: str, out: bool) -> None:
    server = await net.server()
    route = await net.proxy([f"*.wild.test:{server.port}", f"127.0.0.1:{server.port}"])
    assert ((await route.get(f"http://{host}:{server.port}/")).status == 200) is out


@pytest.mark.parametrize("spelling", ["ALLOWED.test", "allowed.test.", "AlLoWeD.TeSt."])
async def test_case_and_a_trailing_dot_do_not_make_another_host(net: Net, spelling: str) -> None:
    server = await net.server()
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    assert (await route.get(f"http://{spelling}:{server.port}/")).status == 200
    assert server.seen[0].header("host") == f"allowed.test:{server.port}"


async def test_a_port_that_is_not_listed_is_refused_and_named(net: Net) -> None:
    route = await net.proxy(["allowed.test"])
    answer = await route.get("http://allowed.test:8080/")
    assert answer.status == 403
    assert "port 8080" in answer.text
    assert '{"domain": "allowed.test:8080"}' in answer.text


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "169.254.169.254",
        "8.8.8.8",
        "0",
    ],
)
async def test_an_address_in_any_spelling_is_refused_even_where_every_name_is_allowed(net: Net, host: str) -> None:
    route = await net.proxy(["*"])
    assert b" 403 " in (await route.raw(f"GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())).split(b"\r\n")[0]
    assert net.lookups == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "2001:0:a00:1::",
    ],
)
async def test_a_name_that_resolves_to_an_address_that_is_not_public_is_refused(net: Net, address: str) -> None:
    net.names["rebound.test"] = [[address]]
    route = await net.proxy(["rebound.test"])
    answer = await route.get("http://rebound.test/")
    assert answer.status == 403
    assert "resolves to an address that is" in answer.text
    assert address not in answer.text


async def test_one_private_address_among_public_ones_refuses_the_name(net: Net) -> None:
    net.names["mixed.test"] = [["93.184.216.34", "127.0.0.1"]]
    route = await net.proxy(["mixed.test"])
    assert (await route.get("http://mixed.test/")).status == 403


async def test_a_name_that_changes_its_address_is_judged_anew_each_time_and_dialled_where_it_was_judged(
    net: Net,
) -> None:
    server = await net.server()
    inner = await net.server()
    # Had the proxy resolved a second time to connect, the second answer would have been dialled.
    net.names["rebinding.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    route = await net.proxy([f"rebinding.test:{server.port}", f"127.0.0.1:{server.port}"])
    assert (await route.get(f"http://rebinding.test:{server.port}/")).status == 200
    assert (await route.get(f"http://rebinding.test:{server.port}/")).status == 403
    assert (len(server.seen), len(inner.seen), net.lookups) == (1, 0, ["rebinding.test"] * 2)


async def test_a_listed_address_opens_its_port_only(net: Net) -> None:
    listed, other = await net.server(), await net.server()
    route = await net.proxy([f"127.0.0.1:{listed.port}", f"name.test:{other.port}"])
    assert (await route.get(f"http://127.0.0.1:{listed.port}/")).status == 200
    assert (await route.get(f"http://127.0.0.1:{other.port}/")).status == 403
    assert (await route.get(f"http://name.test:{other.port}/")).status == 403
    assert other.seen == []


async def test_localhost_listed_by_name_is_this_machine_and_a_star_never_is(net: Net) -> None:
    server = await net.server()
    named = await net.proxy([f"localhost:{server.port}"])
    starred = await net.proxy([f"*:{server.port}"])
    assert (await named.get(f"http://localhost:{server.port}/")).status == 200
    assert (await starred.get(f"http://localhost:{server.port}/")).status == 403


def test_an_address_of_this_machine_is_known_as_its_own() -> None:
    loopback, public = as_address("127.0.0.1"), as_address("93.184.216.34")
    assert loopback is not None
    assert public is not None
    assert is_own(loopback)
    assert not is_own(public)


async def test_the_host_header_is_that_of_the_checked_url(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"])
    await route.raw(
        f"GET http://allowed.test:{server.port}/ HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n".encode()
    )
    assert server.seen[0].header("host") == f"allowed.test:{server.port}"


async def test_hop_by_hop_headers_stay_on_their_hop(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    await route.raw(
        f"GET http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        "Proxy-Authorization: Basic YTpi\r\nUpgrade: websocket\r\nX-Kept: 2\r\n\r\n".encode()
    )
    assert [key.lower() for key, _ in server.seen[0].headers] == ["host", "x-kept"]


async def test_bodies_go_both_ways_by_length_and_by_chunks(net: Net) -> None:
    def respond(seen: Seen) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nT: 1\r\n\r\n" % (
            len(seen.body),
            seen.body,
        )

    server = await net.server(respond)
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    url, body = f"http://127.0.0.1:{server.port}/", bytes(range(256)) * 1000
    assert (await route.get(url, method="POST", body=body)).body == body
    chunked = await route.raw(
        f"PUT {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    )
    assert b"b\r\nhello world\r\n0\r\n\r\n" in chunked
    assert server.seen[1].body == b"hello world"


async def test_a_client_that_waits_for_continue_is_told_to_go_on(net: Net) -> None:
    server = await net.server(lambda seen: reply(seen.body))
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
    url = f"http://127.0.0.1:{server.port}/"
    writer.write(f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"data")
        assert b"200" in await reader.readline()
    writer.close()


async def test_one_connection_serves_many_requests_to_several_hosts(net: Net) -> None:
    first, second = await net.server(), await net.server()
    route = await net.proxy([f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"])
    asks = [first, first, second, first]
    data = b"".join(
        f"GET http://127.0.0.1:{s.port}/{i} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for i, s in enumerate(asks)
    )
    last = f"GET http://127.0.0.1:{first.port}/end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    said = await route.raw(data + last.encode())
    assert said.count(b"HTTP/1.1 200 OK") == 5
    assert [seen.target for seen in first.seen] == ["/0", "/1", "/3", "/end"]
    assert (first.connections, second.connections) == (2, 1)


async def test_head_and_304_have_no_body_and_keep_their_length(net: Net) -> None:
    server = await net.server(lambda seen: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n")
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    answer = await route.get(f"http://127.0.0.1:{server.port}/", method="HEAD")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (304, "77", b"")


async def test_an_answer_cut_short_is_not_taken_for_a_whole_one(net: Net) -> None:
    held: list[asyncio.StreamWriter] = []

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    route = await net.proxy([f"127.0.0.1:{port}"])
    with pytest.raises((OSError, Exception)) as caught:
        await route.get(f"http://127.0.0.1:{port}/")
    assert type(caught.value).__name__ in ("IncompleteRead", "ConnectionResetError")
    assert route.log[-1]["verdict"] == "failed"
    server.close()


async def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens_are_502_not_403(net: Net) -> None:
    net.names["gone.test"] = [[]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    route = await net.proxy(["gone.test", f"127.0.0.1:{closed}"])
    assert (await route.get("http://gone.test/")).status == 502
    refused = await route.get(f"http://127.0.0.1:{closed}/")
    assert refused.status == 502
    assert "could not be made" in refused.text
    assert [entry["verdict"] for entry in route.log] == ["failed", "failed"]


async def test_a_name_server_that_hangs_is_given_up(net: Net) -> None:
    from interactd.sandbox.egress.policy.rules import Policy
    from interactd.sandbox.egress.proxy import Proxy
    from sandbox.egress.parts import small

    async def never(name: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    policy = Policy.from_environment({"allowlist": ["slow.test"]}, {}, None)
    proxy = await Proxy.open(policy, net.folder, resolver=never, limits=small(resolve_s=0.05))
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(proxy.serve(listener))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    writer.write(b"GET http://slow.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        assert b" 504 " in await reader.readline()
    writer.close()
    await proxy.aclose()
    await serving


async def test_a_proxy_that_ends_leaves_no_way_out(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    assert (await route.get(f"http://127.0.0.1:{server.port}/")).status == 200
    await route.proxy.aclose()
    with pytest.raises(ConnectionRefusedError):
        await route.get(f"http://127.0.0.1:{server.port}/")
