"""tools/call on the wire: what a result becomes for which client, and what an error never shows."""

from __future__ import annotations

import logging

import pytest

from faces.kit import HANDSHAKE, MODERN, VERSIONS, SmallTools, Wire, connected, envelope, text
from interactd.faces.mcp.server import INSTRUCTIONS
from interactd_tools import deadlines

pytestmark = pytest.mark.anyio


def test_the_instructions_fit_every_host_and_begin_with_what_matters() -> None:
    assert len(INSTRUCTIONS.encode()) < 2000
    assert "session_id" in INSTRUCTIONS[:600]
    assert "get_interaction" in INSTRUCTIONS[:1000]


async def rich(wire: Wire, version: str) -> dict[str, object]:
    if version == MODERN:
        params = {"name": "rich", "arguments": {}, "_meta": envelope()}
        return (await wire.request("tools/call", params))["result"]
    await wire.initialize(version)
    return await wire.call("rich")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_gets_only_the_blocks_its_version_knows(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        result = await rich(wire, version)
        assert text(result) == "all of it"
        kinds = [block["type"] for block in result["content"]]  # type: ignore[union-attr]
        if version < "2025-06-18":
            assert kinds == ["text", "image"]
            assert "structuredContent" not in result
        else:
            assert kinds == ["text", "image", "resource_link"]
            assert result["structuredContent"] == {"id": "int_1"}
        assert result["_meta"]["interactd/x"] == 1  # type: ignore[index]


async def test_an_unexpected_exception_is_a_reference_and_nothing_of_its_inside(
    socket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with connected(socket) as wire:
        await wire.initialize()
        result = await wire.call("boom")
    assert result["isError"]
    said = text(result)
    assert said.startswith("internal: ")
    assert "secret" not in said
    assert "Traceback" not in said
    ref = said.partition("(ref ")[2].partition(")")[0]
    assert len(ref) == 8
    logged = [record for record in caplog.records if ref in record.getMessage()]
    assert logged
    assert logged[0].exc_info


async def test_an_error_of_ours_reads_code_sentence_repair(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        result = await wire.call("conflict")
    assert result["isError"]
    assert text(result) == "conflict: a turn runs. Wait for it."


@pytest.mark.parametrize("arguments", ['{"text": "hi"}', ["a"], 5, "x", True])
async def test_arguments_that_are_no_object_reach_the_tool_as_they_came(
    socket: str, tools: SmallTools, arguments: object
) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        answer = await wire.request("tools/call", {"name": "echo", "arguments": arguments})
        assert "result" in answer
        assert tools.arguments[-1] == arguments


async def test_a_malformed_request_is_told_its_field_without_its_value(socket: str) -> None:
    async with connected(socket) as wire:
        await wire.initialize()
        error = (await wire.request("tools/call", {"name": {"secret": 1}}))["error"]
        assert error["code"] == -32602
        assert "name" in error["message"]
        assert "secret" not in error["message"]
        assert "pydantic" not in error["message"]


@pytest.mark.parametrize("version", HANDSHAKE)
async def test_methods_that_do_not_exist_say_so(socket: str, version: str) -> None:
    async with connected(socket) as wire:
        result = await wire.initialize(version)
        assert "prompts" not in result["capabilities"]
        assert "logging" not in result["capabilities"]
        for method in ("prompts/list", "tasks/list", "no/such"):
            assert (await wire.request(method))["error"]["code"] == -32601


async def test_a_call_that_the_client_gave_up_teaches_its_deadline(
    socket: str, tools: SmallTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[str | None, float]] = []
    monkeypatch.setattr(deadlines, "cancelled", lambda name, seconds: learned.append((name, seconds)))  # pyright: ignore
    async with connected(socket) as wire:
        await wire.initialize(name="hasty")
        wait = {"jsonrpc": "2.0", "id": 90, "method": "tools/call", "params": {"name": "wait"}}
        await wire.send(wait)
        await tools.waited_for(1)
        await wire.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 90}})
        await tools.cancelled.wait()
        await wire.request("ping")
        assert [name for name, _ in learned] == ["hasty"]
        await wire.send({**wait, "id": 91})
        await tools.waited_for(1)
    # Leaving is not giving up.
    assert len(learned) == 1
