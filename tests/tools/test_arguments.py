"""Arguments as hosts send them are taken; wrong ones give one readable line, and nothing happens."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interactd.errors import InvalidArgument
from interactd_tools import TOOLS
from interactd_tools.arguments import guard, problems
from interactd_tools.arguments.content import read_input
from interactd_tools.arguments.fields import Arguments
from interactd_tools.arguments.read import read
from interactd_tools.registry import Bound
from interactd_tools.sessions import create_session, get_session, list_sessions
from interactd_tools.turns import get_interaction, respond, send_turn
from tools.conftest import World, fields

SES = "ses_" + "0" * 26
INT = "int_" + "0" * 26
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()


def parse(tool: Bound[Any], **arguments: Any) -> Any:
    return read(tool.model, tool.schema, arguments, example=tool.example)


def line(tool: Bound[Any], **arguments: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse(tool, **arguments)
    return caught.value.message


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        ({"wait_s": "12"}, {"wait_s": 12}),
        ({"wait_s": " 1.5 "}, {"wait_s": 1.5}),
        ({"wait_s": 600}, {"wait_s": 600}),
        ({"max_tokens": "4000"}, {"max_tokens": 4000}),
        ({"max_tokens": 4000.0}, {"max_tokens": 4000}),
        ({"max_tokens": 99999}, {"max_tokens": 8000}),
        ({"background": "true"}, {"background": True}),
        ({"background": " False "}, {"background": False}),
        ({"background": None, "wait_s": None}, {"background": False, "wait_s": 30}),
        ({"thinking_level": " HIGH"}, {"thinking_level": "high"}),
        ({"thinking_level": ""}, {"thinking_level": None}),
        ({"previous_interaction_id": "  "}, {"previous_interaction_id": None}),
        ({"session_id": f"  {SES.upper()} "}, {"session_id": SES}),
        ({"session_id": SES[4:]}, {"session_id": SES}),
        ({"input": "  keep my blanks \n"}, {"input": "  keep my blanks \n"}),
        ({"input": "\x1b[31mred\x07 \u202e"}, {"input": "\x1b[31mred\x07 \u202e"}),
        ({"input": '{"type": "text"}'}, {"input": '{"type": "text"}'}),
        ({"input": '[{"type": "text", "text": 5}]'}, None),
        ({"input": [{"type": "text", "text": "a"}, "b"]}, {"input": [{"type": "text", "text": t} for t in "ab"]}),
        ({"input": '[{"type": "text", "text": "a"}]'}, {"input": [{"type": "text", "text": "a"}]}),
        (
            {"input": [{"type": "image", "data": PNG, "mimeType": "image/jpeg"}]},
            {"input": [{"type": "image", "data": PNG, "mime_type": "image/png"}]},
        ),
        (
            {"input": [{"type": "image", "uri": f"data:image/png;base64,{PNG}"}]},
            {"input": [{"type": "image", "data": PNG, "mime_type": "image/png"}]},
        ),
    ],
)
def test_send_turn_takes_what_hosts_send(given_: dict[str, Any], taken: dict[str, Any] | None) -> None:
    arguments = {"session_id": SES, "input": "Hello.", **given_}
    if taken is None:
        assert line(send_turn, **arguments)
        return
    read_ = parse(send_turn, **arguments).model_dump()
    assert {name: read_[name] for name in taken} == taken


def test_objects_and_lists_may_come_as_json_text() -> None:
    made = parse(
        create_session,
        generation_config='{"temperature": "0.5", "stop_sequences": "END"}',
        tools='[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]',
        labels='{"project": "x", "year": 2026}',
    )
    assert made.generation_config.temperature == 0.5
    assert made.generation_config.stop_sequences == ["END"]
    assert made.tools == [{"type": "function", "name": "add", "description": "", "parameters": {"type": "object"}}]
    assert made.labels == {"project": "x", "year": "2026"}
    answered = parse(respond, interaction_id=INT, results='{"call_id": "c1", "result": {"a": 1}, "is_error": "true"}')
    assert [one.model_dump() for one in answered.results] == [{"call_id": "c1", "result": {"a": 1}, "is_error": True}]


@pytest.mark.parametrize("value", [7, 1.5, True, None, ["a"], [{"type": "text", "text": "t"}], {"x": [1]}, "", "[1]"])
def test_a_function_may_give_any_json(value: Any) -> None:
    answered = parse(respond, interaction_id=INT, results=[{"call_id": "c", "result": value}])
    assert answered.results[0].result == value


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ("24h", 86400),
        ("90m", 5400),
        ("90 min", 5400),
        ("7d", 7 * 86400),
        ("2 weeks", 14 * 86400),
        ("1d12h", 129600),
        ("3600", 3600),
        (3600, 3600),
        (1.5, 1.5),
        ("1 hour", 3600),
        ("30 seconds", 30),
        ("forever", 0),
        (" Never ", 0),
        (None, None),
        ("", None),
    ],
)
def test_a_ttl_is_read_as_people_write_it(ttl: Any, seconds: float | None) -> None:
    assert parse(create_session, ttl=ttl).ttl == seconds


@pytest.mark.parametrize(
    "ttl", ["soon", "-1h", 0, 0.5, -5, "0", math.inf, "1e9h", "h", [], {}, True, "99999d", "9" * 500]
)
def test_a_ttl_that_says_nothing_is_refused(ttl: Any) -> None:
    assert line(create_session, ttl=ttl).startswith("ttl: expected ")


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (send_turn, {}, "session_id: expected a session id (ses_...), got nothing; input: expected text"),
        (send_turn, {"session": SES, "input": "x"}, "session: no such argument, did you mean session_id?"),
        (send_turn, {"sessionId": SES, "input": "x"}, "sessionId: no such argument, did you mean session_id?"),
        (send_turn, {"session_id": SES, "inptu": "x"}, "inptu: no such argument, did you mean input?"),
        (send_turn, {"session_id": INT, "input": "x"}, "session_id: expected a session id (ses_...), got an interac"),
        (send_turn, {"session_id": 7, "input": "x"}, "session_id: expected a session id (ses_...), got 7"),
        (
            send_turn,
            {"session_id": SES, "input": "x", "wait_s": "soon"},
            'wait_s: expected seconds from 0 to 45, got "s',
        ),
        (send_turn, {"session_id": SES, "input": "x", "wait_s": -1}, "wait_s: expected seconds from 0 to 45, got -1"),
        (send_turn, {"session_id": SES, "input": "x", "wait_s": math.nan}, "wait_s: expected a number, got nan"),
        (
            send_turn,
            {"session_id": SES, "input": "x", "wait_s": True},
            "wait_s: expected seconds from 0 to 45, got true",
        ),
        (send_turn, {"session_id": SES, "input": " \n "}, "input: expected some text"),
        (send_turn, {"session_id": SES, "input": 42}, "input: expected text, or a list of"),
        (send_turn, {"session_id": SES, "input": []}, "input: expected 1 to 256 parts, got a list of 0 items"),
        (
            send_turn,
            {"session_id": SES, "input": [{"type": "video"}]},
            'input: expected part 0 of type text or image, got "',
        ),
        (send_turn, {"session_id": SES, "input": "a\ud83d"}, "input: expected Unicode text, got half a character"),
        (send_turn, {"session_id": SES, "input": "a\0"}, "input: expected text, got a NUL character at position 1"),
        (send_turn, {"session_id": SES, "input": "x", "background": 3}, "background: expected true or false, got 3"),
        (
            send_turn,
            {"session_id": SES, "input": "x", "thinking_level": "max"},
            "thinking_level: expected one of minimal,",
        ),
        (
            send_turn,
            {"session_id": SES, "input": "x", "max_tokens": 5},
            "max_tokens: expected a whole number of at least 1",
        ),
        (send_turn, {"session_id": SES, "input": "x", "if_busy": "wait"}, "if_busy: expected one of conflict, queue"),
        (get_session, {"session_id": SES, "limit": "ten"}, 'limit: expected a whole number from 1 to 50, got "ten"'),
        (get_session, {"session_id": SES, "limit": 1.5}, "limit: expected a whole number from 1 to 50, got 1.5"),
        (get_session, {"session_id": SES, "limit": 10**40}, "limit: expected a number of at most 64 bits"),
        (
            get_session,
            {"session_id": SES, "before": SES},
            "before: expected an interaction id (int_...), got a session",
        ),
        (
            get_interaction,
            {"interaction_id": INT, "offset": -1},
            "offset: expected a whole number of at least 0, got -1",
        ),
        (list_sessions, {"labels": ["a"]}, "labels: expected an object, got a list of 1 item"),
        (
            list_sessions,
            {"labels": {"a": {}}},
            'labels: expected text of at most 200 characters for "a", got an object',
        ),
        (create_session, {"title": "a\x07b"}, 'title: expected text without control characters, got "a\\x07b"'),
        (create_session, {"tools": [{"name": "a b"}]}, "tools[0]: expected a name of letters, digits, _ and -"),
        (create_session, {"tools": [{"name": "a"}, {"name": "a"}]}, 'tools: expected each name once, got "a" twice'),
        (create_session, {"tools": [{"type": "google_search"}]}, 'tools[0]: expected type "function"'),
        (
            create_session,
            {"generation_config": {"temprature": 1}},
            "generation_config.temprature: no such argument, did y",
        ),
        (
            create_session,
            {"generation_config": {"top_p": 7}},
            "generation_config.top_p: expected a number from 0 to 1, g",
        ),
        (create_session, {"generation_config": 3}, "generation_config: expected an object, got 3"),
        (respond, {"interaction_id": INT, "results": []}, "results: expected a list of {call_id, result}"),
        (
            respond,
            {"interaction_id": INT, "results": [{"id": "x"}]},
            "results[0].id: no such argument, did you mean ca",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(
    tool: Bound[Any], arguments: dict[str, Any], said: str
) -> None:
    text = line(tool, **arguments)
    assert said in text
    assert len(text) <= 330
    assert text.isprintable()


def test_all_wrong_fields_are_named_at_once() -> None:
    text = line(send_turn, session_id=SES, input="\ud800", wait_s="abc", background="perhaps", colour="red")
    for name in ("input:", "wait_s:", "background:", "colour:"):
        assert name in text


def test_what_does_not_fit_the_line_is_counted() -> None:
    text = line(send_turn, **{f"argument_{i}": "x" * 1000 for i in range(50)})
    assert len(text) <= 330
    assert text.rpartition("; and ")[2].endswith(" more")


def test_a_long_value_is_shown_by_its_start_and_its_size() -> None:
    shown = problems.shown("x" * 1_000_000)
    assert len(shown) <= problems.SHOWN_VALUE
    assert shown.endswith('..." (1,000,000 characters)')


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize("depth", [30, 5_000])
def test_deep_nesting_is_refused_without_ending_the_process(depth: int) -> None:
    assert "levels of nesting" in line(respond, interaction_id=INT, results=[{"call_id": "c", "result": nested(depth)}])
    text = '{"a":' * depth + "1" + "}" * depth
    assert "generation_config" in line(create_session, generation_config=text)


def test_a_huge_text_is_refused_by_its_size() -> None:
    assert "(5,000,000 characters)" in line(send_turn, session_id=SES, input="x" * 5_000_000)
    assert len(parse(send_turn, session_id=SES, input="x" * 1_000_000).input) == 1_000_000


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=30),
    st.sampled_from(["\ud800", "\0", "ses_", "[", '{"a":', "1e400", "NaN", SES, INT, "x" * 1000]),
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@pytest.mark.parametrize("name", list(TOOLS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_comes_is_taken_or_refused_in_one_line(name: str, data: st.DataObject) -> None:
    tool = _bound(name)
    known = list(tool.schema["properties"])
    names = st.sampled_from([*known, "colour"]) | st.text(max_size=10)
    arguments = data.draw(st.dictionaries(names, JSON, max_size=5) | JSON)
    try:
        taken = read(tool.model, tool.schema, arguments, example=tool.example)
    except InvalidArgument as error:
        text = error.message
        assert text.isprintable()
        assert len(text) <= 330
        text.encode()
    else:
        assert isinstance(taken, Arguments)
        taken.model_dump_json()


def _bound(name: str) -> Bound[Any]:
    from interactd_tools import _BOUND  # pyright: ignore[reportPrivateUsage]

    return _BOUND[name]


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_the_guard_passes_only_what_can_be_stored(value: Any) -> None:
    if not guard.bad_values({"v": value}):
        import json

        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_plain_text_is_never_taken_for_something_else(text: str) -> None:
    if text.strip():
        assert read_input(text) == text


WRONG: list[Any] = [
    {"no_such_thing": 1},
    [1, 2],
    "text",
    7,
    {"session_id": "\ud800", "interaction_id": "\ud800", "query": "\ud800", "model": "\ud800", "\ud800": 1},
    {"session_id": "x" * 1_000_000, "interaction_id": "x" * 1_000_000, "query": "x" * 1_000_000, "junk": ""},
    {"session_id": "\0\x1b[2J", "interaction_id": "\0\x1b[2J", "query": "\0", "junk\x1b[2J": "\x07"},
    {"session_id": [], "interaction_id": {}, "query": 1, "limit": "NaN", "offset": math.nan, "results": 0},
]
BAD = [(name, wrong) for name in TOOLS for wrong in WRONG]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "arguments"), BAD)
async def test_bad_input_to_any_tool_is_an_error_that_helps_and_changes_nothing(
    world: World, name: str, arguments: Any
) -> None:
    result = await world.call(name, arguments)
    assert result.is_error
    assert result.text.startswith("invalid_argument: ")
    assert f"Next: {name}(" in result.text
    assert len(result.text) < 500
    assert result.text.isprintable()
    assert "Traceback" not in result.text
    assert "pydantic" not in result.text
    assert fields(await world.ok("list_sessions", state="all"))["sessions"] == []
    assert world.asked == 0


@pytest.mark.anyio
async def test_an_unknown_tool_is_an_error_with_a_suggestion(world: World) -> None:
    result = await world.call("send_trun", {})
    assert result.is_error
    assert "Did you mean send_turn?" in result.text
    assert "There are create_session" in (await world.call("x\x1b\ud800" * 100, {})).text


@pytest.mark.anyio
async def test_no_arguments_at_all_are_an_empty_object(world: World) -> None:
    assert not (await world.call("list_sessions", None)).is_error
