"""A recorded answer, made into steps and sent back: the next request carries it as the recorded one did."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from interactd.models.codecs import codec
from interactd.models.port import ModelRequest, StepFinished
from interactd.nouns import Step, user_input
from models.codecs.kit import Json, events_of
from models.codecs.wire import PROVIDERS, Exchange, exchanges, folder

WIRE = folder()
KEY = {"openai-chat": "messages", "anthropic": "messages", "gemini": "contents", "openai-responses": "input"}


def sent_items(exchange: Exchange, key: str) -> list[Json]:
    value: Any = exchange.request.get(key)
    return cast("list[Json]", value) if isinstance(value, list) else []


def pairs() -> list[Any]:
    """Exchanges whose next request replays their answer as a turn of the model's."""
    out: list[Any] = []
    for path in sorted(WIRE.glob("*/*.yaml")) if WIRE else []:
        found = [made for made in exchanges(path) if made.kind and made.status < 300]
        for first, second in pairwise(found):
            key = KEY[first.kind or ""]
            before, after = sent_items(first, key), sent_items(second, key)
            by_reference = second.request.get("previous_response_id") or second.request.get("conversation")
            if first.kind != second.kind or by_reference or not before:
                continue
            if len(after) > len(before) and after[: len(before)] == before and "compact" not in path.stem:
                out.append(pytest.param(first, second, id=first.name))
    return out


PAIRS = pairs()


def steps_of(exchange: Exchange) -> list[Step]:
    parser = codec(exchange.kind or "", PROVIDERS[exchange.kind or ""]).parser(ModelRequest(exchange.model, []))
    if exchange.body is not None:
        events = parser.feed_body(exchange.body)
    else:
        events = [event for sent in events_of(exchange.text) for event in parser.feed(*sent)] + parser.end()
    return [event.step for event in events if isinstance(event, StepFinished)]


def signature(part: Json) -> bytes | None:
    """Google's SDK writes signatures in the other base64 alphabet: the bytes are what must be the same."""
    raw = part.get("thoughtSignature")
    if raw is None or raw.startswith("c2tpcF90aG91Z2h0"):
        return None
    return base64.b64decode(raw.translate(str.maketrans("-_", "+/")) + "==")


def full(value: Any) -> Any:
    """Without what says nothing: null, and the empty lists and objects an SDK fills in."""
    if isinstance(value, dict):
        value = cast("Json", value)
        return {
            k: full(v) for k, v in value.items() if v not in (None, [], {}) and k not in ("caller", "cache_control")
        }
    return [full(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def plain(kind: str, items: list[Json]) -> list[Any]:
    """What must survive of a model's turn, in order: words, calls, thoughts, signatures, server-side tools."""
    out: list[Any] = []
    for item in items:
        if kind == "anthropic":
            out += [full(block) for block in item["content"]]
        elif kind == "gemini":
            for part in item["parts"]:
                call = part.get("functionCall")
                rest = {k: v for k, v in part.items() if k not in ("functionCall", "thoughtSignature")}
                for name in rest.keys() & {"toolCall", "toolResponse"}:
                    # The recorder's program writes these anew, with its own spelling.
                    rest[name] = rest[name]["id"]
                out.append([signature(part), full(rest), [call["name"], call["args"]] if call else None])
        elif kind == "openai-chat":
            calls: list[Json] = [call["function"] for call in item.get("tool_calls", [])]
            out.append([item.get("content"), [[call["name"], json.loads(call["arguments"])] for call in calls]])
        elif item.get("type") == "function_call":
            out.append([item["call_id"], item["name"], json.loads(item["arguments"])])
        elif item.get("type") == "reasoning":
            out.append([item["id"], item["encrypted_content"], [part["text"] for part in item["summary"]]])
        elif item.get("role") == "assistant":
            content = item["content"]
            said = content if isinstance(content, str) else "".join(part["text"] for part in content)
            out += [said] if said else []
        elif item.get("type") == "mcp_call":
            out.append([item["id"], item["name"], item["arguments"]])
    return out


@pytest.mark.skipif(
    not PAIRS, reason="the recorded traffic (INTERACTD_WIRE, or shared/wire beside the checkout) is not here"
)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_answer_goes_back_as_the_recorded_follow_up_sent_it(first: Exchange, second: Exchange) -> None:
    kind = first.kind or ""
    request = ModelRequest(second.model, [user_input("q"), *steps_of(first), user_input("next")])
    body = codec(kind, PROVIDERS[kind]).body(request, stream=False)
    key = KEY[kind]
    ours = [item for item in body[key][1:] if is_models(item)]
    theirs = [item for item in second.request[key][len(first.request[key]) :] if is_models(item)]
    if kind != "openai-responses":
        # What follows the first turn the recorder's program made up itself.
        theirs = theirs[:1]
    assert plain(kind, ours) == plain(kind, theirs)


def is_models(item: Json) -> bool:
    return item.get("role") in ("assistant", "model") or (
        "role" not in item and item.get("type") not in ("function_call_output", None)
    )


def test_there_are_enough_follow_ups_to_mean_something() -> None:
    if WIRE is None or len(list(Path(WIRE).glob("*/*.yaml"))) < 100:
        pytest.skip("the recorded traffic is not here")
    kinds = {pair.values[0].kind for pair in PAIRS}
    assert len(PAIRS) >= 20
    assert kinds == set(KEY)
