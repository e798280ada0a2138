"""What models of middling size do wrong, over every provider's wire: the run goes on, or says plainly why it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.agents.kit import RUN_PATIENCE_S, Folder
from engine.agents.test_wires import KINDS, PIXEL
from interactd.config import Config
from interactd.config.schema import Kind, Provider
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.port import Result
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.paths import Paths
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore
from support.provider import Call, FakeProvider, Fault, Item, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", KINDS)]


class Talk:
    """A session of an agent on a model behind one wire."""

    def __init__(self, engine: LocalEngine, server: FakeProvider) -> None:
        self.engine = engine
        self.server = server
        self.session_id = ""

    async def turn(self, *script: Item) -> Result:
        """Send a turn to a model that answers this."""
        self.server.script(list(script))
        if not self.session_id:
            self.session_id = (await self.engine.create_session(agent="helper", model="fake/fake-model-1")).id
        sent = await self.engine.send_turn(self.session_id, "do it")
        return await self.engine.wait(sent.interaction.id, RUN_PATIENCE_S)

    def told(self, at: int) -> str:
        """A request as text."""
        return json.dumps(self.server.requests[at].json, ensure_ascii=False)


@pytest.fixture
async def talk(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Talk]:
    async with _talk(kind, tmp_path, monkeypatch) as made:
        yield made


@asynccontextmanager
async def _talk(kind: Kind, home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Talk]:
    monkeypatch.setenv("FAKE_KEY", "sk-fake")
    paths = Paths(*(str(home / part) for part in ("config", "data", "state", "logs", "cache", "run"))).make()
    agents = Folder(home / "agents")
    agents.put()
    async with FakeProvider() as server:
        provider = Provider(
            kind=kind, base_url=server.base_url, api_key_env="FAKE_KEY", models=["fake-model-1"], allow_http=True
        )
        store = SqliteStore(paths.database)
        engine = LocalEngine(
            store,
            ModelCatalog(Config(providers={"fake": provider}), KeyRing(frozenset({"FAKE_KEY"}))),
            EngineSettings(),
            agents=agents,
            environments=LocalEnvironments(paths, store, all_launchers(paths)),
        )
        await engine.start()
        try:
            yield Talk(engine, server)
        finally:
            await engine.aclose()


def write(name: str, content: str = "x", call_id: str = "") -> Call:
    return Call("write_file", {"path": name, "content": content}, call_id or f"call_{name}")


def types(result: Result) -> list[str]:
    return [step.type for step in result.steps]


def results(result: Result) -> list[Any]:
    return [step.body["result"] for step in result.steps if step.type.endswith("_result")]


async def kept(talk: Talk, result: Result) -> dict[str, bytes]:
    return {one.name: one.path.read_bytes() for one in await talk.engine.artifacts(result.interaction.id)}


async def test_many_calls_in_one_answer_are_all_made_and_answered_in_order(talk: Talk) -> None:
    names = [f"f{number}" for number in range(12)]
    result = await talk.turn(
        Reply(calls=[write(name, name) for name in names]),
        Reply(calls=[Call("view_file", {"path": name}, f"view_{name}") for name in names]),
        "done",
    )
    assert result.interaction.status == "completed", result.interaction.error
    views = {s.body["call_id"]: s.body["result"] for s in result.steps if s.type == "function_result"}
    assert [views[f"view_{name}"] for name in names] == [f"1\t{name}" for name in names]
    asked = [talk.told(2).find(f"1\\\\t{name}") for name in names]
    assert asked == sorted(asked), "whoever finished first: the model reads the results in the order of its calls"
    assert await kept(talk, result) == {name: name.encode() for name in names}


async def test_the_same_id_for_several_calls_confuses_nobody(talk: Talk) -> None:
    result = await talk.turn(
        Reply(calls=[write("a", call_id="same"), write("b", call_id="same")]),
        Reply(calls=[write("c", call_id="same")]),
        "done",
    )
    assert result.interaction.status == "completed", result.interaction.error
    assert sorted(await kept(talk, result)) == ["a", "b", "c"]
    ids = [step.body["id"] for step in result.steps if step.type == "function_call"]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("name", ["functions.write_file", "Write_File", "default_api:write_file"])
async def test_a_name_with_something_around_it_is_understood(talk: Talk, name: str) -> None:
    result = await talk.turn(Reply(calls=[Call(name, {"path": "a", "content": "1"}, "c1")]), "done")
    assert result.interaction.status == "completed", result.interaction.error
    assert await kept(talk, result) == {"a": b"1"}
    assert next(step for step in result.steps if step.type == "function_call").body["name"] == "write_file"


async def test_calls_that_cannot_be_used_are_explained_and_the_run_goes_on(talk: Talk, kind: Kind) -> None:
    broken = [Call("write_file", "{path: a", "c2")] if kind != "gemini" else []
    result = await talk.turn(
        Reply(calls=[Call("cook_dinner", {}, "c1"), *broken]),
        Reply(calls=[Call("write_file", {"path": "a"}, "c3")]),
        Reply(calls=[write("a")]),
        "done",
    )
    assert result.interaction.status == "completed", result.interaction.error
    assert "There is no function 'cook_dinner'" in results(result)[0]
    assert "'content' is missing" in talk.told(2)
    assert await kept(talk, result) == {"a": b"x"}


async def test_a_model_that_only_ever_calls_nonsense_is_stopped(talk: Talk) -> None:
    result = await talk.turn(*[Reply(calls=[Call(f"nonsense_{n}", {}, f"c{n}")]) for n in range(9)])
    assert result.interaction.status == "failed"
    assert (result.interaction.error or {})["code"] == "bad_tool_calls"
    assert talk.server.left == 4


async def test_an_empty_answer_is_asked_for_once_more(talk: Talk) -> None:
    result = await talk.turn(Reply(), Reply(calls=[write("a")]), Reply(), "done")
    assert result.interaction.status == "completed", result.interaction.error
    assert result.steps[-1].text == "done"


async def test_two_empty_answers_in_a_row_end_the_run(talk: Talk) -> None:
    result = await talk.turn(Reply(calls=[write("a")]), Reply(), Reply())
    assert result.interaction.status == "incomplete"
    assert (result.interaction.error or {})["code"] == "empty_answer"


async def test_a_call_made_again_and_again_is_stopped_with_its_work_kept(talk: Talk) -> None:
    again = [Reply(calls=[Call("view_file", {"path": "nothing"}, f"c{n}")]) for n in range(9)]
    result = await talk.turn(Reply(calls=[write("a")]), *again)
    assert result.interaction.status == "incomplete"
    assert (result.interaction.error or {})["code"] == "loop_detected"
    assert await kept(talk, result) == {"a": b"x"}


async def test_an_answer_that_repeats_itself_without_end_is_stopped(talk: Talk) -> None:
    result = await talk.turn(Reply(text=["I will now do it. "] * 2_000))
    assert result.interaction.status == "incomplete"
    assert (result.interaction.error or {})["code"] == "loop_detected"
    assert len(result.steps[-1].text) < 20_000


async def test_an_answer_cut_off_in_a_call_is_told_so_and_makes_it_shorter(talk: Talk, kind: Kind) -> None:
    if kind == "gemini":
        pytest.skip("Gemini sends a call whole or not at all")
    half = Call("write_file", '{"path": "b", "content": "long lo', "c2")
    result = await talk.turn(Reply(calls=[write("a"), half], finish="length"), Reply(calls=[write("b")]), "done")
    assert result.interaction.status == "completed", result.interaction.error
    assert "cut off at the output limit in the middle of this call" in talk.told(1)
    assert sorted(await kept(talk, result)) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        'I write it.\n<tool_call>\n{"name": "write_file", "arguments": {"path": "a", "content": "x"}}\n</tool_call>',
        "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=content>\nx\n</parameter>\n"
        "</function>\n</tool_call>",
        '```json\n{"name": "write_file", "parameters": {"path": "a", "content": "x"}}\n```',
        '[TOOL_CALLS][{"name": "write_file", "arguments": {"path": "a", "content": "x"}}]',
    ],
)
async def test_a_call_that_came_as_text_is_made(talk: Talk, text: str) -> None:
    result = await talk.turn(text, "done")
    assert result.interaction.status == "completed", result.interaction.error
    assert types(result) == ["user_input", "model_output", "function_call", "function_result", "model_output"]
    assert result.steps[1].text == text
    assert await kept(talk, result) == {"a": b"x"}


async def test_an_answer_about_calls_is_an_answer(talk: Talk) -> None:
    text = 'A call looks like <tool_call>{"name": "write_file", "arguments": {}}</tool_call>, as you know.'
    result = await talk.turn(text)
    assert result.interaction.status == "completed"
    assert types(result) == ["user_input", "model_output"]


async def test_very_long_results_reach_the_model_cut_and_stay_whole_in_a_file(talk: Talk) -> None:
    code = "print('first')\nfor n in range(5_000): print(n, 'x' * 20)\nprint('last')"
    result = await talk.turn(Reply(calls=[Call("code_execution", {"language": "python", "code": code}, "c1")]), "done")
    assert result.interaction.status == "completed", result.interaction.error
    told = talk.told(1)
    assert "first" in told
    assert "last" in told
    assert "characters left out" in told
    assert len(told) < 40_000
    whole = [data for name, data in (await kept(talk, result)).items() if name.startswith(".outputs/")]
    assert whole[0].startswith(b"first\n0 x")
    assert whole[0].endswith(b"\nlast\n")
    assert b"bytes left out" in whole[0]
    assert "More of it, but not its middle, is in .outputs/" in told


async def test_a_model_that_cannot_see_is_told_of_pictures_in_words(talk: Talk) -> None:
    draw = f"import base64\nopen('p.png', 'wb').write(base64.b64decode('{PIXEL}'))"
    look: Sequence[Item] = [
        Reply(calls=[Call("code_execution", {"language": "python", "code": draw}, "c1")]),
        Reply(calls=[Call("view_file", {"path": "p.png"}, "c2")]),
    ]
    result = await talk.turn(*look, Fault(400, "this model does not support image input"), "It is a picture.", "again")
    assert result.interaction.status == "completed", result.interaction.error
    assert PIXEL[:40] in talk.told(2)
    assert PIXEL[:40] not in talk.told(3).replace(draw[:200], "")[talk.told(3).find("p.png (image/png") :]
    assert "which this model cannot read" in talk.told(3)
    later = await talk.turn()
    assert later.interaction.status == "completed", later.interaction.error
    assert "which this model cannot read" in talk.told(4), "it is remembered in the next turn"
