"""Whatever a provider or a proxy sends, only our own errors come out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from interactd.errors import InteractdError
from interactd.models.codecs import KINDS, codec
from interactd.models.port import ModelRequest, StepFinished
from models.codecs.kit import KIND, NAMES, recording

WORDS = """
    type index delta message choices content text role tool_calls function name arguments id finish_reason usage error
    item output_index response output status content_block candidates parts functionCall args thought finishReason
    thoughtSignature usageMetadata promptFeedback blockReason groundingMetadata summary citations input reasoning
    action code prompt_tokens completion_tokens input_tokens groundingSupports segment annotations start_index details
""".split()  # noqa: SIM905
TYPES = """
    message_start content_block_start content_block_delta content_block_stop message_delta message_stop text thinking
    tool_use server_tool_use input_json_delta response.output_item.added response.output_item.done response.completed
    response.output_text.delta function_call message web_search_call mcp_call reasoning error STOP stop
""".split()  # noqa: SIM905
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TYPES)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
EVENTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6).map(json.dumps)


def feed(kind: str, events: list[str]) -> None:
    parser = codec(kind, "p").parser(ModelRequest(model="m", steps=[]))
    try:
        made = [event for data in events for event in parser.feed(None, data)] + parser.end()
    except InteractdError as error:
        json.dumps(error.as_dict()).encode()
        return
    for event in made:
        if isinstance(event, StepFinished):
            json.dumps([event.step.body, event.step.state], ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.lists(st.text(max_size=40) | EVENTS, max_size=5))
def test_garbage_raises_only_errors_of_ours(kind: str, events: list[str]) -> None:
    feed(kind, events)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_a_recording_with_one_thing_changed_raises_only_errors_of_ours(name: str, data: st.DataObject) -> None:
    events = [text for _, text in recording(name)]
    place = data.draw(st.integers(0, len(events) - 1))
    if events[place].startswith("{"):
        changed = json.loads(events[place])
        spot: Any = changed
        while type(spot) in (dict, list) and spot:
            inside: Any = spot
            at = data.draw(st.sampled_from(sorted(inside) if isinstance(spot, dict) else range(len(inside))))
            if not isinstance(inside[at], dict | list) or not inside[at] or data.draw(st.booleans()):
                inside[at] = data.draw(VALUES)
                break
            spot = inside[at]
        events[place] = json.dumps(changed)
    feed(KIND[name.partition("-")[0]], events)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6))
def test_a_whole_body_of_garbage_raises_only_errors_of_ours(kind: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(InteractdError):
        codec(kind, "p").parser(ModelRequest(model="m", steps=[])).feed_body(body)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(300, 599),
    st.text(max_size=60) | EVENTS | VALUES.map(json.dumps) | st.just("[" * 100_000),
    st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "x"]), st.text(max_size=10), max_size=3),
)
def test_any_refusal_becomes_an_error_with_a_repair(kind: str, status: int, body: str, headers: dict[str, str]) -> None:
    made = codec(kind, "p").error(status, headers, body)
    assert isinstance(made, InteractdError)
    assert made.repair
    json.dumps(made.as_dict()).encode()
