"""What every parser shares: steps under construction, their order, and the way parsing fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from interactd.errors import StreamMalformed, StreamTruncated
from interactd.models.codecs.faults import redact
from interactd.models.codecs.shapes import Misfit, has_surrogates, loads, mend, mend_all
from interactd.models.port import (
    Finished,
    FinishReason,
    ModelEvent,
    ModelRequest,
    StepDelta,
    StepFinished,
    StepStarted,
)
from interactd.nouns import Json, Step, Usage

DeltaKind = Literal["text", "thought_summary", "arguments"]


@dataclass(slots=True)
class OpenStep:
    """A step that has begun. `text` is all its deltas; `keep` is the parser's own notes about it."""

    index: int
    type: str
    pieces: list[str] = field(default_factory=list[str])
    keep: Json = field(default_factory=dict[str, Any])
    step: Step | None = None
    half: str = ""

    @property
    def text(self) -> str:
        return mend("".join(self.pieces))


class Emitter:
    """Collects events. Steps are finished in the order in which they began, whatever order their parts came in,
    because the journal keeps them in that order."""

    def __init__(self) -> None:
        self.started = 0
        self._events: list[ModelEvent] = []
        self._open: list[OpenStep] = []

    def start(self, type: str, head: Json | None = None) -> OpenStep:
        """Begin a step."""
        opened = OpenStep(self.started, type)
        self.started += 1
        self._open.append(opened)
        self._events.append(StepStarted(opened.index, type, head or {}))
        return opened

    def delta(self, opened: OpenStep, kind: DeltaKind, text: str) -> None:
        """Append to a step; empty text is nothing."""
        if not text:
            return
        opened.pieces.append(text)
        if not text.isascii() or opened.half:
            # Half a surrogate pair waits for the other half: neither can be written alone.
            text, opened.half = opened.half + text, ""
            if "\ud800" <= text[-1] <= "\udbff":
                text, opened.half = text[:-1], text[-1]
            text = mend(text)
        if text:
            self._events.append(StepDelta(opened.index, kind, text))

    def finish(self, opened: OpenStep, step: Step) -> None:
        """The step is whole."""
        opened.step = step
        while self._open and (done := self._open[0].step) is not None:
            self._events.append(StepFinished(self._open.pop(0).index, done))

    def whole(self, step: Step, head: Json | None = None) -> None:
        """Begin and finish a step that came in one piece."""
        self.finish(self.start(step.type, head), step)

    def add(self, event: Finished) -> None:
        self._events.append(event)

    def take(self) -> list[ModelEvent]:
        """Return the events collected since the last call."""
        events, self._events = self._events, []
        return events


class StreamParser:
    """Base of the four parsers: JSON and shape errors in one place, and the end of the stream.

    Subclasses read one event in `read`, a whole body in `read_body`, and close what is open in `close`, which
    returns False when the provider never said that it was done.
    """

    def __init__(self, provider: str, request: ModelRequest) -> None:
        self.provider = provider
        self.request = request
        self.out = Emitter()
        self.finished = False
        self.response_id: str | None = None
        self.model: str | None = None
        self._events = 0
        self._mend = False

    def read(self, event: str | None, data: Json) -> None:
        raise AssertionError("a parser of its own wire")

    def read_body(self, body: Json) -> None:
        raise AssertionError("a parser of its own wire")

    def close(self) -> bool:
        return False

    def feed(self, event: str | None, data: str) -> list[ModelEvent]:
        data = data.strip()
        if not data or self.finished:
            return []
        self._events += 1
        if data == "[DONE]":
            return self._guard(self._done, data)
        if has_surrogates(data):
            self._mend = True
        return self._guard(lambda: self.read(event, loads(data)), data)

    def feed_body(self, body: Json) -> list[ModelEvent]:
        self._mend = True
        return self._guard(lambda: self.read_body(body), str(body))

    def end(self) -> list[ModelEvent]:
        if self.finished:
            return []
        return self._guard(self._end, "")

    def state(self, **own: Any) -> Json:
        """Opaque provider state for a step."""
        return {"provider": self.provider, "model": self.request.model, **own}

    def finish(self, reason: FinishReason, raw: str | None, usage: Usage | None, *, detail: str | None = None) -> None:
        """The provider said that it is done."""
        self.finished = True
        self.out.add(Finished(reason, raw, usage, self.response_id, self.model, detail))

    def _done(self) -> None:
        self.close()

    def _end(self) -> None:
        if not self.close():
            raise StreamTruncated(
                f"{self.provider} closed the stream for {self.request.model} before saying that it was done "
                f"(after {self._events} events and {self.out.started} steps).",
                repair="What came so far is not complete. Send the turn again; if it happens again, look at the "
                "network or proxy between here and the provider.",
                provider=self.provider,
                model=self.request.model,
                events=self._events,
                steps=self.out.started,
            )

    def _guard(self, read: Callable[[], None], data: str) -> list[ModelEvent]:
        try:
            read()
            events = self.out.take()
            return [_mended(event) for event in events] if self._mend else events
        except (Misfit, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            excerpt = redact(data if len(data) <= 200 else data[:200] + "...")
            raise StreamMalformed(
                f"{self.provider} sent something that is not its wire format ({error}): {mend(excerpt)}",
                repair="Send the turn again. If it happens again, check that the provider's base URL and kind belong "
                "together (a proxy may be answering in its place).",
                provider=self.provider,
                model=self.request.model,
                events=self._events,
            ) from error


def _mended(event: ModelEvent) -> ModelEvent:
    if isinstance(event, StepFinished):
        step = event.step
        step.body, step.state = mend_all(step.body), mend_all(step.state)
    elif isinstance(event, StepStarted):
        event.head = mend_all(event.head)
    elif isinstance(event, Finished):
        event.detail = mend(event.detail) if event.detail else event.detail
    return event
