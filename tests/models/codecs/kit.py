"""Feeding hand-made recordings to parsers, without a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interactd.models.codecs import codec
from interactd.models.http.sse import SseReader
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepFinished
from interactd.nouns import GenerationConfig, Step, user_input

Json = dict[str, Any]
RECORDINGS = Path(__file__).parent / "recordings"
KIND = {"chat": "openai-chat", "messages": "anthropic", "responses": "openai-responses", "generate": "gemini"}
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.sse"))


def events_of(text: str) -> list[tuple[str | None, str]]:
    reader = SseReader()
    return [(sent.event, sent.data) for sent in reader.feed(text.encode())]


def recording(name: str) -> list[tuple[str | None, str]]:
    """The events of a hand-made recording."""
    return events_of((RECORDINGS / f"{name}.sse").read_text())


def parse(
    events: list[tuple[str | None, str]], kind: str, *, provider: str = "p", model: str = "m", end: bool = True
) -> list[ModelEvent]:
    """What a parser makes of events."""
    parser = codec(kind, provider).parser(ModelRequest(model=model, steps=[]))
    out: list[ModelEvent] = []
    for event, data in events:
        out += parser.feed(event, data)
    return out + (parser.end() if end else [])


def codec_body(kind: str, body: Json) -> list[ModelEvent]:
    """What a parser makes of a whole body."""
    return codec(kind, "p").parser(ModelRequest(model="m", steps=[])).feed_body(body)


def play(name: str, *, provider: str = "p", model: str = "m") -> tuple[list[Step], Finished]:
    """The steps and the end of a hand-made recording."""
    events = parse(recording(name), KIND[name.partition("-")[0]], provider=provider, model=model)
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [event.step for event in events if isinstance(event, StepFinished)], finished


def body(kind: str, provider: str, model: str, steps: list[Step], **more: Any) -> Json:
    """The request body for a conversation; `config` may be a dictionary."""
    config = GenerationConfig(**more.pop("config", {}))
    request = ModelRequest(model=model, steps=steps, config=config, **more)
    return codec(kind, provider).body(request, stream=True)


def call(id: str, name: str, arguments: Json | None = None, state: Json | None = None) -> Step:
    return Step("function_call", {"id": id, "name": name, "arguments": arguments or {}}, state)


def result(id: str, value: Any, *, is_error: bool | None = None) -> Step:
    fields: Json = {"call_id": id, "result": value}
    return Step("function_result", {**fields, "is_error": is_error} if is_error is not None else fields)


def said(text: str) -> Step:
    return Step("model_output", {"content": [{"type": "text", "text": text}]})


__all__ = [
    "KIND",
    "NAMES",
    "Json",
    "body",
    "call",
    "codec_body",
    "events_of",
    "parse",
    "play",
    "recording",
    "result",
    "said",
    "user_input",
]
