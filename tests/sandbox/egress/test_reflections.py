"""A sandbox that tries to get its own secret back from the server that has it, or to be in others' way."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import pytest

from interactd.sandbox.egress.dial import LOOKUPS_OF_A_RUN, Sharing
from sandbox.egress.parts import Keep, Net, Seen, reply

pytestmark = pytest.mark.anyio

SECRET = "ghp_S3cret+Value/with=signs&more"


def key() -> Keep:
    return Keep(
        {
            "id": "key",
            "type": "environment_variable",
            "value": SECRET,
            "injection_location": ["header", "query"],
            "trusted_domains": ["api.test"],
        }
    )


class Notes:
    """A server that keeps what it is told, and reads it to whoever asks: whole, or the range that is asked for."""

    def __init__(self) -> None:
        self.kept = b""
        self.seen: list[Seen] = []

    def __call__(self, seen: Seen) -> bytes:
        self.seen.append(seen)
        if note := seen.header("x-note"):
            self.kept = f"<{note}>".encode()
            return reply(b"kept")
        if wanted := seen.header("range"):
            begin, end = wanted.removeprefix("bytes=").split("-")
            return reply(self.kept[int(begin) : int(end) + 1], status="206 Partial Content")
        return reply(self.kept)


@pytest.mark.parametrize("more", [{}, {"Range": "bytes=0-9"}, {"Range": "bytes=10-99", "If-Range": '"x"'}])
async def test_what_one_request_left_with_a_trusted_server_no_later_one_brings_back(
    net: Net, more: dict[str, Any]
) -> None:
    notes = Notes()
    server = await net.server(notes, tls=["api.test"])
    route = await net.proxy(
        [f"api.test:{server.port}", f"127.0.0.1:{server.port}"], {"T": {"credential": "key"}}, key()
    )
    url = f"https://api.test:{server.port}/note"
    await route.https(url, X_Note=route.policy.env["T"])
    assert notes.kept == f"<{SECRET}>".encode()
    answer = await route.https(url, **more)
    assert answer.body == b"<" + b"*" * len(SECRET) + b">"
    assert notes.seen[-1].header("range") is None


def _within(before: bytes) -> str:
    return base64.b64encode(before + SECRET.encode() + b"after").decode()


@pytest.mark.parametrize(
    "written",
    [
        json.dumps({"token": SECRET}).replace("/", "\\/"),
        html.escape(f"<p>{SECRET}</p>"),
        SECRET.encode().hex(),
        SECRET.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d").replace("&", "%26"),
        *(_within(b"x" * length) for length in range(3)),
        _within(b"xy").translate(str.maketrans("+/", "-_")),
    ],
    ids=["json", "html", "hex", "percent", "base64-0", "base64-1", "base64-2", "base64-url"],
)
async def test_a_secret_in_a_form_that_servers_write_by_themselves_is_masked(net: Net, written: str) -> None:
    server = await net.server(lambda _seen: reply(written.encode()), tls=["api.test"])
    route = await net.proxy(
        [f"api.test:{server.port}", f"127.0.0.1:{server.port}"], {"T": {"credential": "key"}}, key()
    )
    answer = await route.https(f"https://api.test:{server.port}/")
    assert len(answer.body) == len(written)
    assert answer.body.count(b"*") >= len(SECRET) - 2


async def test_names_that_nobody_answers_for_hold_up_their_own_run_only() -> None:
    asked: list[str] = []
    never = asyncio.Event()

    async def resolver(name: str) -> Sequence[str]:
        asked.append(name)
        await never.wait()
        return ["192.0.2.1"]

    mine, other = Sharing(resolver), Sharing(resolver)
    waiting = [asyncio.ensure_future(mine(f"{n}.hangs.test")) for n in range(50)]
    await _turns()
    assert len(asked) == LOOKUPS_OF_A_RUN
    for one in waiting[:10]:
        one.cancel()  # as when the time for a lookup is over: the machine is still looking
    await _turns()
    assert len(asked) == LOOKUPS_OF_A_RUN
    answer = asyncio.ensure_future(other("good.test"))
    await _turns()
    assert asked[-1] == "good.test"
    never.set()
    assert await answer == ["192.0.2.1"]
    found: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert found[10:] == [["192.0.2.1"]] * 40
    mine.close()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
