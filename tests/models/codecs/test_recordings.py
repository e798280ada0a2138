"""Real traffic of four providers, replayed over a socket in odd pieces, read as a plain oracle reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from interactd.errors import InteractdError, StreamMalformed
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepDelta, StepFinished, StepStarted
from interactd.nouns import Step, user_input
from models.codecs.oracle import expect
from models.codecs.wire import Exchange, exchanges, folder, read, replaying

WIRE = folder()
REASON = "the recorded traffic (INTERACTD_WIRE, or shared/wire beside the checkout) is not here"
FILES = sorted(WIRE.glob("*/*.yaml")) if WIRE else []
# Recorded answers that are no model's answer at all, by the recorder's own design.
REFUSED = {"openai/invalid_response#0": StreamMalformed}

pytestmark = pytest.mark.skipif(not FILES, reason=REASON)


def applicable(path: Path) -> list[Exchange]:
    return [exchange for exchange in exchanges(path) if exchange.kind is not None]


def steps_of(events: list[ModelEvent]) -> list[Step]:
    return [event.step for event in events if isinstance(event, StepFinished)]


def check_order(events: list[ModelEvent]) -> None:
    """Started, then deltas, then finished; indices without gaps; what the deltas said is in the step."""
    started: list[int] = []
    finished: list[int] = []
    said: dict[int, str] = {}
    for event in events:
        if isinstance(event, StepStarted):
            assert event.index == len(started)
            started.append(event.index)
        elif isinstance(event, StepDelta):
            assert event.index in started
            assert event.index not in finished
            if event.kind == "text":
                said[event.index] = said.get(event.index, "") + event.text
        elif isinstance(event, StepFinished):
            assert event.index == len(finished), "steps finish in the order in which they began"
            finished.append(event.index)
            if event.step.type == "model_output" and event.index in said:
                assert event.step.text == said[event.index]
    assert finished == started
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1


async def compare(exchange: Exchange, payload: bytes, seed: str) -> None:
    assert exchange.kind is not None
    request = ModelRequest(model=exchange.model, steps=[user_input("hello")])
    content_type = exchange.headers.get("content-type", "application/json")
    async with replaying(payload, content_type, seed, exchange.status) as url:
        if exchange.status >= 300:
            with pytest.raises(InteractdError) as refused:
                await read(url, exchange.kind, request, streamed=exchange.streamed)
            told = (exchange.body or {})["error"]["message"]
            assert told[:60] in str(refused.value)
            return
        events = await read(url, exchange.kind, request, streamed=exchange.streamed)
    check_order(events)
    wanted = expect(exchange)
    steps = steps_of(events)
    assert "".join(step.text for step in steps if step.type == "model_output") == wanted.text
    assert "".join(step.text for step in steps if step.type == "thought") == wanted.thought
    calls = [(step.body["name"], step.body["arguments"]) for step in steps if step.type == "function_call"]
    assert calls == wanted.calls
    ids = [step.body["id"] for step in steps if step.type == "function_call"]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == wanted.reason
    if wanted.usage:
        assert finished.usage is not None
        got = {name: getattr(finished.usage, name) for name in wanted.usage}
        assert got == wanted.usage
    else:
        assert finished.usage is None


@pytest.mark.anyio
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_recording_is_read_as_it_says(path: Path) -> None:
    found = applicable(path)
    if not found:
        pytest.skip("holds no model call: token counting, files or other endpoints only")
    for exchange in found:
        if expected := REFUSED.get(exchange.name):
            with pytest.raises(expected):
                await compare(exchange, exchange.payload(), exchange.name)
            continue
        await compare(exchange, exchange.payload(), exchange.name)
        if exchange.streamed:
            other = exchange.text.replace("\r\n", "\n").replace("\n", "\r\n").rstrip()
            await compare(
                exchange, f": hello\r\n\r\n{other}".encode(), exchange.name + " with CRLF and no last line end"
            )


def test_at_least_a_hundred_recordings_hold_a_model_call() -> None:
    assert WIRE is not None
    if len(FILES) < 100:
        pytest.skip(f"only {len(FILES)} recordings here")
    assert sum(bool(applicable(path)) for path in FILES) >= 100
