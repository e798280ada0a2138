"""Function calls through a grammar: what is written can be read back, and arguments fit their schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd import paths
from interactd.errors import InvalidArgument, StreamMalformed
from interactd.models.embedded import Embedded, EmbeddedSettings
from interactd.models.embedded.calls import protocol
from interactd.models.embedded.calls.agent import json_form
from interactd.models.embedded.calls.reader import CallReader
from interactd.models.embedded.model import EmbeddedModel
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepDelta, StepFinished, StepStarted
from interactd.nouns import GenerationConfig, Json, Step, text_content, user_input
from support.weights import TEST_MODEL


def tool(name: str, schema: Json) -> Json:
    return {"type": "function", "name": name, "description": f"Does {name}.", "parameters": schema}


WRITE = tool(
    "write_file",
    {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
)
SCHEMAS: dict[str, Json] = {
    "nothing": {},
    "closed": {"type": "object", "properties": {}, "additionalProperties": False},
    "required and optional": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", 'F"\\']}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "optional only": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"type": "number"}},
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 9}, "ok": {"type": "boolean"}},
                    "required": ["n", "ok"],
                    "additionalProperties": False,
                },
            },
            "tag": {"type": ["string", "null"], "maxLength": 8},
        },
        "required": ["rows", "tag"],
        "additionalProperties": False,
    },
    "recursive": {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/node"}},
        "required": ["tree"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                "required": ["left"],
                "additionalProperties": False,
            }
        },
    },
    "names": {
        "type": "object",
        "properties": {'qu"ote': {"const": "ä\n"}, "späce d": {"type": "integer", "minimum": 0}},
        "required": ['qu"ote', "späce d"],
        "additionalProperties": False,
    },
}


@pytest.fixture
async def model(tmp_path: Path, weights: Path) -> AsyncGenerator[EmbeddedModel]:
    settings = EmbeddedSettings(model=TEST_MODEL, weights=weights)
    embedded = Embedded(paths.find({"INTERACTD_HOME": str(tmp_path)}), settings)
    yield await embedded.resolve()
    await embedded.aclose()


async def call(
    model: EmbeddedModel, tools: list[Json], steps: list[Step] | None = None, **config: Any
) -> list[ModelEvent]:
    asked = steps or [user_input("Use a tool.")]
    given: dict[str, Any] = {"max_output_tokens": 200, "seed": 3, **config}
    settings = GenerationConfig(**given)
    return [event async for event in model.stream(ModelRequest(TEST_MODEL, asked, tools=tools, config=settings))]


@pytest.mark.anyio
async def test_every_call_has_a_known_name_and_arguments_that_fit(model: EmbeddedModel) -> None:
    whole = 0
    for label, schema in SCHEMAS.items():
        tools = [tool("first", schema), tool("second", schema)]
        events = await call(model, tools, tool_choice="any")
        done = events[-1]
        assert isinstance(done, Finished)
        if done.reason == "length":
            assert not any(isinstance(event, StepFinished) for event in events), "half a call is no call"
            continue
        assert done.reason == "tool_calls", label
        step = next(event.step for event in events if isinstance(event, StepFinished))
        assert step.type == "function_call"
        assert step.body["name"] in ("first", "second")
        assert step.body["id"].startswith("call_")
        jsonschema.validate(step.body["arguments"], {"type": "object", **schema})
        whole += 1
    assert whole >= len(SCHEMAS) - 2


@pytest.mark.anyio
async def test_a_long_text_argument_comes_in_a_fence(model: EmbeddedModel) -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
    for seed in (3, 0, 1, 2, 4, 5):
        events = await call(model, [tool("run", schema)], tool_choice="any", seed=seed, max_output_tokens=400)
        if isinstance(events[0], StepStarted):
            break
    else:
        pytest.fail("six answers in a row ran into the limit")
    assert events[0].type == "function_call"
    step = next(event.step for event in events if isinstance(event, StepFinished))
    assert set(step.body["arguments"]) == {"code"}
    assert "```" not in step.body["arguments"]["code"]


@pytest.mark.anyio
async def test_auto_gives_an_answer_or_a_call_and_none_gives_text(model: EmbeddedModel) -> None:
    for seed in range(3):
        events = await call(model, [WRITE], seed=seed, max_output_tokens=40)
        kinds = {event.type for event in events if isinstance(event, StepStarted)}
        assert len(kinds) <= 1
        assert kinds <= {"model_output", "function_call"}
        text = "".join(event.text for event in events if isinstance(event, StepDelta) and event.kind == "text")
        assert not text.startswith("ANSWER")
    events = await call(model, [WRITE], tool_choice="none", max_output_tokens=10)
    assert isinstance(events[0], StepStarted)
    assert events[0].type == "model_output"


@pytest.mark.anyio
async def test_results_of_earlier_calls_are_read(model: EmbeddedModel) -> None:
    steps = [
        user_input("Write hello to a.txt"),
        Step("function_call", {"id": "c1", "name": "write_file", "arguments": {"path": "a.txt", "content": "hello"}}),
        Step("function_result", {"call_id": "c1", "name": "write_file", "result": {"written": 5}}),
    ]
    plain = await call(model, [], steps, max_output_tokens=5)
    tooled = await call(model, [WRITE], steps, max_output_tokens=60)
    assert isinstance(plain[-1], Finished)
    assert isinstance(tooled[-1], Finished)


@pytest.mark.anyio
async def test_what_cannot_be_a_tool_is_refused(model: EmbeddedModel) -> None:
    for wrong in ({"type": "google_search"}, {"type": "function", "name": "a b"}, tool("x", [])):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            await call(model, [wrong])
    with pytest.raises(InvalidArgument):
        await call(model, [], tool_choice="any")


def feed(*pieces: str, reason: str = "stop") -> list[ModelEvent]:
    reader = CallReader(json_form([WRITE]))
    events: list[ModelEvent] = [StepStarted(0, "model_output")]
    events += [StepDelta(0, "text", piece) for piece in pieces]
    events.append(StepFinished(0, Step("model_output", {"content": [text_content("".join(pieces))]})))
    events.append(Finished("length" if reason == "length" else "stop", reason, None))
    return [out for event in events for out in reader.feed(event)]


def test_an_answer_is_passed_on_as_it_comes_without_its_mark() -> None:
    for pieces in (["ANS", "WER", "\nHi", " you"], ["ANSWER\nHi you"], ["Hi", " you"]):
        events = feed(*pieces)
        assert "".join(event.text for event in events if isinstance(event, StepDelta)) == "Hi you"
        assert [event.step.text for event in events if isinstance(event, StepFinished)] == ["Hi you"]


def test_a_call_cut_off_by_the_limit_is_no_call_and_a_broken_one_is_an_error() -> None:
    events = feed('CALL write_file\n{"path": "a', reason="length")
    assert [type(event) for event in events] == [Finished]
    with pytest.raises(StreamMalformed):
        feed('CALL write_file\n{"path": "a')


words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=60)
lines = st.lists(words.filter(lambda line: not line.startswith("```")), min_size=1, max_size=6).map("\n".join)


@given(path=words, content=lines)
def test_a_call_that_is_written_is_read_back_as_it_was(path: str, content: str) -> None:
    arguments = {"path": path, "content": content}
    step = Step("function_call", {"id": "c", "name": "write_file", "arguments": arguments})
    text = protocol.render_call(step, [WRITE])
    assert protocol.parse_call(text.removeprefix(protocol.CALL), [WRITE]) == ("write_file", arguments)


@given(
    result=st.one_of(
        st.text(), st.dictionaries(st.text(max_size=5), st.integers()), st.text(min_size=1).map(lambda t: t * 5000)
    )
)
def test_a_result_of_any_length_is_rendered_within_bounds(result: Any) -> None:
    step = Step("function_result", {"call_id": "c", "name": "f", "result": result, "is_error": True})
    text = protocol.render_result(step)
    assert text.startswith("ERROR of f:\n")
    assert len(text) < 4200
