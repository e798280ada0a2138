"""An agent's questions put to the user through the client, where it can do that; and everywhere else none the worse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import httpx2
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from faces.kit import Json
from faces.world_kit import COMMANDS, World, world
from interactd.faces.mcp import elicitation
from interactd.faces.mcp.peer import Peer
from interactd.nouns import LOCAL
from support.provider import Call, Reply, Request

__all__ = ["world"]

pytestmark = pytest.mark.anyio


def writes_then_answers(*paths: str) -> Any:
    """A model that writes files, all in one answer, and says what it heard of that."""

    def answer(request: Request) -> Reply:
        heard = [message["content"] for message in request.json["messages"] if message["role"] == "tool"]
        if heard:
            return Reply(text=f"heard: {' / '.join(map(str, heard))}")
        made = [Call("write_file", {"path": path, "content": "x"}, id=f"c{n}") for n, path in enumerate(paths)]
        return Reply(calls=made)

    return answer


@asynccontextmanager
async def client(world: World, transport: str, mode: Any, answer: Any) -> AsyncGenerator[Client]:
    async with AsyncExitStack() as stack:
        streams: Any
        if transport in COMMANDS:
            command, *arguments = COMMANDS[transport]
            streams = stdio_client(StdioServerParameters(command=command, args=arguments, env=world.home.env))
        else:
            face = await stack.enter_async_context(world.serving())
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=world.token, timeout=60))
            streams = streamable_http_client(face["url_mcp"], http_client=http)
        yield await stack.enter_async_context(Client(streams, mode=mode, elicitation_callback=answer))


class User:
    """Somebody before a client: what they were asked, and what they say."""

    def __init__(self, action: str = "accept", **content: Any) -> None:
        self.asked: list[Any] = []
        self.action: Any = action
        self.content = content
        self.hangs = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.patient = True

    async def __call__(self, context: Any, params: Any) -> types.ElicitResult:
        self.asked.append(params)
        self.was_asked.set()
        if not self.patient:
            await self.hangs.wait()
        return types.ElicitResult(action=self.action, content=self.content if self.action == "accept" else None)


async def start(one: Client) -> str:
    made = await one.call_tool("run_agent_background", {"input": "write", "approvals": "always_ask"})
    assert not made.is_error, made
    return str(made.structured_content["interaction_id"])


async def look(one: Client, interaction_id: str, wait_s: float = 40) -> Json:
    result = await one.call_tool("get_interaction", {"interaction_id": interaction_id, "wait_s": wait_s})
    assert not result.is_error, result
    return {**result.structured_content, "text": result.content[0].text}  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("transport", ["shim", "http"])
async def test_what_the_user_says_in_the_client_is_the_answer(world: World, transport: str, mode: str) -> None:
    world.provider.default = writes_then_answers("a.txt")
    user = User(decision="allow")
    async with client(world, transport, mode, user) as one:
        done = await look(one, await start(one))
        assert done["status"] == "completed", done
        assert [artifact["name"] for artifact in done["artifacts"]] == ["a.txt"]
    (asked,) = user.asked
    assert "wants to write the file a.txt" in asked.message
    assert asked.requested_schema["properties"]["decision"]["enum"] == ["allow", "deny"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_several_questions_are_one_form_and_a_denial_is_told_to_the_agent(world: World, mode: str) -> None:
    world.provider.default = writes_then_answers("a.txt", "b.txt")
    user = User(decision_1="allow", decision_2="deny", reason="one is enough")
    async with client(world, "shim", mode, user) as one:
        done = await look(one, await start(one))
        assert done["status"] == "completed"
        assert "one is enough" in done["text"]
        assert [artifact["name"] for artifact in done["artifacts"]] == ["a.txt"]
    assert len(user.asked) == 1


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_who_declines_leaves_the_question_open_and_is_not_asked_again(
    world: World, mode: str, action: str
) -> None:
    world.provider.default = writes_then_answers("a.txt")
    user = User(action)
    async with client(world, "shim", mode, user) as one:
        interaction_id = await start(one)
        seen: Json = {}
        for _ in range(2):
            seen = await look(one, interaction_id)
            assert seen["status"] == "requires_action"
            assert f'Next: respond(interaction_id="{interaction_id}"' in seen["text"]
        assert len(user.asked) == 1
        following: Json = seen["next"]["arguments"]
        done = await one.call_tool("respond", {**following, "wait_s": 40})
        assert done.structured_content["status"] == "completed"


async def test_a_turn_that_is_waited_for_asks_and_is_sent_once(world: World) -> None:
    world.provider.default = writes_then_answers("a.txt")
    for mode in ("legacy", "auto"):
        user = User(decision="allow", scope="session")
        async with client(world, "shim", mode, user) as one:
            made = await one.call_tool("create_session", {"agent": "antigravity", "approvals": "always_ask"})
            session_id = made.structured_content["session_id"]
            sent = await one.call_tool("send_turn", {"session_id": session_id, "input": "write", "wait_s": 40})
            assert sent.structured_content["status"] == "completed", sent
            read = await one.call_tool("get_session", {"session_id": session_id})
            assert len(read.structured_content["interactions"]) == 1
        assert len(user.asked) == 1


async def test_a_client_without_forms_gets_the_call_to_make(world: World) -> None:
    world.provider.default = writes_then_answers("a.txt")
    async with client(world, "shim", "auto", None) as one:
        seen = await look(one, await start(one))
        assert seen["status"] == "requires_action"
        assert "May it?" in seen["text"]
        assert seen["calls"][0]["kind"] == "approval"
        assert "until 20" in seen["text"]
        assert "without an answer by then: deny" in seen["text"]
        listed = await one.call_tool("list_sessions", {})
        assert "waits for an answer" in listed.content[0].text  # type: ignore[union-attr]
        status = await one.call_tool("server_status", {})
        assert status.structured_content["waiting"] == 1


async def test_a_question_that_is_answered_elsewhere_is_not_waited_for(world: World) -> None:
    world.provider.default = writes_then_answers("a.txt")
    user = User(decision="deny")
    user.patient = False
    async with client(world, "shim", "legacy", user) as one, client(world, "shim", "auto", None) as other:
        interaction_id = await start(one)
        looking = asyncio.create_task(look(one, interaction_id))
        async with asyncio.timeout(30):
            await user.was_asked.wait()
        seen = await look(other, interaction_id, 0)
        await other.call_tool("respond", seen["next"]["arguments"])
        assert (await looking)["status"] == "completed"


async def test_a_user_who_does_not_answer_in_time_leaves_the_question_open(monkeypatch: pytest.MonkeyPatch) -> None:
    user, peer = _Session(), Peer("stdio", "con_1")
    asked = ({"id": "ask_1", "kind": "approval", "question": "May it?"},)
    monkeypatch.setattr(elicitation, "SHORTEST_S", 0.01)
    engine: Any = _Engine()
    content = await elicitation.ask(
        cast("Any", user), engine, elicitation.Question("int_1", asked), LOCAL, peer, time.monotonic() + 0.05
    )
    assert content is None
    assert user.cancelled
    assert list(peer.declined) == ["ask_1"]


class _Session:
    """A client that is asked and never says a word."""

    request_id = 1

    def __init__(self) -> None:
        self.session = self
        self.cancelled = False

    async def send_request(self, *_: Any, **__: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


class _Engine:
    async def get_interaction(self, interaction_id: str, *, caller: Any) -> Any:
        raise AssertionError("there was no time to look")
