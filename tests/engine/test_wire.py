"""The engine over the true catalog and wires, against a provider on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.kit import PATIENCE_S, texts
from interactd.config import load
from interactd.engine import EngineSettings, LocalEngine
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.nouns import Interaction
from interactd.paths import find
from interactd.store.sqlite import SqliteStore
from support.provider import Call, FakeProvider, Fault, Hang, Reply

pytestmark = pytest.mark.anyio
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
WIRES = {
    "openai": {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": "{url}/v1"},
    "anthropic": {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": "{url}"},
}


@asynccontextmanager
async def engine_at(home: Path, provider: FakeProvider, name: str) -> AsyncGenerator[LocalEngine]:
    env = {key: value.format(url=provider.base_url) for key, value in WIRES[name].items()}
    paths = find({"INTERACTD_HOME": str(home)}).make()
    catalog = ModelCatalog(load(paths, {}), KeyRing(own=env))
    engine = LocalEngine(SqliteStore(paths.database), catalog, EngineSettings())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.fixture(params=sorted(WIRES))
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_two_turns_and_a_call_over_a_true_wire(tmp_path: Path, wire: str) -> None:
    async with FakeProvider() as provider, engine_at(tmp_path, provider, wire) as engine:
        provider.script([Reply(calls=[Call("add", {"a": 1}, id="call_1")]), "The sum is 3.", "Three, as I said."])
        session = await engine.create_session(model=f"{wire}/fake-model-1", tools=[TOOL])
        sent = await engine.send_turn(session.id, "1 + 2?")
        asked = await engine.wait(sent.interaction.id, PATIENCE_S)
        assert asked.interaction.status == "requires_action", asked.interaction.error
        assert asked.waiting_for[0]["arguments"] == {"a": 1}
        await engine.respond(asked.interaction.id, [{"call_id": asked.waiting_for[0]["id"], "result": {"sum": 3}}])
        done = await engine.wait(asked.interaction.id, PATIENCE_S)
        assert done.interaction.status == "completed", done.interaction.error
        assert texts(done)[-1] == "model_output: The sum is 3."
        sent = await engine.send_turn(session.id, "What was it?")
        again = await engine.wait(sent.interaction.id, PATIENCE_S)
        assert texts(again)[-1] == "model_output: Three, as I said."
        assert "The sum is 3." in provider.requests[2].body.decode()
        usage = done.interaction.usage
        assert usage is not None
        assert (usage.input, usage.output) == (20, 10)


async def test_arguments_that_are_no_json_are_answered_with_an_error_and_mended(tmp_path: Path) -> None:
    async with FakeProvider() as provider, engine_at(tmp_path, provider, "openai") as engine:
        broken = Call("add", '{"a": ', id="call_1")
        provider.script([Reply(calls=[broken]), "I cannot count."])
        session = await engine.create_session(model="openai/fake-model-1", tools=[TOOL])
        sent = await engine.send_turn(session.id, "1 + 2?")
        done = await engine.wait(sent.interaction.id, PATIENCE_S)
        assert done.interaction.status == "completed", done.interaction.error
        assert [step.type for step in done.steps] == [
            "user_input",
            "function_call",
            "function_result",
            "model_output",
        ]


async def test_cancel_closes_the_providers_socket(tmp_path: Path, wire: str) -> None:
    async with FakeProvider() as provider, engine_at(tmp_path, provider, wire) as engine:
        provider.script(Reply(text=["Once ", "upon ", asyncio.Event(), "never"]))
        session = await engine.create_session(model=f"{wire}/fake-model-1")
        sent = await engine.send_turn(session.id, "tell")
        async for event in engine.events(sent.interaction.id):
            if event.type == "step.delta":
                break
        done = await engine.cancel(sent.interaction.id)
        async with asyncio.timeout(2):
            await provider.requests[0].disconnected.wait()
        assert done.interaction.status == "cancelled"
        assert texts(done)[-1].startswith("model_output: Once")


async def test_cancel_before_the_first_byte_closes_the_socket_too(tmp_path: Path, wire: str) -> None:
    async with FakeProvider() as provider, engine_at(tmp_path, provider, wire) as engine:
        provider.script(Hang())
        session = await engine.create_session(model=f"{wire}/fake-model-1")
        sent = await engine.send_turn(session.id, "tell")
        await provider.received(1)
        done = await engine.cancel(sent.interaction.id)
        async with asyncio.timeout(2):
            await provider.requests[0].disconnected.wait()
        assert (done.interaction.status, len(done.steps)) == ("cancelled", 1)


async def test_a_refused_key_and_a_cut_stream_are_outcomes_with_a_way_on(tmp_path: Path, wire: str) -> None:
    async with FakeProvider() as provider, engine_at(tmp_path, provider, wire) as engine:
        provider.script([Fault(401, "bad key sk-test"), Reply(text="one two three four", truncate_after=4)])
        session = await engine.create_session(model=f"{wire}/fake-model-1")
        outcomes: list[Interaction] = []
        for _ in range(2):
            sent = await engine.send_turn(session.id, "hello")
            outcomes.append((await engine.wait(sent.interaction.id, PATIENCE_S)).interaction)
        errors = [outcome.error or {} for outcome in outcomes]
        assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
        assert [error["code"] for error in errors] == ["key_refused", "stream_truncated"]
        assert all(error["repair"] for error in errors)
        assert "sk-test" not in str(errors)
