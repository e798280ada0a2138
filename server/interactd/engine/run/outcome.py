"""What a finished model call means for its interaction. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from interactd.engine.agents.steps import function_of
from interactd.ids import new_ulid
from interactd.models.port import Finished
from interactd.nouns import Json, Status, Step

_AGAIN = "Send the turn again, or change it or the model."


@dataclass(slots=True)
class Verdict:
    """What to write. `status=None` means that the model must be called again with the steps in its history."""

    status: Status | None
    steps: list[Step]
    error: Json | None = None
    finish_reason: str | None = None
    bad_calls: list[str] = field(default_factory=list[str])


def judge(
    steps: Sequence[Step],
    finished: Finished,
    *,
    tools: Collection[str],
    must_call: bool,
    call_ids: Collection[str] = (),
) -> Verdict:
    """Turn a call's steps and finish reason into a verdict.

    Args:
        steps: the call's finished steps, in order.
        finished: how the provider ended it.
        tools: the names of the functions that were declared.
        must_call: whether the caller demanded a function call (tool_choice any).
        call_ids: ids of function calls that earlier calls of the interaction made.

    Returns:
        The verdict; its steps contain the given ones, and error results for function calls that cannot be answered.
    """
    kept = list(steps)
    reason = finished.reason
    if reason == "length":
        why = _error("max_output_tokens", "The answer reached the model's output limit.", finished)
        why["repair"] = "Ask it to go on, or raise max_output_tokens."
        return Verdict("incomplete", kept, why, reason)
    if reason in ("content_filter", "refusal"):
        what = "refused to answer" if reason == "refusal" else "withheld the answer for safety reasons"
        why = _error("content_blocked", f"The provider {what}{_detail(finished)}.", finished)
        why["repair"] = "Say it differently, or use another model."
        return Verdict("incomplete" if _answered(kept) else "failed", kept, why, reason)
    if reason not in ("stop", "tool_calls"):
        said = f" {finished.raw_reason!r}" if finished.raw_reason else ""
        why = _error("unknown_finish_reason", f"The provider ended with a reason we do not know{said}.", finished)
        why["repair"] = f"Read what came before trusting it. {_AGAIN}"
        return Verdict("incomplete", kept, why, finished.raw_reason or reason)
    calls = [step for step in kept if step.type == "function_call"]
    if calls:
        return _calls(kept, calls, tools, call_ids, reason)
    if reason == "tool_calls" or must_call:
        why = _error("missing_tool_call", "The model was to call a function and called none.", finished)
        why["repair"] = "Send the turn again, or use a model that can call functions."
        return Verdict("incomplete", kept, why, reason)
    if not _answered(kept):
        why = _error("empty_answer", "The model ended without saying anything.", finished)
        why["repair"] = _AGAIN
        return Verdict("incomplete", kept, why, reason)
    return Verdict("completed", kept, None, reason)


def unanswered(steps: Sequence[Step]) -> list[Step]:
    """The function_call steps without a function_result that are the caller's to answer, in order."""
    given = {step.body.get("call_id") for step in steps if step.type == "function_result"}
    return [
        step
        for step in steps
        if step.type == "function_call" and step.body.get("id") not in given and not function_of(step)
    ]


def refused(call: Step, why: str) -> Step:
    """Return an error result that tells the model why its call was not made."""
    body: Json = {"call_id": call.body["id"], "name": call.body.get("name"), "result": why, "is_error": True}
    return Step("function_result", body)


def _calls(
    kept: list[Step], calls: list[Step], tools: Collection[str], call_ids: Collection[str], reason: str
) -> Verdict:
    seen = set(call_ids)
    results: list[Step] = []
    for call in calls:
        if not call.body.get("id") or call.body["id"] in seen:
            # An id that is missing or used before cannot be answered; ours can.
            call.body["id"] = f"call_{new_ulid()}"
        seen.add(call.body["id"])
        name = call.body.get("name")
        if name not in tools:
            known = ", ".join(sorted(tools)) or "none"
            results.append(refused(call, f"There is no function {name!r}. Declared functions: {known}."))
        elif "raw_arguments" in call.body or not isinstance(call.body.get("arguments"), dict):
            # Codecs keep what they could not read as raw_arguments, beside empty arguments.
            results.append(refused(call, f"The arguments of {name} were not a JSON object. Call it again."))
    bad = [str(step.body["name"]) for step in results]
    status: Status | None = "requires_action" if len(results) < len(calls) else None
    return Verdict(status, [*kept, *results], None, reason, bad)


def _answered(steps: Sequence[Step]) -> bool:
    """Whether there is an answer: anything but thoughts and empty text."""
    for step in steps:
        if step.type == "model_output":
            parts: list[Json] = step.body.get("content") or []
            if any(part.get("type") != "text" or part.get("text") for part in parts):
                return True
        elif step.type not in ("thought", "user_input", "function_result"):
            return True
    return False


def _error(code: str, message: str, finished: Finished) -> Json:
    error: Json = {"code": code, "message": message}
    if finished.raw_reason:
        error["finish_reason"] = finished.raw_reason
    return error


def _detail(finished: Finished) -> str:
    return f": {finished.detail.strip().rstrip('.')}" if finished.detail and finished.detail.strip() else ""
