from __future__ import annotations

import pytest

from interactd.engine.events import Channel
from interactd.engine.run.draft import Draft
from interactd.errors import StreamMalformed
from interactd.models.port import Finished, StepDelta, StepFinished, StepStarted
from interactd.nouns import Step, text_content


def fresh(max_bytes: int = 1_000) -> Draft:
    return Draft(Channel("int_x"), 0, max_bytes)


def done(text: str) -> Step:
    return Step("model_output", {"content": [text_content(text)]})


def test_what_is_unfinished_counts_as_far_as_it_came() -> None:
    draft = fresh()
    draft.feed(StepStarted(0, "thought"))
    draft.feed(StepDelta(0, "thought_summary", "hm"))
    draft.feed(StepFinished(0, Step("thought", {"summary": [text_content("hm.")]}, {"provider": "p"})))
    draft.feed(StepStarted(1, "model_output"))
    draft.feed(StepDelta(1, "text", "Hel"))
    draft.feed(StepDelta(1, "text", "lo"))
    draft.feed(StepStarted(2, "function_call", {"id": "c", "name": "f"}))
    draft.feed(StepDelta(2, "arguments", '{"a'))
    assert draft.text() == "Hello"
    assert [(step.type, step.text) for step in draft.partial()] == [("thought", "hm."), ("model_output", "Hello")]
    assert draft.partial()[0].state == {"provider": "p"}
    assert [step.type for step in draft.steps()] == ["thought"]


def test_steps_stand_in_the_order_of_their_index() -> None:
    draft = fresh()
    draft.feed(StepFinished(1, done("b")))
    draft.feed(StepFinished(0, done("a")))
    assert [step.text for step in draft.partial()] == ["a", "b"]


def test_nothing_may_follow_the_end() -> None:
    draft = fresh()
    draft.feed(Finished("stop", "stop", None))
    with pytest.raises(StreamMalformed):
        draft.feed(StepDelta(0, "text", "more"))


def test_a_finished_step_does_not_go_on() -> None:
    draft = fresh()
    draft.feed(StepFinished(0, done("a")))
    for event in (StepDelta(0, "text", "b"), StepFinished(0, done("b")), StepStarted(0, "model_output")):
        with pytest.raises(StreamMalformed):
            draft.feed(event)


def test_a_runaway_answer_is_noticed() -> None:
    draft = fresh(10)
    draft.feed(StepDelta(0, "text", "x" * 10))
    assert not draft.overflowed
    draft.feed(StepDelta(0, "text", "x"))
    assert draft.overflowed
