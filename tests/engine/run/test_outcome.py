from __future__ import annotations

from typing import Any

import pytest

from interactd.engine.run.outcome import judge, unanswered
from interactd.models.port import Finished, FinishReason
from interactd.nouns import Step, text_content


def output(text: str = "hi") -> Step:
    return Step("model_output", {"content": [text_content(text)]})


def thought() -> Step:
    return Step("thought", {"summary": [text_content("hm")]})


def call(name: str = "add", arguments: Any = None, call_id: str = "c1") -> Step:
    return Step("function_call", {"id": call_id, "name": name, "arguments": {} if arguments is None else arguments})


def verdict(
    *steps: Step, reason: FinishReason = "stop", raw: str | None = None, detail: str | None = None, **more: Any
):
    options: dict[str, Any] = {"tools": ["add"], "must_call": False, **more}
    return judge(list(steps), Finished(reason, raw or reason, None, detail=detail), **options)


def test_stop_with_an_answer_is_completed() -> None:
    made = verdict(thought(), output())
    assert (made.status, made.error, made.finish_reason) == ("completed", None, "stop")


def test_length_is_incomplete_and_says_so() -> None:
    made = verdict(output(), reason="length")
    assert made.status == "incomplete"
    assert made.error is not None
    assert made.error["code"] == "max_output_tokens"


@pytest.mark.parametrize("reason", ["content_filter", "refusal"])
def test_a_block_is_incomplete_with_output_and_failed_without(reason: FinishReason) -> None:
    assert verdict(output(), reason=reason).status == "incomplete"
    made = verdict(thought(), reason=reason, detail="We cannot help with that.")
    assert made.status == "failed"
    assert made.error is not None
    assert made.error["code"] == "content_blocked"
    assert "We cannot help with that" in made.error["message"]


def test_an_unknown_reason_is_never_completed() -> None:
    made = verdict(output(), reason="unknown", raw="MOON_PHASE")
    assert made.status == "incomplete"
    assert made.error is not None
    assert made.error["code"] == "unknown_finish_reason"
    assert "MOON_PHASE" in made.error["message"]
    assert made.finish_reason == "MOON_PHASE"


@pytest.mark.parametrize("steps", [[], [thought()], [output("")], [thought(), output("")]])
def test_an_empty_answer_is_not_completed(steps: list[Step]) -> None:
    made = verdict(*steps)
    assert made.status == "incomplete"
    assert made.error is not None
    assert made.error["code"] == "empty_answer"


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_calls_ask_for_action_whatever_the_provider_calls_it(reason: FinishReason) -> None:
    made = verdict(output(), call(), call(call_id="c2"), reason=reason)
    assert made.status == "requires_action"
    assert [step.body["id"] for step in unanswered(made.steps)] == ["c1", "c2"]


def test_tool_calls_without_a_call_is_not_good_news() -> None:
    for made in (verdict(output(), reason="tool_calls"), verdict(output(), must_call=True)):
        assert made.status == "incomplete"
        assert made.error is not None
        assert made.error["code"] == "missing_tool_call"


def test_a_call_of_an_undeclared_function_is_answered_with_an_error() -> None:
    made = verdict(call("sub"))
    assert made.status is None
    assert made.bad_calls == ["sub"]
    result = made.steps[-1]
    assert result.type == "function_result"
    assert result.body["is_error"] is True
    assert "add" in result.body["result"]


def test_arguments_that_the_codec_could_not_read_are_answered_with_an_error() -> None:
    broken = call()
    broken.body["raw_arguments"] = '{"a": '
    assert verdict(broken).status is None


@pytest.mark.parametrize("arguments", ['{"a": ', "", [1], 3])
def test_arguments_that_are_no_object_are_answered_with_an_error(arguments: Any) -> None:
    assert verdict(call(arguments=arguments)).status is None


def test_one_good_call_among_bad_ones_waits_for_the_good_one_only() -> None:
    made = verdict(call("sub", call_id="bad"), call(call_id="good"))
    assert made.status == "requires_action"
    assert [step.body["id"] for step in unanswered(made.steps)] == ["good"]


def test_ids_that_cannot_be_answered_are_replaced() -> None:
    made = verdict(call(call_id=""), call(call_id="c1"), call(call_id="c1"), call(call_id="old"), call_ids=["old"])
    ids = [step.body["id"] for step in made.steps]
    assert len(set(ids)) == 4
    assert "" not in ids
    assert "old" not in ids
    assert ids[1] == "c1"
