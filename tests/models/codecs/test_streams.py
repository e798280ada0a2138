"""Streams as no good day shows them: interleaved, without ids, redacted, unknown, broken, cut off."""

from __future__ import annotations

import json
import time

import pytest

from interactd.errors import ProviderUnavailable, RateLimited, StreamMalformed, StreamTruncated
from interactd.models.port import Finished, StepDelta, StepFinished
from interactd.nouns import Usage
from models.codecs.kit import KIND, NAMES, codec_body, events_of, parse, play, recording


def test_parallel_calls_whose_fragments_interleave_come_out_whole_and_in_order() -> None:
    steps, finished = play("chat-parallel-interleaved")
    assert [step.type for step in steps] == ["model_output", "function_call", "function_call"]
    assert steps[0].text == "Looking — für dich."
    assert steps[1].body == {"id": "call_a", "name": "weather", "arguments": {"city": "Paris"}}
    assert steps[2].body == {"id": "call_b", "name": "time", "arguments": {"zone": "UTC"}}
    assert (finished.reason, finished.raw_reason, finished.response_id) == ("tool_calls", "tool_calls", "c1")
    assert finished.usage == Usage(input=11, output=22, total=33)


def test_calls_without_ids_or_indices_are_told_apart_and_get_ids() -> None:
    steps, finished = play("chat-calls-without-ids")
    assert [(step.body["name"], step.body["arguments"]) for step in steps] == [
        ("first", {"a": 1}),
        ("second", {}),
        ("third", {"c": 3}),
        ("fourth", {"d": 4}),
    ]
    ids = [step.body["id"] for step in steps]
    assert len(set(ids)) == 4
    assert ids[2:] == ["same", "other"]
    assert finished.reason == "tool_calls", "the server said stop, but the caller has to act"
    assert finished.usage is None


def test_thoughts_in_tags_at_the_beginning_of_the_text_become_a_thought() -> None:
    steps, _ = play("chat-think-tags")
    assert [(step.type, step.text) for step in steps] == [
        ("thought", "Two and two."),
        ("model_output", "Four, <think>not</think> five."),
    ]


def test_arguments_that_are_no_json_are_kept_as_they_came() -> None:
    steps, finished = play("chat-broken-arguments")
    assert steps[0].body["arguments"] == {}
    assert steps[0].body["raw_arguments"] == '{"path": "a.txt", "text": "unfin'
    assert finished.reason == "length"


def test_an_error_in_the_middle_of_a_stream_is_the_providers_error_without_its_key() -> None:
    with pytest.raises(ProviderUnavailable, match="engine is overloaded") as caught:
        play("chat-error-midway")
    assert "sk-live" not in str(caught.value)
    assert caught.value.fields["status"] == 503


def test_thoughts_redacted_ones_and_empty_arguments_survive() -> None:
    steps, finished = play("messages-redacted", provider="anthropic", model="claude-x")
    assert [step.type for step in steps] == ["thought", "thought", "function_call", "function_call"]
    assert steps[0].text == "Weighing it."
    assert steps[0].state == {
        "provider": "anthropic",
        "model": "claude-x",
        "block": {"type": "thinking", "thinking": "Weighing it.", "signature": "c2lnbmF0dXJl"},
    }
    assert steps[1].body == {"summary": []}
    assert (steps[1].state or {})["block"] == {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="}
    assert steps[2].body["arguments"] == {}
    assert steps[3].body["arguments"] == {"at": "thé"}
    assert finished.usage == Usage(input=16, output=30, thought=20, cached=4, cache_write=2, total=66)


def test_blocks_events_and_reasons_of_the_future_are_kept_and_never_called_complete() -> None:
    steps, finished = play("messages-from-the-future", provider="anthropic")
    assert steps[0].type == "opaque"
    assert steps[0].body == {"kind": "hologram"}
    kept = (steps[0].state or {})["block"]
    assert kept == {"type": "hologram", "seed": 7, "deltas": [{"type": "hologram_delta", "beam": "x"}]}
    assert steps[1].type == "model_output"
    assert [part["text"] for part in steps[1].body["content"]] == ["See this", " — né"]
    assert steps[1].body["content"][1]["annotations"] == [
        {
            "type": "url_citation",
            "start_index": 0,
            "end_index": len(" — né".encode()),
            "url": "https://example.org/a",
            "title": "A",
            "cited_text": "cité",
        }
    ]
    assert (finished.reason, finished.raw_reason) == ("unknown", "daydream")


def test_responses_items_keep_their_order_their_reasoning_and_what_nobody_knows() -> None:
    steps, finished = play("responses-items", provider="openai", model="gpt-5-x")
    types = ["thought", "google_search_call", "google_search_result", "function_call", "function_call", "opaque"]
    assert [step.type for step in steps] == types
    assert [part["text"] for part in steps[0].body["summary"]] == ["First.", "Second."]
    calls = [step.body for step in steps if step.type == "function_call"]
    assert calls == [
        {"id": "call_1", "name": "add", "arguments": {"a": 1}},
        {"id": "call_2", "name": "sub", "arguments": {"b": 2}},
    ]
    assert steps[1].body == {"id": "ws_1", "arguments": {"queries": ["q"]}}
    opaque = next(step for step in steps if step.type == "opaque")
    assert (opaque.state or {})["item"] == {"id": "zz_1", "type": "teleport_call", "to": "Mars"}
    assert finished.reason == "tool_calls"
    assert finished.usage == Usage(input=100, output=20, thought=30, cached=60, cache_write=10, total=150)


def test_gemini_signatures_stay_on_the_part_that_carried_them() -> None:
    steps, finished = play("generate-signed", provider="gemini")
    assert [step.type for step in steps] == [
        "thought",
        "model_output",
        "function_call",
        "function_call",
        "model_output",
        "opaque",
    ]
    assert (steps[0].text, steps[1].text) == ("Let me think.", "I will look.")
    assert (steps[1].state or {})["parts"] == [{"text": "I will look."}, {"text": "", "thoughtSignature": "dGV4dA=="}]
    assert (steps[2].state or {})["part"] == {"thoughtSignature": "Zmlyc3Q="}
    assert steps[4].body["content"] == [{"type": "image", "mime_type": "image/png", "data": "iVBORw0KGgo="}]
    assert steps[5].body == {"kind": "quantumFoam"}
    assert finished.reason == "tool_calls"
    assert finished.usage == Usage(input=5, output=7, thought=9, cached=2, total=21)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("chat-error-midway",)])
def test_a_stream_cut_before_its_end_is_truncated_wherever_it_is_cut(name: str) -> None:
    events = recording(name)
    last = {"chat": "finish_reason", "messages": "message_stop", "responses": ".completed", "generate": "finishReason"}
    kind = name.partition("-")[0]
    end = next(i for i, (_, data) in enumerate(events) if last[kind] in data and '"finish_reason":null' not in data)
    for cut in range(end):
        with pytest.raises(StreamTruncated) as caught:
            parse(events[:cut], KIND[kind])
        assert caught.value.fields["events"] == cut
        assert caught.value.repair


@pytest.mark.parametrize("kind", KIND.values())
@pytest.mark.parametrize(
    "data",
    ["{", "null garbage", '"text"', "[]", "[1]", '{"type": 7}', '{"choices": 1, "candidates": 1, "item": [], "x": {}}'],
)
def test_what_is_not_the_wire_is_malformed(kind: str, data: str) -> None:
    with pytest.raises(StreamMalformed) as caught:
        parse([(None, data)], kind, end=False)
    assert caught.value.repair


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("openai-chat", {"error": {"message": "slow down", "type": "rate_limit_error", "code": None}}),
        (
            "openai-responses",
            {"type": "error", "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "m"}},
        ),
        ("openai-responses", {"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}),
        (
            "openai-responses",
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}},
            },
        ),
        ("anthropic", {"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}),
        ("gemini", {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}),
    ],
)
def test_an_error_event_is_the_error_it_names(kind: str, data: dict[str, object]) -> None:
    with pytest.raises(RateLimited):
        parse([("error" if kind != "gemini" else None, json.dumps(data))], kind)


def test_overloaded_in_the_middle_of_a_message_is_unavailable() -> None:
    text = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    with pytest.raises(ProviderUnavailable):
        parse(recording("messages-redacted")[:4] + events_of(text), "anthropic")


@pytest.mark.parametrize(
    ("kind", "body", "reason", "raw"),
    [
        (
            "openai-chat",
            {"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]},
            "content_filter",
            "content_filter",
        ),
        ("openai-chat", {"choices": [{"message": {"content": "x"}, "finish_reason": "whim"}]}, "unknown", "whim"),
        (
            "openai-chat",
            {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]},
            "refusal",
            "stop",
        ),
        (
            "openai-responses",
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []},
            "length",
            "max_output_tokens",
        ),
        (
            "openai-responses",
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []},
            "content_filter",
            "content_filter",
        ),
        ("openai-responses", {"status": "cancelled", "output": []}, "unknown", "cancelled"),
        (
            "openai-responses",
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}],
            },
            "refusal",
            "completed",
        ),
        (
            "anthropic",
            {"content": [], "stop_reason": "refusal", "stop_details": {"explanation": "No."}},
            "refusal",
            "refusal",
        ),
        ("anthropic", {"content": [], "stop_reason": "pause_turn"}, "length", "pause_turn"),
        (
            "anthropic",
            {"content": [], "stop_reason": "model_context_window_exceeded"},
            "length",
            "model_context_window_exceeded",
        ),
        (
            "gemini",
            {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}},
            "content_filter",
            "SAFETY",
        ),
        (
            "gemini",
            {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "oops"}]},
            "unknown",
            "MALFORMED_FUNCTION_CALL",
        ),
        ("gemini", {"candidates": [{"finishReason": "RECITATION"}]}, "content_filter", "RECITATION"),
    ],
)
def test_only_what_is_known_to_be_an_end_is_one(kind: str, body: dict[str, object], reason: str, raw: str) -> None:
    finished = codec_body(kind, body)[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason) == (reason, raw)
    if reason == "refusal":
        assert finished.detail == "No."
    if raw == "SAFETY":
        assert finished.detail
        assert finished.usage == Usage(input=4, total=4)


def test_an_emoji_cut_in_two_by_a_proxy_is_one_again_and_half_of_one_is_replaced() -> None:
    halves = [r'{"choices":[{"delta":{"content":"a\ud83d"}}]}', r'{"choices":[{"delta":{"content":"\ude00b"}}]}']
    end = r'{"id":"\ud83d","choices":[{"delta":{"content":"\udc00"},"finish_reason":"stop"}]}'
    events = parse([(None, data) for data in [*halves, end]], "openai-chat")
    step = next(event.step for event in events if isinstance(event, StepFinished))
    assert step.text == "a😀b�"
    assert "".join(event.text for event in events if isinstance(event, StepDelta)) == "a😀b�"
    json.dumps(step.body).encode().decode()
    step.text.encode()


def test_done_without_a_finish_reason_is_an_end_but_not_a_known_one() -> None:
    events = parse([(None, '{"choices":[{"delta":{"content":"x"}}]}'), (None, "[DONE]")], "openai-chat")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason, finished.usage) == ("unknown", None, None)


@pytest.mark.parametrize("kind", KIND.values())
def test_a_hundred_chunks_cost_a_few_milliseconds(kind: str) -> None:
    chunks = {
        "openai-chat": '{"id":"x","choices":[{"index":0,"delta":{"content":"some words "},"finish_reason":null}]}',
        "openai-responses": '{"type":"response.output_text.delta","output_index":0,"delta":"some words "}',
        "anthropic": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"some words "}}',
        "gemini": '{"candidates":[{"content":{"parts":[{"text":"some words "}],"role":"model"},"index":0}]}',
    }
    start = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    events: list[tuple[str | None, str]] = [(None, start)] if kind == "anthropic" else []
    events += [(None, chunks[kind])] * 100
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        parse(events, kind, end=False)
        best = min(best, time.process_time() - began)
    assert best < 0.010
