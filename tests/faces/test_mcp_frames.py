"""From bytes to messages: what is taken, and that everything else is refused under the id it belongs to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCRequest, JSONRPCResponse

from interactd.faces.mcp.stream.frames import MAX_BATCH, encode, overlong, parse


def refused(data: bytes) -> tuple[Any, int, str]:
    """The one refusal of that input."""
    frame = parse(data)
    assert not frame.messages
    (error,) = frame.refusals
    return error.id, error.error.code, error.error.message


@pytest.mark.parametrize("data", [b"", b"   ", b"\r", b"\xef\xbb\xbf"])
def test_blank_lines_are_nothing(data: bytes) -> None:
    frame = parse(data)
    assert (frame.messages, frame.refusals) == ([], [])


@pytest.mark.parametrize("data", [b"%s\r", b"\xef\xbb\xbf %s", b"  %s  "])
def test_carriage_returns_and_a_byte_order_mark_do_not_matter(data: bytes) -> None:
    (message,) = parse(data % b'{"jsonrpc":"2.0","id":7,"method":"ping"}').messages
    assert isinstance(message, JSONRPCRequest)
    assert message.id == 7


@pytest.mark.parametrize(
    ("data", "number", "code", "words"),
    [
        (b"hello", None, -32700, "Parse error"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x"', None, -32700, "Parse error"),
        (b"\xff\xfe{}", None, -32700, "UTF-8"),
        (b"[" * 100_000, None, -32700, "deep"),
        (b"3", None, -32600, "JSON object"),
        (b"[]", None, -32600, "batch"),
        (b'{"id":4,"method":"ping"}', 4, -32600, '"jsonrpc": "2.0"'),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600, "null"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, -32600, "a number"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, -32600, "a boolean"),
        (b'{"jsonrpc":"2.0","id":"a","method":5}', "a", -32600, "method must be a string"),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","params":[1]}', "a", -32602, "params must be an object"),
        (b'{"jsonrpc":"2.0","id":1}', None, -32600, "a method, a result or an error"),
        (b'{"jsonrpc":"2.0","id":1,"result":5}', None, -32600, "not a JSON-RPC message"),
        (
            b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"arguments":{"list":["\\ud83d"]}}}',
            9,
            -32602,
            "params.arguments.list[0]",
        ),
        (b'{"jsonrpc":"2.0","id":9,"method":"x","params":' + b'{"a":' * 600 + b"1" + b"}" * 601, 9, -32600, "deep"),
    ],
)
def test_what_is_no_message_is_refused_under_its_id(data: bytes, number: Any, code: int, words: str) -> None:
    found = refused(data)
    assert found[:2] == (number, code)
    assert words in found[2]


def test_a_whole_surrogate_pair_is_a_character() -> None:
    (message,) = parse(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"t":"\\ud83d\\ude00"}}').messages
    assert isinstance(message, JSONRPCRequest)
    assert message.params == {"t": "\U0001f600"}


def test_a_batch_keeps_what_is_sound_and_refuses_the_rest() -> None:
    items: list[Any] = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        "x",
    ]
    frame = parse(json.dumps(items).encode())
    assert frame.batch
    assert len(frame.messages) == 2
    assert [error.id for error in frame.refusals] == [1, 2, None]


def test_a_batch_has_an_upper_bound() -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    frame = parse(json.dumps([ping] * (MAX_BATCH + 1)).encode())
    assert not frame.messages
    assert str(MAX_BATCH) in frame.refusals[0].error.message


@pytest.mark.parametrize(
    ("head", "number"),
    [
        (b'{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"a":"', 12),
        (b'{"jsonrpc":"2.0","id":"abc","method":"tools/call","params":{"a":"', "abc"),
        (b'{"jsonrpc":"2.0","method":"tools/call","params":{"id":5,"a":"', None),
        (b"xxxxxxxxx", None),
    ],
)
def test_a_message_that_is_too_long_is_refused_under_the_id_it_began_with(head: bytes, number: Any) -> None:
    (error,) = overlong(head).refusals
    assert error.id == number
    assert "MiB" in error.error.message


def test_half_a_character_costs_a_character_and_not_the_answer() -> None:
    line = encode(JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": "a\ud83db", "n": 1}))
    assert json.loads(line)["result"] == {"text": "a\ufffdb", "n": 1}


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    frame = parse(data)
    assert frame.messages or frame.refusals or not data.removeprefix(b"\xef\xbb\xbf").strip()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON, st.sampled_from(["id", "method", "params", "jsonrpc", "result"]))
def test_no_json_raises_and_every_request_is_taken_or_refused(value: Any, where: str) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping", where: value}
    frame = parse(json.dumps(message).encode())
    assert len(frame.messages) + len(frame.refusals) == 1
