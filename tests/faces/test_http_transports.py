"""Streamable HTTP and SSE at every protocol version, and the official client on all transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from faces.http_kit import ACCEPT, Sse, StreamableHttp, bearer, opened
from faces.kit import HANDSHAKE, MODERN, PATIENCE_S, VERSIONS, Daemon, Json, SmallTools, envelope, hello, text

pytestmark = pytest.mark.anyio


def call(number: Any, tool: str, **arguments: Any) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


@pytest.mark.parametrize("version", VERSIONS)
async def test_streamable_http_speaks_every_version(daemon: Daemon, version: str) -> None:
    async with opened(daemon) as (_, client):
        mcp = StreamableHttp(client, version, bearer(daemon))
        started = await mcp.start()
        assert version == started.get("protocolVersion", MODERN)
        assert (await mcp.request("tools/list"))["result"]["tools"][0]["name"] == "echo"
        done = await mcp.request("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        assert text(done["result"]) == "hi"
        params: Json = {"name": "count", "arguments": {"upto": 3}, "_meta": {"progressToken": 7}}
        assert text((await mcp.request("tools/call", params))["result"]) == "counted"
        assert [note["params"]["message"] for note in mcp.notes] == ["0 ", "1 ", "2 "]
        assert [note["params"]["_meta"]["interactd/kind"] for note in mcp.notes] == ["status", "text", "text"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_sse_speaks_every_version(daemon: Daemon, version: str) -> None:
    async with opened(daemon) as (_, client), Sse.opened(client, bearer(daemon)) as sse:
        meta: Json = {"progressToken": "p"}
        if version == MODERN:
            meta |= envelope()
            found = await sse.request("server/discover", {"_meta": meta})
            assert MODERN in found["result"]["supportedVersions"]
        else:
            started = await sse.request("initialize", hello(version))
            assert started["result"]["protocolVersion"] == version
            await sse.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        params: Json = {"name": "count", "arguments": {"upto": 2}, "_meta": meta}
        assert text((await sse.request("tools/call", params))["result"]) == "counted"
        assert [note["params"]["message"] for note in sse.notes] == ["0 ", "1 "]


async def test_discover_then_initialize_works_over_sse_and_http(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        async with Sse.opened(client, bearer(daemon)) as sse:
            await sse.request("server/discover", {"_meta": envelope()})
            assert (await sse.request("initialize", hello("2025-11-25")))["result"]
        modern = StreamableHttp(client, MODERN, bearer(daemon))
        await modern.start()
        legacy = StreamableHttp(client, "2025-11-25", bearer(daemon))
        assert (await legacy.start())["protocolVersion"] == "2025-11-25"


@asynccontextmanager
async def official(daemon: Daemon, transport: str, mode: Any) -> AsyncGenerator[Client]:
    async with AsyncExitStack() as stack:
        face, _ = await stack.enter_async_context(opened(daemon))
        if transport == "sse":
            streams: Any = sse_client(f"{face.url}/sse", headers=bearer(daemon))
        else:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=bearer(daemon), timeout=PATIENCE_S))
            streams = streamable_http_client(f"{face.url}/mcp", http_client=http)
        yield await stack.enter_async_context(Client(streams, mode=mode))


@pytest.mark.parametrize("mode", ["legacy", "auto", MODERN])
@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_the_official_client_is_served_in_every_mode(daemon: Daemon, transport: str, mode: str) -> None:
    heard: list[str | None] = []

    async def heard_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with official(daemon, transport, mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else MODERN)
        assert client.instructions is None or "session_id" in client.instructions
        assert (await client.list_tools()).tools[0].name == "echo"
        done = await client.call_tool("echo", {"text": "hi"})
        assert done.content[0].model_dump()["text"] == "hi"
        await client.call_tool("count", {"upto": 3}, progress_callback=heard_progress)
        assert heard == ["0 ", "1 ", "2 "]
        broken = await client.call_tool("boom", {})
        assert broken.is_error


async def test_many_official_clients_at_once_do_not_meet(daemon: Daemon, tools: SmallTools) -> None:
    async with opened(daemon) as (face, _):

        async def one(number: int) -> None:
            streams: Any
            if number % 2:
                async with httpx2.AsyncClient(headers=bearer(daemon), timeout=30) as http:
                    streams = streamable_http_client(f"{face.url}/mcp", http_client=http)
                    await talk(streams, number)
            else:
                await talk(sse_client(f"{face.url}/sse", headers=bearer(daemon)), number)

        async def talk(streams: Any, number: int) -> None:
            async with Client(streams, mode="legacy" if number % 4 < 2 else "auto") as client:
                for turn in range(3):
                    done = await client.call_tool("echo", {"text": f"{number}.{turn}"})
                    assert done.content[0].model_dump()["text"] == f"{number}.{turn}"

        async with asyncio.timeout(60):
            await asyncio.gather(*(one(number) for number in range(20)))
    assert len(tools.contexts) == 60


async def test_a_session_has_its_own_connection_and_modern_requests_share_one(
    daemon: Daemon, tools: SmallTools
) -> None:
    async with opened(daemon) as (_, client):
        for version in ("2025-11-25", "2025-11-25", MODERN):
            mcp = StreamableHttp(client, version, bearer(daemon))
            await mcp.start()
            await mcp.request("tools/call", {"name": "echo", "arguments": {}})
            await mcp.request("tools/call", {"name": "echo", "arguments": {}})
    connections = [context.caller.connection for context in tools.contexts]
    assert connections[0] == connections[1] != connections[2] == connections[3]
    assert connections[4:] == ["http", "http"]
    assert tools.contexts[4].request_id is None
    assert [context.client_name for context in tools.contexts] == ["raw"] * 6


async def test_toolsets_can_be_asked_for_in_the_url(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        async with Sse.opened(client, bearer(daemon), "?toolsets=more") as sse:
            await sse.request("initialize", hello("2025-11-25"))
            names = [tool["name"] for tool in (await sse.request("tools/list"))["result"]["tools"]]
            assert "extra" in names
        headers = {**ACCEPT, **bearer(daemon), "mcp-protocol-version": MODERN, "mcp-method": "tools/list"}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": envelope()}}
        answer = await client.post("/mcp?toolsets=more", json=message, headers=headers)
        assert "extra" in [tool["name"] for tool in answer.json()["result"]["tools"]]
    async with opened(daemon, toolsets=["more"]) as (_, client):
        mcp = StreamableHttp(client, "2025-11-25", bearer(daemon))
        await mcp.start()
        assert "extra" in [tool["name"] for tool in (await mcp.request("tools/list"))["result"]["tools"]]


async def test_a_batch_over_http_is_answered_in_the_version_that_has_them(daemon: Daemon) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/x"}
    batch = [call(1, "echo", text="one"), note, call("b", "echo", text="two")]
    async with opened(daemon) as (_, client):
        old = StreamableHttp(client, "2025-03-26", bearer(daemon))
        await old.start()
        answers = {str(one["id"]): one for one in (await old.post(batch)).json()}
        assert {key: text(one["result"]) for key, one in answers.items()} == {"1": "one", "b": "two"}
        assert (await old.post([note])).status_code == 202
        new = StreamableHttp(client, "2025-06-18", bearer(daemon))
        await new.start()
        refused = await new.post(batch)
        assert refused.status_code == 400
        assert "2025-06-18" in refused.json()["error"]["message"]


async def test_broken_bodies_are_refused_in_words(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        mcp = StreamableHttp(client, "2025-11-25", bearer(daemon))
        await mcp.start()
        half = json.dumps(call(5, "echo", text="a\ud83d")).encode()
        for body, words in ((b"nope", "arse error"), (b"3", "rror"), (half, "params.arguments.text")):
            headers = {**mcp.headers, "content-type": "application/json"}
            answer = await client.post("/mcp", content=body, headers=headers)
            assert answer.status_code == 400
            assert words in answer.json()["error"]["message"]
        async with Sse.opened(client, bearer(daemon)) as sse:
            await sse.request("initialize", hello("2025-11-25"))
            assert (await sse.post(b"nope")).status_code == 400
            assert (await sse.post(half)).status_code == 202
            assert "params.arguments.text" in (await sse.answer(5))["error"]["message"]


async def test_an_sse_stream_that_is_gone_is_not_found(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        async with Sse.opened(client, bearer(daemon)) as sse:
            pass
        answer = await sse.post(call(1, "echo"))
        assert answer.status_code == 404
        assert "/sse" in answer.json()["error"]["repair"]
        wrong = await client.get("/messages/", headers=bearer(daemon))
        assert wrong.status_code == 405


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_cancelled_stops_the_call(daemon: Daemon, tools: SmallTools, transport: str) -> None:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 50}}
    async with opened(daemon) as (_, client), asyncio.timeout(PATIENCE_S):
        if transport == "sse":
            async with Sse.opened(client, bearer(daemon)) as sse:
                await sse.request("initialize", hello("2025-11-25"))
                await sse.post(call(50, "wait"))
                await tools.waited_for(1)
                await sse.post(cancel)
                await tools.cancelled.wait()
        else:
            mcp = StreamableHttp(client, "2025-11-25", bearer(daemon))
            await mcp.start()
            waiting = asyncio.create_task(mcp.post(call(50, "wait")))
            await tools.waited_for(1)
            await mcp.post(cancel)
            await tools.cancelled.wait()
            assert "-32800" in (await waiting).text


@pytest.mark.parametrize("transport", ["sse", "modern"])
async def test_a_client_that_leaves_ends_its_call(daemon: Daemon, tools: SmallTools, transport: str) -> None:
    async with opened(daemon) as (_, client), asyncio.timeout(PATIENCE_S):
        if transport == "sse":
            async with Sse.opened(client, bearer(daemon)) as sse:
                await sse.request("initialize", hello("2025-11-25"))
                await sse.post(call(50, "wait"))
                await tools.waited_for(1)
        else:
            mcp = StreamableHttp(client, MODERN, bearer(daemon))
            waiting = asyncio.create_task(mcp.request("tools/call", {"name": "wait", "arguments": {}}))
            await tools.waited_for(1)
            waiting.cancel()
        await tools.cancelled.wait()


async def test_a_handshake_session_can_be_ended_by_its_client(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        mcp = StreamableHttp(client, "2025-11-25", bearer(daemon))
        await mcp.start()
        assert (await client.delete("/mcp", headers=mcp.headers)).status_code == 200
        assert (await mcp.post(call(1, "echo"))).status_code == 404


@pytest.mark.parametrize("version", HANDSHAKE[:1])
async def test_closing_ends_open_streams_and_calls_within_seconds(
    daemon: Daemon, tools: SmallTools, version: str
) -> None:
    face = await daemon.faces.http(port=0)
    async with httpx2.AsyncClient(base_url=face.url, timeout=PATIENCE_S) as client:
        mcp = StreamableHttp(client, version, bearer(daemon))
        await mcp.start()
        standing = asyncio.create_task(client.get("/mcp", headers={**mcp.headers, "accept": "text/event-stream"}))
        waiting = asyncio.create_task(mcp.post(call(50, "wait")))
        async with Sse.opened(client, bearer(daemon)) as sse:
            await sse.request("initialize", hello(version))
            await sse.post(call(51, "wait"))
            await tools.waited_for(2)
            async with asyncio.timeout(PATIENCE_S):
                await face.aclose()
        await asyncio.gather(standing, waiting, return_exceptions=True)
    assert tools.waiting == 0
    assert daemon.faces.listening == []
