"""Reads a constrained answer as it streams: an answer's text goes on at once, a call becomes a function_call step."""

from __future__ import annotations

import json

from interactd.errors import StreamMalformed
from interactd.ids import new_ulid
from interactd.models.embedded.calls.agent import Form
from interactd.models.embedded.calls.protocol import ANSWER
from interactd.models.port import Finished, ModelEvent, StepDelta, StepFinished, StepStarted
from interactd.nouns import Step, text_content


class CallReader:
    """Turns the events of one plain text answer into those of an answer or a call."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._text = ""
        self._mode = ""
        self._called = False
        self._broken = False

    def feed(self, event: ModelEvent) -> list[ModelEvent]:
        """Take one event of the model's text; return what it means.

        Raises:
            StreamMalformed: the model ended what is neither an answer nor a whole call.
        """
        match event:
            case StepStarted(type="model_output"):
                return []
            case StepDelta(kind="text"):
                return self._more(event)
            case StepFinished() if event.step.type == "model_output":
                return self._end(event)
            case Finished():
                return [self._finish(event)]
            case _:
                return [event]

    def _more(self, event: StepDelta) -> list[ModelEvent]:
        if self._mode == "answer":
            return [event]
        self._text += event.text
        beginnings = (ANSWER, *self._form.begins)
        if self._mode == "call" or any(each.startswith(self._text) for each in beginnings):
            return []
        if self._text.startswith(self._form.begins):
            self._mode = "call"
            return []
        # Also a server that ignores grammars comes here: what it says is an answer.
        self._mode = "answer"
        text = self._text.removeprefix(ANSWER)
        started = StepStarted(event.index, "model_output")
        return [started, StepDelta(event.index, "text", text)] if text else [started]

    def _end(self, event: StepFinished) -> list[ModelEvent]:
        index, step = event.index, event.step
        if self._mode == "answer":
            text = step.text.removeprefix(ANSWER)
            return [StepFinished(index, Step(step.type, {"content": [text_content(text)]}, step.state))]
        found = self._form.parse(self._text) if self._mode == "call" or self._text in self._form.begins else None
        if found is None:
            self._broken = True
            return []
        self._called = True
        name, arguments = found
        head = {"id": f"call_{new_ulid()}", "name": name}
        return [
            StepStarted(index, "function_call", head),
            StepDelta(index, "arguments", json.dumps(arguments, ensure_ascii=False)),
            StepFinished(index, Step("function_call", {**head, "arguments": arguments}, step.state)),
        ]

    def _finish(self, event: Finished) -> Finished:
        if self._called:
            event.reason = "tool_calls"
        elif self._broken and event.reason == "stop":
            raise StreamMalformed(
                f"The embedded model wrote neither an answer nor a whole call: {self._text[:120]!r}",
                repair="Send the turn again, or use a larger model: small ones are poor at calling tools.",
            )
        return event
