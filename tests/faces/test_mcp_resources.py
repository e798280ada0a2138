"""Sessions and interactions as resources, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from mcp import Client

import interactd_tools
from engine.kit import Rig, ScriptedModel, rig
from faces.kit import MODERN, PATIENCE_S, Daemon, Json, Wire, connected, envelope
from interactd.faces.mcp.resources.transcripts import MAX_CHARS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[tuple[Rig, str]]:
    async with rig(tmp_path / "interactd.db", model=ScriptedModel()) as made:
        async with Daemon(tmp_path / "home", interactd_tools, made.engine).listening() as path:
            yield made, path


async def read(wire: Wire, uri: str) -> str:
    (content,) = (await wire.request("resources/read", {"uri": uri}))["result"]["contents"]
    assert content["mimeType"] == "text/markdown"
    assert content["uri"] == uri
    return content["text"]


@pytest.mark.parametrize("modern", [False, True])
async def test_sessions_are_listed_and_read_as_markdown(world: tuple[Rig, str], modern: bool) -> None:
    made, path = world
    made.model.script("Four legs.")
    session = await made.engine.create_session(title="About horses", system_instruction="Be brief.")
    turn = await made.turn(session.id, "How many legs?")
    meta: Json = {"_meta": envelope()} if modern else {}
    async with connected(path) as wire:
        if not modern:
            capabilities = (await wire.initialize())["capabilities"]
            assert capabilities["resources"]["subscribe"] is True
        (resource,) = (await wire.request("resources/list", meta))["result"]["resources"]
        assert resource["uri"] == f"interactd://sessions/{session.id}"
        assert resource["title"] == "About horses"
        (content,) = (await wire.request("resources/read", {"uri": resource["uri"], **meta}))["result"]["contents"]
        for part in ("# About horses", "How many legs?", "Four legs.", turn.interaction.id, "Be brief.", "completed"):
            assert part in content["text"]
        templates = (await wire.request("resources/templates/list", meta))["result"]["resourceTemplates"]
        assert [template["name"] for template in templates] == ["session", "interaction", "artifact", "export"]


async def test_an_interaction_is_read_by_a_short_id(world: tuple[Rig, str]) -> None:
    made, path = world
    session = await made.engine.create_session()
    turn = await made.turn(session.id, "hello")
    async with connected(path) as wire:
        await wire.initialize()
        content = await read(wire, f"interactd://interactions/{turn.interaction.id[:28]}")
        assert "hello" in content
        assert f"interactd://sessions/{session.id}" in content


async def test_a_long_session_is_paged_and_capped(world: tuple[Rig, str]) -> None:
    made, path = world
    session = await made.engine.create_session()
    for number in range(30):
        await made.turn(session.id, f"turn number {number} " + "x" * 3000)
    async with connected(path) as wire:
        await wire.initialize()
        newest = await read(wire, f"interactd://sessions/{session.id}?limit=100")
        assert len(newest) < MAX_CHARS + 5000
        assert "turn number 29" in newest
        assert "turn number 2 " not in newest
        seen = newest
        while "Earlier turns: " in seen:
            uri = seen.partition("Earlier turns: ")[2].split()[0]
            seen = await read(wire, uri)
        assert "turn number 0 " in seen


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("interactd://sessions/ses_0000000000000000000000000000", "ses_"),
        ("interactd://sessions/nonsense!", "session_id"),
        ("interactd://interactions/ses_01", "interaction"),
        ("interactd://sessions/x/y", "no resource"),
        ("interactd://sessions/", "no resource"),
        ("interactd://secrets/1", "no resource"),
        ("file:///etc/passwd", "no resource"),
        ("interactd://sessions/ses_01?limit=0", "limit"),
        ("interactd://sessions/ses_01?limit=" + "9" * 5000, "limit"),
        ("interactd://sessions/ses_01?befor=int_1", "befor"),
        ("", "no resource"),
        ("http://[", "no resource"),
    ],
)
@pytest.mark.parametrize("modern", [False, True])
async def test_a_uri_that_names_nothing_is_refused_in_words(
    world: tuple[Rig, str], uri: str, words: str, modern: bool
) -> None:
    _, path = world
    async with connected(path) as wire:
        if not modern:
            await wire.initialize()
        meta: Json = {"_meta": envelope()} if modern else {}
        error = (await wire.request("resources/read", {"uri": uri, **meta}))["error"]
        assert error["code"] in {-32602, -32002}
        assert words in error["message"]
        assert len(error["message"]) < 1000
        assert error["data"]["uri"] == uri[:500]


async def test_a_deleted_session_says_that_it_was_deleted(world: tuple[Rig, str]) -> None:
    made, path = world
    session = await made.engine.create_session()
    await made.engine.delete_session(session.id)
    async with connected(path) as wire:
        await wire.initialize()
        error = (await wire.request("resources/read", {"uri": f"interactd://sessions/{session.id}"}))["error"]
        assert error["code"] == -32002
        assert error["message"].startswith("deleted: ")


async def test_a_subscriber_is_told_when_the_turn_is_done(world: tuple[Rig, str]) -> None:
    made, path = world
    made.model.gate = asyncio.Event()
    session = await made.engine.create_session()
    sent = await made.engine.send_turn(session.id, "hello")
    uri = f"interactd://interactions/{sent.interaction.id}"
    async with connected(path) as wire:
        await wire.initialize()
        for _ in range(2):
            assert (await wire.request("resources/subscribe", {"uri": uri}))["result"] == {}
        made.model.gate.set()
        await made.ended(sent.interaction.id)
        note = await wire.line()
        assert note["method"] == "notifications/resources/updated"
        assert note["params"]["uri"] == uri
        assert "completed" in await read(wire, uri)
        assert (await wire.request("resources/unsubscribe", {"uri": uri}))["result"] == {}


async def test_only_interactions_can_be_subscribed_to(world: tuple[Rig, str]) -> None:
    made, path = world
    session = await made.engine.create_session()
    async with connected(path) as wire:
        await wire.initialize()
        error = (await wire.request("resources/subscribe", {"uri": f"interactd://sessions/{session.id}"}))["error"]
        assert "interactd://interactions/" in error["message"]


async def test_a_modern_listener_is_told_and_its_stream_ends_with_the_turn(world: tuple[Rig, str]) -> None:
    made, path = world
    made.model.gate = asyncio.Event()
    session = await made.engine.create_session()
    sent = await made.engine.send_turn(session.id, "hello")
    uri = f"interactd://interactions/{sent.interaction.id}"
    async with connected(path) as wire:
        params: Json = {"notifications": {"resourceSubscriptions": [uri]}, "_meta": envelope()}
        await wire.send({"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": params})
        first = await wire.line()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"]["resourceSubscriptions"] == [uri]
        made.model.gate.set()
        done = await wire.answer("l")
        assert "result" in done
        updates = [note for note in wire.notes if note["method"] == "notifications/resources/updated"]
        assert updates
        assert all(note["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "l" for note in updates)


async def test_watchers_end_with_their_connection(world: tuple[Rig, str]) -> None:
    made, path = world
    made.model.gate = asyncio.Event()
    session = await made.engine.create_session()
    sent = await made.engine.send_turn(session.id, "hello")
    before = asyncio.all_tasks()
    async with connected(path) as wire:
        await wire.initialize()
        await wire.request("resources/subscribe", {"uri": f"interactd://interactions/{sent.interaction.id}"})
    async with asyncio.timeout(PATIENCE_S):
        while any("_watch" in repr(task) for task in asyncio.all_tasks() - before):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    made.model.gate.set()
    await made.ended(sent.interaction.id)


async def test_ids_are_completed(world: tuple[Rig, str]) -> None:
    made, path = world
    session = await made.engine.create_session()
    turn = await made.turn(session.id)
    async with connected(path) as wire:
        result = await wire.initialize()
        assert "completions" in result["capabilities"]
        for name, typed, expected in (
            ("session_id", "ses_", [session.id]),
            ("session_id", session.id[4:12].upper(), [session.id]),
            ("session_id", "zzz", []),
            ("interaction_id", "", [turn.interaction.id]),
            ("other", "", []),
        ):
            ref = {"type": "ref/resource", "uri": f"interactd://sessions/{{{name}}}"}
            params: Json = {"ref": ref, "argument": {"name": name, "value": typed}}
            found = (await wire.request("completion/complete", params))["result"]["completion"]
            assert found["values"] == expected


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_official_client_reads_resources(world: tuple[Rig, str], tmp_path: Path, mode: str) -> None:
    made, _ = world
    session = await made.engine.create_session()
    await made.turn(session.id, "hello there")
    daemon = Daemon(tmp_path / "other", interactd_tools, made.engine)
    from faces.http_kit import opened

    async with opened(daemon, token=False) as (face, _), Client(f"{face.url}/mcp", mode=mode) as client:
        (listed,) = (await client.list_resources()).resources
        content = (await client.read_resource(listed.uri)).contents[0].model_dump()["text"]
        assert "hello there" in content
