"""Both eras on one stream, whichever way a client comes in."""

from __future__ import annotations

from typing import Any

import pytest

from faces.kit import HANDSHAKE, MODERN, VERSIONS, Daemon, SmallTools, connected, envelope, hello, text

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", HANDSHAKE)
async def test_a_handshake_settles_on_the_version_that_was_asked_for(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        result = await wire.initialize(version)
        assert result["protocolVersion"] == version
        assert result["serverInfo"]["name"] == "interactd"
        assert "session_id" in result["instructions"]
        assert text(await wire.call("echo", {"text": "hi"})) == "hi"


@pytest.mark.parametrize("version", ["2099-01-01", "1", "2026-07-28"])
async def test_an_unknown_version_is_answered_with_the_newest_handshake_version(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        assert (await wire.initialize(version))["protocolVersion"] == "2025-11-25"
        assert text(await wire.call("echo", {"text": "hi"})) == "hi"


async def test_a_modern_client_needs_no_handshake(socket: str, tools: SmallTools) -> None:
    async with connected(socket) as wire:
        found = (await wire.request("server/discover", {"_meta": envelope()}))["result"]
        assert MODERN in found["supportedVersions"]
        assert found["resultType"] == "complete"
        assert found["capabilities"]["resources"] == {"subscribe": True, "listChanged": False}
        assert "session_id" in found["instructions"]
        listed = (await wire.request("tools/list", {"_meta": envelope()}))["result"]
        assert [tool["name"] for tool in listed["tools"]][:2] == ["echo", "wait"]
        assert listed["ttlMs"] >= 3_600_000
        result = (
            await wire.request("tools/call", {"name": "echo", "arguments": {"text": "hi"}, "_meta": envelope("new")})
        )["result"]
        assert text(result) == "hi"
        assert tools.contexts[-1].caller.client == "new/1"


@pytest.mark.parametrize("version", HANDSHAKE)
async def test_discover_then_initialize_on_the_same_pipe_is_served(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        await wire.request("server/discover", {"_meta": envelope()})
        assert (await wire.initialize(version))["protocolVersion"] == version
        assert text(await wire.call("echo", {"text": "hi"})) == "hi"


async def test_discover_with_a_version_of_the_future_then_initialize(socket: str) -> None:
    async with connected(socket) as wire:
        refused = await wire.request("server/discover", {"_meta": envelope(version="2030-01-01")})
        assert refused["error"]["code"] == -32022
        assert MODERN in refused["error"]["data"]["supported"]
        assert (await wire.initialize())["protocolVersion"] == "2025-11-25"


async def test_a_modern_call_does_not_lock_out_a_handshake_nor_the_other_way_round(socket: str) -> None:
    modern = {"name": "echo", "arguments": {"text": "m"}, "_meta": envelope()}
    async with connected(socket) as wire:
        assert text((await wire.request("tools/call", modern))["result"]) == "m"
        await wire.initialize()
        assert text(await wire.call("echo", {"text": "l"})) == "l"
        assert text((await wire.request("tools/call", modern))["result"]) == "m"


async def test_a_bare_discover_is_unknown_to_the_handshake_era(socket: str) -> None:
    async with connected(socket) as wire:
        assert (await wire.request("server/discover"))["error"]["code"] == -32601
        await wire.initialize()


async def test_half_an_envelope_is_told_what_is_missing(socket: str) -> None:
    meta: dict[str, Any] = {"io.modelcontextprotocol/protocolVersion": MODERN}
    async with connected(socket) as wire:
        error = (await wire.request("tools/list", {"_meta": meta}))["error"]
        assert error["code"] == -32602
        assert "clientCapabilities" in error["message"]


async def test_a_call_before_initialize_is_told_to_initialize(socket: str) -> None:
    async with connected(socket) as wire:
        error = (await wire.request("tools/list"))["error"]
        assert error["code"] == -32602
        assert "initialize" in error["message"]
        assert (await wire.request("no/such"))["error"]["code"] == -32601
        assert "result" in await wire.request("ping")


async def test_a_request_right_behind_initialize_is_not_refused(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.send({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": hello("2025-06-18")})
        await wire.send({"jsonrpc": "2.0", "id": "l", "method": "tools/list"})
        assert (await wire.answer("i"))["result"]["protocolVersion"] == "2025-06-18"
        assert (await wire.answer("l"))["result"]["tools"]


async def test_the_daemon_learns_who_the_client_is(socket: str, daemon: Daemon) -> None:
    async with connected(socket) as wire:
        await wire.initialize(name="somebody")
        assert daemon.hellos[0]["client"] == "somebody/1"


@pytest.mark.parametrize("version", VERSIONS)
async def test_progress_reaches_every_era_with_its_kind(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        if version == MODERN:
            meta = envelope(progressToken="p")
        else:
            await wire.initialize(version)
            meta = {"progressToken": "p"}
        result = await wire.request("tools/call", {"name": "count", "arguments": {"upto": 3}, "_meta": meta})
        assert text(result["result"]) == "counted"
        notes = [note["params"] for note in wire.notes if note["method"] == "notifications/progress"]
        assert [note["message"] for note in notes] == ["0 ", "1 ", "2 "]
        assert [note["_meta"]["interactd/kind"] for note in notes] == ["status", "text", "text"]
        assert [note["progress"] for note in notes] == [1, 2, 3]
        assert {note["progressToken"] for note in notes} == {"p"}


async def test_without_a_progress_token_no_progress_is_made(socket: str, tools: SmallTools) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        await wire.call("count")
        assert tools.contexts[0].progress is None
        assert wire.notes == []
