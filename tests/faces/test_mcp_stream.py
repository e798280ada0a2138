"""The stream transport: sizes, cuts, batches, cancelling, leaving, floods."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from faces.kit import PATIENCE_S, Daemon, Json, SmallTools, Wire, connected, envelope, text
from interactd.config.schema import Config, Limits

pytestmark = pytest.mark.anyio


def call(number: Any, tool: str, meta: Json | None = None, **arguments: Any) -> Json:
    params: Json = {"name": tool, "arguments": arguments}
    if meta:
        params["_meta"] = meta
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def test_a_message_of_many_megabytes_goes_both_ways(socket: str) -> None:
    big = "ä" * 3_000_000
    async with connected(socket) as wire:
        await wire.initialize()
        assert text(await wire.call("echo", {"text": big})) == big


async def test_a_message_beyond_the_cap_is_refused_and_the_next_one_served(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        head = b'{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
        await wire.write(head)
        for _ in range(34):
            await wire.write(b"x" * 1024 * 1024)
        await wire.write(b'"}}}\n')
        assert "MiB" in (await wire.answer(77))["error"]["message"]
        assert text(await wire.call("echo", {"text": "still here"})) == "still here"


async def test_lines_may_arrive_in_any_pieces_and_end_in_cr_lf(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        data = b"\r\n".join(json.dumps(call(n, "echo", text=f"ü{n}"), ensure_ascii=False).encode() for n in (50, 51))
        for at in range(0, len(data), 7):
            await wire.write(data[at : at + 7])
        await wire.write(b"\r\n\r\n\n")
        assert {text((await wire.line())["result"]) for _ in range(2)} == {"ü50", "ü51"}


async def test_garbage_is_answered_and_the_connection_goes_on(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.write(b"Warning: something on stdout\n")
        assert (await wire.line())["error"]["code"] == -32700
        await wire.initialize()
        await wire.write(
            b'\xff\n{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"arguments":{"t":"\\udc00"}}}\n'
        )
        assert (await wire.line())["error"]["code"] == -32700
        assert "params.arguments.t" in (await wire.answer(5))["error"]["message"]
        assert text(await wire.call("echo", {"text": "fine"})) == "fine"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26"])
async def test_a_batch_is_answered_in_one_array(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize(version)
        await wire.send(
            [call(1, "echo", text="one"), {"jsonrpc": "2.0", "method": "x"}, 5, call("b", "echo", text="two")]
        )
        answers = {str(answer["id"]): answer for answer in await wire.line()}
        assert text(answers["1"]["result"]) == "one"
        assert text(answers["b"]["result"]) == "two"
        assert answers["None"]["error"]["code"] == -32600
        assert len(answers) == 3


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
async def test_a_batch_of_a_version_without_batches_is_refused_message_by_message(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize(version)
        await wire.send([call(1, "echo", text="one"), call(2, "echo", text="two")])
        for number in (1, 2):
            error = (await wire.answer(number))["error"]
            assert error["code"] == -32600
            assert version in error["message"]


async def test_a_batch_does_not_wait_for_what_was_cancelled_in_it(socket: str, tools: SmallTools) -> None:
    async with connected(socket) as wire:
        await wire.initialize("2025-03-26")
        await wire.send([call(1, "wait"), call(2, "echo", text="two")])
        await tools.waited_for(1)
        await wire.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        answers = await wire.line()
        assert [answer["id"] for answer in answers] == [2]


@pytest.mark.parametrize("modern", [False, True])
async def test_cancelled_stops_the_call_and_nothing_is_sent_for_it(
    socket: str, tools: SmallTools, modern: bool
) -> None:
    meta = envelope() if modern else None
    async with connected(socket) as wire:
        if not modern:
            await wire.initialize()
        await wire.send(call("w", "wait", meta))
        await tools.waited_for(1)
        await wire.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "w"}})
        async with asyncio.timeout(PATIENCE_S):
            await tools.cancelled.wait()
        await wire.send(call("e", "echo", meta, text="next"))
        assert text((await wire.answer("e"))["result"]) == "next"


async def test_a_client_that_vanishes_ends_its_calls_at_once(socket: str, daemon: Daemon, tools: SmallTools) -> None:
    began = time.monotonic()
    async with connected(socket) as wire:
        await wire.initialize()
        await wire.send(call("w", "wait"))
        await tools.waited_for(1)
    async with asyncio.timeout(PATIENCE_S):
        await tools.cancelled.wait()
    await daemon.all_closed()
    assert time.monotonic() - began < 3


async def test_a_client_that_only_closed_its_sending_side_still_gets_its_answers(
    socket: str, tools: SmallTools
) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        await wire.send(call("w", "wait"))
        await tools.waited_for(1)
        wire.writer.write_eof()
        tools.release.set()
        assert text((await wire.answer("w"))["result"]) == "waited"
        assert await wire.reader.read() == b""


async def test_a_line_without_an_end_counts_when_the_stream_ends(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        wire.writer.write_eof()
        assert (await wire.answer(1))["result"] == {}


async def test_one_connection_ending_leaves_the_others_alone(socket: str, tools: SmallTools) -> None:
    async with connected(socket) as stays:
        await stays.initialize()
        await stays.send(call("w", "wait"))
        await tools.waited_for(1)
        async with connected(socket) as goes:
            await goes.initialize()
            await goes.send(call("w", "wait"))
            await tools.waited_for(2)
        async with asyncio.timeout(PATIENCE_S):
            await tools.cancelled.wait()
        tools.release.set()
        assert text((await stays.answer("w"))["result"]) == "waited"


async def answers(wire: Wire, count: int) -> dict[Any, Json]:
    found: dict[Any, Json] = {}
    async with asyncio.timeout(60):
        while len(found) < count:
            message = json.loads(await wire.reader.readline())
            assert message["id"] not in found
            found[message["id"]] = message
    return found


async def test_ten_thousand_calls_at_once_are_all_answered(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        lines = b"".join(json.dumps(call(n, "echo", text=str(n))).encode() + b"\n" for n in range(100, 10_100))
        reading = asyncio.create_task(answers(wire, 10_000))
        await wire.write(lines)
        found = await reading
        assert all(text(found[n]["result"]) == str(n) for n in range(100, 10_100))


async def test_ten_thousand_calls_that_wait_are_refused_beyond_the_limit_and_none_is_lost(
    tmp_path: Path, tools: SmallTools
) -> None:
    daemon = Daemon(tmp_path, tools, None, Config(limits=Limits(calls=50)))
    async with daemon.listening() as path, connected(path) as wire:
        await wire.initialize()
        lines = b"".join(json.dumps(call(n, "wait")).encode() + b"\n" for n in range(100, 10_100))
        reading = asyncio.create_task(answers(wire, 9_950))
        await wire.write(lines)
        refused = await reading
        assert all(r["result"]["isError"] and "overloaded" in text(r["result"]) for r in refused.values())
        tools.release.set()
        rest = await answers(wire, 50)
        assert tools.most == 50
        assert all(text(answer["result"]) == "waited" for answer in rest.values())
        assert len({*refused, *rest}) == 10_000


async def test_a_client_that_reads_nothing_does_not_hold_up_another(socket: str) -> None:
    big = "x" * 200_000
    async with connected(socket) as deaf, connected(socket) as other:
        await deaf.initialize()
        for number in range(100):
            await deaf.send(call(1000 + number, "echo", text=big))
        await other.initialize()
        assert text(await other.call("echo", {"text": "heard"})) == "heard"
        found = await answers(deaf, 100)
        assert set(found) == {1000 + n for n in range(100)}


async def test_an_id_that_is_used_again_is_another_request(socket: str, tools: SmallTools) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        for _ in range(3):
            await wire.request("tools/call", {"name": "echo", "arguments": {}}, number=1)
        await wire.request("tools/call", {"name": "echo", "arguments": {}}, number="1")
        names = [context.request_id for context in tools.contexts]
        assert len(set(names)) == 4
        assert names[0] == "1"
        assert {context.caller.connection for context in tools.contexts} == {"con_0"}
        assert tools.contexts[0].caller.cwd == "/somewhere"
