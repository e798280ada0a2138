"""The whole way: hosts over the shim, in-process, HTTP and SSE, to the real daemon, engine, store and tools, and a
provider on loopback. The official client in its modes, a raw one at every version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from faces.http_kit import Sse, StreamableHttp
from faces.kit import MODERN, PATIENCE_S, VERSIONS, Json, envelope, hello, text
from faces.world_kit import COMMANDS, World, world
from support.hosts import Host

__all__ = ["world"]

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def official(world: World, transport: str, mode: Any) -> AsyncGenerator[Client]:
    """The official client over a transport."""
    async with AsyncExitStack() as stack:
        streams: Any
        if transport in COMMANDS:
            command, *arguments = COMMANDS[transport]
            parameters = StdioServerParameters(command=command, args=arguments, env=world.home.env)
            streams = stdio_client(parameters)
        else:
            face = await stack.enter_async_context(world.serving())
            if transport == "sse":
                streams = sse_client(face["url_sse"], headers=world.token)
            else:
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=world.token, timeout=60))
                streams = streamable_http_client(face["url_mcp"], http_client=http)
        yield await stack.enter_async_context(Client(streams, mode=mode))


async def remember(call: Any) -> None:
    """A session, two turns, the transcript: the same through every door."""
    session = (await call("create_session", {"title": "Horses"}))["session_id"]
    first = await call("send_turn", {"session_id": session, "input": "How many legs has a horse?"})
    assert first["status"] == "completed"
    second = await call("send_turn", {"session_id": session, "input": "And two horses?"})
    assert second["interaction_id"] != first["interaction_id"]
    await call("get_session", {"session_id": session})


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("transport", ["shim", "in-process", "http", "sse"])
async def test_the_official_client_holds_a_conversation(world: World, transport: str, mode: str) -> None:
    heard: list[str] = []

    async def heard_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    async with official(world, transport, mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else MODERN)
        assert len((await client.list_tools()).tools) >= 12

        async def call(tool: str, arguments: Json) -> Json:
            result = await client.call_tool(tool, arguments, progress_callback=heard_progress)
            assert not result.is_error, result
            assert result.structured_content is not None
            return result.structured_content

        await remember(call)
        assert "The horse has four legs." in "".join(heard)
        (listed,) = (await client.list_resources()).resources
        transcript = (await client.read_resource(listed.uri)).contents[0].model_dump()["text"]
        assert "And two horses?" in transcript
    messages: Any = world.provider.requests[-1].json
    assert "How many legs" in json.dumps(messages)


def over(host: Host, version: str) -> Any:
    """Calls of a raw host over pipes at one version."""

    async def call(tool: str, arguments: Json) -> Json:
        params: Json = {"name": tool, "arguments": arguments}
        if version == MODERN:
            params["_meta"] = envelope()
        key = host.ask("tools/call", params)
        answer = await asyncio.to_thread(host.answer, key)
        return fields(answer["result"], version)

    return call


def fields(result: Json, version: str) -> Json:
    """The structured fields; for versions that have none, read from the text that must hold them too."""
    assert not result.get("isError"), result
    if version >= "2025-06-18":
        return result["structuredContent"]
    assert "structuredContent" not in result
    words = (
        text(result).replace('"', " ").replace(",", " ").replace("(", " ").replace(".", " ").replace("=", " ").split()
    )
    found: Json = {"status": next((word for word in words if word in {"completed", "failed"}), None)}
    for prefix, name in (("ses_", "session_id"), ("int_", "interaction_id")):
        found[name] = next((word.strip("`:;") for word in words if word.startswith(prefix)), None)
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_raw_host_holds_a_conversation_over_the_shim_at_every_version(world: World, version: str) -> None:
    host = world.home.host(real=True)
    if version != MODERN:
        answer = await asyncio.to_thread(host.initialize, version)
        assert answer["result"]["protocolVersion"] == version
    await remember(over(host, version))
    assert host.garbage == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_raw_client_holds_a_conversation_over_http_at_every_version(world: World, version: str) -> None:
    async with AsyncExitStack() as stack:
        face = await stack.enter_async_context(world.serving())
        base = face["url_mcp"].removesuffix("/mcp")
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=base, timeout=PATIENCE_S))
        http = StreamableHttp(client, version, world.token)
        await http.start()

        async def by_http(tool: str, arguments: Json) -> Json:
            answer = await http.request("tools/call", {"name": tool, "arguments": arguments})
            return fields(answer["result"], version)

        await remember(by_http)
        sse = await stack.enter_async_context(Sse.opened(client, world.token))
        meta: Json = {"_meta": envelope()} if version == MODERN else {}
        if version != MODERN:
            await sse.request("initialize", hello(version))

        async def by_sse(tool: str, arguments: Json) -> Json:
            answer = await sse.request("tools/call", {"name": tool, "arguments": arguments, **meta})
            return fields(answer["result"], version)

        await remember(by_sse)


@pytest.mark.parametrize("transport", list(COMMANDS))
async def test_discover_then_initialize_over_a_pipe(world: World, transport: str) -> None:
    host = world.home.host_of(COMMANDS[transport])
    found = await asyncio.to_thread(host.answer, host.ask("server/discover", {"_meta": envelope()}))
    assert MODERN in found["result"]["supportedVersions"]
    answer = await asyncio.to_thread(host.initialize, "2025-11-25")
    assert answer["result"]["protocolVersion"] == "2025-11-25"
    await remember(over(host, "2025-11-25"))
    assert await asyncio.to_thread(host.hang_up) == 0
    assert host.garbage == []


async def test_requests_piped_in_at_once_are_answered_before_the_end_in_process(world: World) -> None:
    lines: list[Json] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello("2025-06-18")},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list_sessions", "arguments": {}}},
    ]
    process = await asyncio.create_subprocess_exec(
        *COMMANDS["in-process"],
        env=world.home.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    answers = {json.loads(line)["id"] for line in out.splitlines()}
    assert answers == {1, 2}, err.decode()
    assert process.returncode == 0


@pytest.mark.parametrize(("stdin", "answered"), [("a file", True), ("/dev/null", False)])
async def test_in_process_reads_files_and_devices_too(world: World, tmp_path: Path, stdin: str, answered: bool) -> None:
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    (tmp_path / "a file").write_text(ping + "\n")
    with (tmp_path / stdin).open("rb") as source, (tmp_path / "out").open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *COMMANDS["in-process"],
            env=world.home.env,
            stdin=source,
            stdout=sink,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    assert (tmp_path / "out").read_text() == ('{"jsonrpc":"2.0","id":1,"result":{}}\n' if answered else "")
