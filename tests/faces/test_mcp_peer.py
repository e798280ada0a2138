"""Places for calls, and names for requests."""

from __future__ import annotations

import asyncio

import pytest

from interactd.faces.mcp import peer as peers
from interactd.faces.mcp.peer import HttpPeers, Peer

pytestmark = pytest.mark.anyio


async def test_a_place_goes_to_the_one_that_waited_longest() -> None:
    peer = Peer("stdio", max_calls=1)
    assert await peer.admit()
    order: list[int] = []

    async def wait(number: int) -> None:
        assert await peer.admit()
        order.append(number)
        peer.leave()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert order == []
    peer.leave()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    assert await peer.admit()


async def test_a_call_that_is_cancelled_while_it_waits_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "QUEUE_S", 0.05)
    peer = Peer("stdio", max_calls=1)
    assert await peer.admit()
    waiting = asyncio.create_task(peer.admit())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    peer.leave()
    assert await peer.admit()
    assert not await peer.admit()


async def test_a_place_that_comes_as_its_waiter_is_cancelled_is_not_lost() -> None:
    peer = Peer("stdio", max_calls=1)
    assert await peer.admit()
    waiting = asyncio.create_task(peer.admit())
    await asyncio.sleep(0)
    peer.leave()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        assert await peer.admit()


async def test_a_call_that_finds_no_place_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "QUEUE_S", 0.02)
    peer = Peer("stdio", max_calls=1)
    assert await peer.admit()
    assert await asyncio.gather(*(peer.admit() for _ in range(10))) == [False] * 10
    peer.leave()
    assert await peer.admit()


def test_request_names_are_distinct_and_forgotten_in_the_end() -> None:
    peer = Peer("stdio", "con_1")
    assert [peer.distinct(number) for number in (1, "1", 1, 5, 3, "1", -1)] == [
        "1",
        '"1"',
        "1#2",
        "5",
        "3",
        '"1"#2',
        "-1",
    ]
    for number in range(10_000):
        peer.distinct(f"x{number}")
    assert len(peer._uses) <= 2000  # pyright: ignore[reportPrivateUsage]
    assert Peer("http").distinct(1) is None
    assert peer.distinct(None) is None


def test_what_stands_in_urls_does_not_gather() -> None:
    peers = HttpPeers(("core",), 5)
    for number in range(1000):
        peers.alone((f"nonsense{number}",))
    assert len(peers._alone) <= 64  # pyright: ignore[reportPrivateUsage]
    assert peers.alone(()) is peers.alone(("core",))
    assert peers.alone(()).max_calls == 5
