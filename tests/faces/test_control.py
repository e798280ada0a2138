"""The control protocol, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import interactd_tools
from engine.kit import Rig, ScriptedModel, rig
from faces.kit import PATIENCE_S, Daemon, Json, Wire, connected

pytestmark = pytest.mark.anyio


class Peer:
    """The command line's side."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.events: list[Json] = []
        self._number = 0

    async def send(self, method: str, **params: Any) -> int:
        self._number += 1
        await self.wire.send({"id": self._number, "method": method, "params": params})
        return self._number

    async def answer(self, number: int) -> Json:
        while True:
            message = await self.wire.line()
            assert message["id"] == number
            if "event" not in message:
                return message
            self.events.append(message["event"])

    async def call(self, method: str, **params: Any) -> Any:
        answer = await self.answer(await self.send(method, **params))
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, **params: Any) -> Json:
        return (await self.answer(await self.send(method, **params)))["error"]


class World:
    def __init__(self, made: Rig, daemon: Daemon, path: str) -> None:
        self.rig = made
        self.daemon = daemon
        self.path = path


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[World]:
    async with rig(tmp_path / "interactd.db", model=ScriptedModel()) as made:
        daemon = Daemon(tmp_path / "home", interactd_tools, made.engine)
        async with daemon.listening("control") as path:
            yield World(made, daemon, path)


async def test_a_conversation_from_session_to_receipt(world: World) -> None:
    world.rig.model.script("Hello yourself.")
    async with connected(world.path) as wire:
        peer = Peer(wire)
        session = await peer.call(
            "create_session", title="t", ttl_s=3600, labels={"a": "b"}, generation_config={"thinking_level": "low"}
        )
        assert session["state"] == "active"
        assert session["expires_at"].endswith("Z")
        assert session["generation_config"] == {"thinking_level": "low"}
        sent = await peer.call("send_turn", session_id=session["id"], content="Hello.")
        done = await peer.call("wait", interaction_id=sent["interaction"]["id"], timeout_s=10)
        interaction = done["interaction"]
        assert interaction["status"] == "completed"
        assert interaction["duration_s"] >= 0
        assert interaction["usage"]["total_tokens"]
        assert [step["type"] for step in done["steps"]] == ["user_input", "model_output"]
        assert done["steps"][1]["content"] == [{"type": "text", "text": "Hello yourself."}]
        assert not any("state" in step for step in done["steps"])
        page = await peer.call("get_session", session_id=session["id"][:20], limit=5)
        assert page["session"]["turns"] == 1
        assert page["turns"][0]["interaction"]["id"] == interaction["id"]
        hits = await peer.call("search", query="yourself")
        assert "[yourself]" in hits["items"][0]["snippet"]
        fork = await peer.call("fork_session", session_id=session["id"])
        assert fork["forked_from"] == session["id"]
        listed = await peer.call("list_sessions", labels=None, limit=10)
        assert {item["id"] for item in listed["items"]} >= {session["id"], fork["id"]}
        assert listed["cursor"] is None
        receipt = await peer.call("delete_session", session_id=session["id"])
        assert receipt["session_id"] == session["id"]
        assert receipt["id"].startswith("rcp_")
        gone = await peer.error("get_session", session_id=session["id"])
        assert gone["code"] == "deleted"


async def test_events_stream_side_by_side_with_other_calls(world: World) -> None:
    world.rig.model.gate = asyncio.Event()
    async with connected(world.path) as wire:
        peer = Peer(wire)
        session = await peer.call("create_session")
        sent = await peer.call("send_turn", session_id=session["id"], content="Hello.")
        number = await peer.send("events", interaction_id=sent["interaction"]["id"])
        async with connected(world.path) as other:
            assert (await Peer(other).call("list_sessions"))["items"]
        world.rig.model.gate.set()
        done = await peer.answer(number)
        assert done["result"]["events"] == len(peer.events)
        kinds = [event["type"] for event in peer.events]
        assert "step.delta" in kinds
        assert kinds[-1] == "interaction.status"
        assert [event["seq"] for event in peer.events] == sorted(event["seq"] for event in peer.events)


async def test_a_peer_that_leaves_stops_waiting_and_the_turn_goes_on(world: World) -> None:
    world.rig.model.gate = asyncio.Event()
    async with connected(world.path) as wire:
        peer = Peer(wire)
        session = await peer.call("create_session")
        sent = await peer.call("send_turn", session_id=session["id"], content="Hello.")
        await peer.send("events", interaction_id=sent["interaction"]["id"])
        await peer.send("wait", interaction_id=sent["interaction"]["id"], timeout_s=600)
    await world.daemon.all_closed()
    world.rig.model.gate.set()
    assert (await world.rig.ended(sent["interaction"]["id"])).interaction.status == "completed"


async def test_cancel_over_the_same_connection_ends_the_stream(world: World) -> None:
    world.rig.model.gate = asyncio.Event()
    async with connected(world.path) as wire:
        peer = Peer(wire)
        session = await peer.call("create_session")
        sent = await peer.call("send_turn", session_id=session["id"], content="Hello.")
        events = await peer.send("events", interaction_id=sent["interaction"]["id"])
        cancel = await peer.send("cancel", interaction_id=sent["interaction"]["id"])
        ended: dict[int, Json] = {}
        while len(ended) < 2:
            message = await wire.line()
            if "event" not in message:
                ended[message["id"]] = message
        assert ended[cancel]["result"]["interaction"]["status"] == "cancelled"
        assert "result" in ended[events]


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("creat_session", {}, "create_session"),
        ("create_session", {"titel": "x"}, "did you mean title"),
        ("create_session", {"ttl_s": "soon"}, "ttl_s"),
        ("create_session", {"generation_config": {"thinking_levl": "low"}}, "thinking_levl"),
        ("send_turn", {"content": "x"}, "session_id: is required"),
        ("wait", {"interaction_id": 5, "timeout_s": 1}, "interaction_id"),
        ("list_sessions", {"state": "no"}, "state"),
        ("get_interaction", {"interaction_id": "ses_01"}, "interaction"),
        ("serve", {"port": "x"}, "port"),
    ],
)
async def test_a_wrong_call_is_told_what_is_wrong(world: World, method: str, params: Json, words: str) -> None:
    async with connected(world.path) as wire:
        error = await Peer(wire).error(method, **params)
        assert error["code"] == "invalid_argument"
        assert words in error["message"]


async def test_what_is_no_request_is_refused_and_the_connection_goes_on(world: World) -> None:
    async with connected(world.path) as wire:
        for data in (b"nonsense\n", b"[1]\n", b"\xff\xfe\n", b"{" * 5000 + b"\n"):
            await wire.write(data)
            assert (await wire.line())["error"]["code"] == "invalid_argument"
        await wire.send({"id": 1, "method": "status", "params": []})
        assert (await wire.line())["result"]["pid"] == 1
        await wire.send({"id": 2, "method": "status", "params": [1]})
        assert "params" in (await wire.line())["error"]["message"]


async def test_status_and_stop_use_the_daemons_hooks(world: World) -> None:
    async with connected(world.path) as wire:
        peer = Peer(wire)
        status = await peer.call("status")
        assert status["pid"] == 1
        assert status["store"]
        assert await peer.call("models")
        assert await peer.call("stop") == {"stopping": True, "now": False}
        assert await peer.call("stop", now=True) == {"stopping": True, "now": True}
    assert world.daemon.hooks.stops == [False, True]


async def test_serve_listens_for_as_long_as_the_connection_lives(world: World) -> None:
    async with connected(world.path) as wire:
        opened = await Peer(wire).call("serve", port=0, token=True)
        assert opened["token"] is True
        assert world.daemon.paths.token_file.read_text().strip() not in str(opened)
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            health = await client.get(opened["url_mcp"].replace("/mcp", "/health"))
            assert health.json()["ok"]
            assert world.daemon.faces.listening == [opened]
            error = await Peer(wire).error("serve", host="0.0.0.0", port=0, token=False)
            assert error["code"] == "config_error"
    await world.daemon.all_closed()
    assert world.daemon.faces.listening == []
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(opened["url_mcp"])


async def test_text_with_half_a_character_comes_through(world: World) -> None:
    world.rig.model.script("a\ud83d!")
    async with connected(world.path) as wire:
        peer = Peer(wire)
        session = await peer.call("create_session")
        sent = await peer.call("send_turn", session_id=session["id"], content="x")
        done = await peer.call("wait", interaction_id=sent["interaction"]["id"], timeout_s=10)
        assert done["interaction"]["status"] in {"completed", "failed"}


async def test_many_requests_at_once_are_all_answered(world: World) -> None:
    async with connected(world.path) as wire:
        peer = Peer(wire)
        numbers = {await peer.send("list_sessions") for _ in range(2000)}
        answers = [await wire.line() for _ in range(2000)]
        assert {answer["id"] for answer in answers} == numbers
        assert all("result" in a or a["error"]["code"] == "overloaded" for a in answers)
