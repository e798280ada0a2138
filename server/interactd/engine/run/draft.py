"""What a model call has produced so far: in memory until the call's outcome is journalled.

The steps of one call are written together with its outcome. A call that dies with the daemon leaves nothing behind, so
making it again doubles nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from interactd.engine.events import Channel, head_of
from interactd.errors import StreamMalformed
from interactd.models.port import Finished, ModelEvent, StepDelta, StepFinished, StepStarted
from interactd.nouns import Json, Step, text_content

_DELTA_OF = {"thought": "thought_summary", "function_call": "arguments"}
_TYPE_OF = {"thought_summary": "thought", "arguments": "function_call", "text": "model_output"}


_REPEATED = 8_000
"""Characters that say one thing again and again, after which a model is not listened to any more."""
_LOOK_EVERY = 2_000
_UNIT = 1_000
"""Of what length a thing is that is said again; a shorter one is, too."""


def repeats(tail: str) -> bool:
    """Whether this text, if it is long enough to tell, is one piece of it over and over, words and not a line drawn."""
    if len(tail) < _REPEATED:
        return False
    end = tail[-_UNIT:]
    at = tail.rfind(end, 0, len(tail) - 1)
    period = len(tail) - _UNIT - at
    return at >= 0 and period <= _UNIT and tail[period:] == tail[:-period] and any(map(str.isalpha, tail[:period]))


@dataclass(slots=True)
class _Open:
    type: str
    head: Json
    texts: list[str] = field(default_factory=list[str])


class Draft:
    """Collects one call's events and tells the channel of them.

    `first` is the index of the call's first step among the interaction's generated steps. A `watched` one gives up on
    a model that says the same over and over; where nobody has tools, that may be what was asked for.
    """

    def __init__(self, channel: Channel, first: int, max_bytes: int, *, watched: bool = False) -> None:
        self.finished: Finished | None = None
        self.size = 0
        self.repeating = False
        """Whether it says the same over and over."""
        self._look_at = _REPEATED if watched else math.inf
        self._channel = channel
        self._first = first
        self._max_bytes = max_bytes
        self._open: dict[int, _Open] = {}
        self._done: dict[int, Step] = {}

    @property
    def overflowed(self) -> bool:
        """Whether there is more than one answer may hold, or no sense in more of it."""
        return self.size > self._max_bytes or self.repeating

    @property
    def produced(self) -> bool:
        """Whether the call gave anything at all."""
        return bool(self._open or self._done)

    def feed(self, event: ModelEvent) -> None:
        """Take one event of the model's stream.

        Raises:
            StreamMalformed: something comes after the end, or for a step that is finished.
        """
        if self.finished is not None:
            raise StreamMalformed("The model sent more after it had said that it was done.")
        if isinstance(event, Finished):
            self.finished = event
            return
        if event.index in self._done:
            raise StreamMalformed(f"The model went on with step {event.index} after finishing it.")
        if isinstance(event, StepStarted):
            self._start(event.index, event.type, event.head)
        elif isinstance(event, StepDelta):
            step = self._open.get(event.index) or self._start(event.index, _TYPE_OF[event.kind], {})
            step.texts.append(event.text)
            self.size += len(event.text)
            if event.kind != "arguments" and self.size >= self._look_at:
                self._look_at = self.size + _LOOK_EVERY
                self.repeating = repeats("".join(step.texts[-_REPEATED:])[-_REPEATED:])
            self._channel.delta(self._first + event.index, event.kind, event.text)
        else:
            self._finish(event)

    def steps(self) -> list[Step]:
        """The finished steps, in order."""
        return [self._done[index] for index in sorted(self._done)]

    def partial(self) -> list[Step]:
        """All steps, with what there is of the unfinished ones; half a function call is none."""
        steps = dict(self._done)
        for index, step in self._open.items():
            text = "".join(step.texts)
            if step.type == "model_output" and text:
                steps[index] = Step("model_output", {"content": [text_content(text)]})
            elif step.type == "thought" and text:
                steps[index] = Step("thought", {"summary": [text_content(text)]})
        return [steps[index] for index in sorted(steps)]

    def text(self) -> str:
        """The answer's text so far."""
        parts: dict[int, str] = {n: s.text for n, s in self._done.items() if s.type == "model_output"}
        parts |= {n: "".join(s.texts) for n, s in self._open.items() if s.type == "model_output"}
        return "".join(parts[index] for index in sorted(parts))

    def _start(self, index: int, type_: str, head: Json) -> _Open:
        if index in self._open:
            raise StreamMalformed(f"The model started step {index} twice.")
        self._open[index] = step = _Open(type_, head)
        self._channel.start(self._first + index, type_, head)
        return step

    def _finish(self, event: StepFinished) -> None:
        index, step = event.index, event.step
        begun = self._open.pop(index, None)
        if begun is None:
            self._channel.start(self._first + index, step.type, head_of(step))
        if step.text and (begun is None or not begun.texts):
            # A provider that does not stream: the text still belongs in a delta, where every client looks for it.
            self.size += len(step.text)
            self._channel.delta(self._first + index, _DELTA_OF.get(step.type, "text"), step.text)
        self._done[index] = step
