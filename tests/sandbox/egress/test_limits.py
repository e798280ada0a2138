"""What one run may use: bytes, requests, connections and time."""

from __future__ import annotations

import asyncio
import http.client

import pytest

from sandbox.egress.parts import WAIT_S, Net, reply, small, until

pytestmark = pytest.mark.anyio


async def test_a_budget_spent_in_the_middle_of_an_answer_cuts_it(net: Net) -> None:
    server = await net.server(lambda seen: reply(b"x" * 500_000))
    route = await net.proxy([f"127.0.0.1:{server.port}"], limits=small(bytes_down=200_000))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        await route.get(f"http://127.0.0.1:{server.port}/")
    assert "budget is spent" in route.log[0]["reason"]
    again = await route.get(f"http://127.0.0.1:{server.port}/")
    assert again.status == 403
    assert "budget is spent" in again.text


async def test_a_budget_spent_in_the_middle_of_an_upload_never_completes_it(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"], limits=small(bytes_up=100_000))
    # The refusal may come while the client still writes.
    try:
        answer = await route.get(f"http://127.0.0.1:{server.port}/", method="POST", body=b"x" * 3_000_000)
        assert answer.status == 403
    except ConnectionError:
        pass
    await until(lambda: route.log[0]["ms"] is not None)
    assert "budget is spent" in route.log[0]["reason"]
    assert server.seen == []


async def test_a_budget_counts_inside_closed_tunnels_too(net: Net) -> None:
    server = await net.server(lambda seen: reply(b"x" * 3_000_000), tls=["allowed.test"])
    route = await net.proxy(
        [f"allowed.test:{server.port}", f"127.0.0.1:{server.port}"], limits=small(bytes_down=200_000)
    )
    with pytest.raises((http.client.IncompleteRead, OSError)):
        await route.https(f"https://allowed.test:{server.port}/", roots=net.roots.trusting())
    await until(lambda: route.log[0]["ms"] is not None)
    assert route.log[0]["verdict"] == "denied"


async def test_requests_are_counted(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"], limits=small(requests=2))
    told = [(await route.get(f"http://127.0.0.1:{server.port}/")).status for _ in range(3)]
    assert told == [200, 200, 403]


async def test_a_flood_of_connections_is_accepted_only_up_to_the_cap_and_served_in_turn(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"], limits=small(connections=4, head_s=0.3))
    held = [await asyncio.open_connection("127.0.0.1", route.port) for _ in range(40)]
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "egress"]
    await until(lambda: len([task for task in asyncio.all_tasks() if task.get_name() == "egress"]) == 4)
    assert len(tasks) <= 4
    # Those that say nothing are let go, so that one who asks is served at last.
    assert (await route.get(f"http://127.0.0.1:{server.port}/")).status == 200
    for _, writer in held:
        writer.close()


async def test_a_head_sent_byte_by_byte_is_cut_off_in_time(net: Net) -> None:
    route = await net.proxy(["*"], limits=small(head_s=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)

    async def drip() -> None:
        while True:
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(WAIT_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()
    await asyncio.wait({dripping})
    writer.close()


async def test_a_server_that_stops_in_the_middle_is_given_up(net: Net) -> None:
    server = await net.server(lambda seen: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    route = await net.proxy([f"127.0.0.1:{server.port}"], limits=small(idle_s=0.1))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        await route.get(f"http://127.0.0.1:{server.port}/")
    assert "no byte for" in route.log[0]["reason"]


async def test_the_log_is_bounded_and_says_what_it_left_out(net: Net) -> None:
    from interactd.sandbox.egress.log import RequestLog

    log = RequestLog(cap=3)
    for number in range(5):
        log.close(log.open("GET", f"h{number}.test", 80), "denied", "no")
    listed = log.as_list()
    assert [entry["host"] for entry in listed[:3]] == ["h0.test", "h1.test", "h2.test"]
    assert listed[3]["reason"] == "2 more requests are not listed"


async def test_two_proxies_do_not_share_policy_budget_or_log(net: Net) -> None:
    server = await net.server()
    first = await net.proxy([f"127.0.0.1:{server.port}"])
    second = await net.proxy(["allowed.test"])
    url = f"http://127.0.0.1:{server.port}/"
    assert ((await first.get(url)).status, (await second.get(url)).status) == (200, 403)
    assert (len(first.log), len(second.log)) == (1, 1)


async def test_closing_ends_open_connections_and_leaves_no_task(net: Net) -> None:
    server = await net.server()
    route = await net.proxy([f"127.0.0.1:{server.port}"])
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
    writer.write(f"GET http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"200" in await reader.readline()
    await route.proxy.aclose()
    async with asyncio.timeout(WAIT_S):
        await reader.read()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("egress")] == []
    writer.close()
