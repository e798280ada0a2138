"""An agent's calls in the journal: which are the engine's own to answer, their step types, and the way back to what
models know (function calls and results). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from interactd.builtins.port import Outcome
from interactd.ids import new_ulid
from interactd.nouns import Json, Step

MARK: Final = "interactd_function"
"""In a step's state: the built-in function that a call or result belongs to."""
QUESTION: Final = "interactd_question"
"""In a step's state: the call that a question of the engine's is about."""
APPROVE: Final = "approve_call"
ASK_PREFIX: Final = "ask_"
"""Of the ids of questions; whether one is a question its state says."""
_CALL_TYPES: Final = {"code_execution": "code_execution_call", "url_fetch": "url_context_call"}
_RESULT_TYPES: Final = {"code_execution": "code_execution_result", "url_fetch": "url_context_result"}
_TOLD: Final = ("name", "arguments", "kind", "question", "deadline", "default")
_MODEL_MADE: Final = frozenset({"thought", "model_output", "opaque"})


def own_call(call: Step, arguments: Json) -> Step:
    """Return a function_call of the model's as the built-in call it is, with its arguments as they were read."""
    name = str(call.body["name"])
    body: Json = {"id": call.body["id"], "name": name, "arguments": arguments}
    if name == "code_execution":
        body = {"id": call.body["id"], "arguments": arguments}
    elif name == "url_fetch":
        body = {"id": call.body["id"], "arguments": {"urls": [arguments["url"]]}}
    state = {**(call.state or {"provider": "interactd"}), MARK: name}
    return Step(_CALL_TYPES.get(name, "function_call"), body, state, call.seq, call.created_at)


def own_result(call: Step, outcome: Outcome) -> Step:
    """Return the step that records what a built-in call came to."""
    name = function_of(call) or ""
    body: Json = {"call_id": call.body["id"], "result": outcome.result}
    if name == "url_fetch":
        held = "text" if isinstance(outcome.result, str) else "content"
        page: Json = {"url": call.body["arguments"]["urls"][0], "status": "error" if outcome.is_error else "success"}
        body["result"] = [{**page, held: outcome.result}]
    elif name != "code_execution":
        body = {"call_id": call.body["id"], "name": name, "result": outcome.result}
    if outcome.is_error:
        body["is_error"] = True
    return Step(_RESULT_TYPES.get(name, "function_result"), body, {"provider": "interactd", MARK: name})


def function_of(step: Step) -> str | None:
    """The built-in function of a call or result of ours; `None` for any other step."""
    return None if step.state is None else step.state.get(MARK)


def arguments_of(call: Step) -> Json:
    """The arguments of a built-in call, as its tool takes them."""
    arguments = cast("Json", call.body.get("arguments") or {})
    return {"url": arguments["urls"][0]} if call.type == "url_context_call" else arguments


def is_result(step: Step) -> bool:
    return step.type.endswith("_result") and "call_id" in step.body


def open_calls(steps: Sequence[Step]) -> list[Step]:
    """The built-in calls that have no result, in order."""
    answered = {step.body["call_id"] for step in steps if is_result(step)}
    return [s for s in steps if not is_result(s) and function_of(s) and s.body["id"] not in answered]


def question(
    call: Step,
    kind: Literal["approval", "replay"],
    text: str,
    *,
    due: float | None = None,
    default: Literal["allow", "deny"] = "deny",
) -> Step:
    """Return a call to the caller that asks whether `call` may be made.

    Args:
        call: a built-in one.
        kind: why it is asked.
        text: the question, for the user.
        due: until when it can be answered, in seconds since the epoch; `None` for ever.
        default: what holds from then on.
    """
    arguments: Json = {
        "kind": kind,
        "question": text,
        "call_id": call.body["id"],
        "name": function_of(call),
        "arguments": arguments_of(call),
    }
    state: Json = {"provider": "interactd", QUESTION: call.body["id"]}
    if due is not None:
        arguments |= {"deadline": when(due), "default": default}
        state |= {"due": due, "default": default}
    return Step("function_call", {"id": f"{ASK_PREFIX}{new_ulid()}", "name": APPROVE, "arguments": arguments}, state)


def when(at: float) -> str:
    """A time as answers write it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def is_question(step: Step) -> bool:
    """Whether a step asks the caller about another call."""
    return bool((step.state or {}).get(QUESTION))


def questions(steps: Iterable[Step]) -> dict[str, Step]:
    """The questions that were asked, by their id."""
    return {str(step.body["id"]): step for step in steps if is_question(step)}


def due_of(calls: Iterable[Step]) -> float | None:
    """When the first of these questions is answered by default; `None` when none ever is."""
    times = [float(step.state["due"]) for step in calls if step.state and "due" in step.state]
    return min(times, default=None)


def waiting_for(calls: Iterable[Step]) -> list[Json]:
    """What a caller is told of the calls it has to answer: its functions as they are, questions as `Result` says."""
    told: list[Json] = []
    for call in calls:
        if (call.state or {}).get(QUESTION):
            asked = call.body["arguments"]
            shown = {name: asked[name] for name in _TOLD if name in asked}
            told.append({"id": call.body["id"], **shown})
        else:
            told.append(call.body)
    return told


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller said to a question. `scope`: what it holds for, the call alone, the run or the session."""

    allow: bool
    reason: str = ""
    scope: str = "call"
    by_default: bool = False
    """Nobody said it: the deadline passed."""


def answer_of(steps: Sequence[Step], call_id: str) -> Answer | None:
    """What the caller said to the last question about a call; `None` if none was asked or it is still open."""
    asked = [s.body["id"] for s in steps if (s.state or {}).get(QUESTION) == call_id]
    given = next((s for s in steps if is_result(s) and asked and s.body["call_id"] == asked[-1]), None)
    return None if given is None else answer_in(given)


def answer_in(given: Step) -> Answer:
    """The answer that a result holds."""
    said: Any = given.body.get("result")
    reason, scope, by_default = "", "call", False
    if isinstance(said, list):
        parts = cast("list[Any]", said)
        said = cast("Json", parts[0]).get("text") if len(parts) == 1 and isinstance(parts[0], dict) else None
    if isinstance(said, dict):
        fields = cast("Json", said)
        reason = str(fields.get("reason") or "")[:2_000]
        scope, by_default = str(fields.get("scope", "call")), fields.get("by") == "default"
        said = next((fields[n] for n in ("decision", "approved", "allow", "answer", "result") if n in fields), None)
    if isinstance(said, str):
        # Only a clear yes is one.
        word = said.strip().strip("\"'.!").lower()
        said = word in ("allow", "allowed", "yes", "y", "true", "ok", "okay", "approve", "approved", "again", "run")
    return Answer(said is True and not given.body.get("is_error"), reason, scope, by_default)


def rounds(steps: Iterable[Step]) -> int:
    """How many answers of the model are in these steps."""
    count, before = 0, False
    for step in steps:
        made = step.type in _MODEL_MADE or (step.type.endswith("_call") and not (step.state or {}).get(QUESTION))
        count += made and not before
        before = made
    return count


def for_model(steps: Sequence[Step]) -> list[Step]:
    """Return the steps as a model is shown them: built-in calls as the functions it called, and no questions to the
    caller."""
    if not any(step.state and (MARK in step.state or QUESTION in step.state) for step in steps):
        return list(steps)
    asked = {step.body["id"] for step in steps if (step.state or {}).get(QUESTION)}
    out: list[Step] = []
    for step in steps:
        if step.body.get("id") in asked or step.body.get("call_id") in asked:
            continue
        name = function_of(step)
        out.append(step if name is None else _as_function(step, name))
    return out


def _as_function(step: Step, name: str) -> Step:
    if step.type in ("function_call", "function_result"):
        return step
    if step.type.endswith("_call"):
        body: Json = {"id": step.body["id"], "name": name, "arguments": arguments_of(step)}
        return Step("function_call", body, step.state, step.seq, step.created_at)
    result: Any = step.body["result"]
    if step.type == "url_context_result":
        page: Json = result[0]
        result = page.get("text") if "text" in page else page.get("content", "")
    body = {"call_id": step.body["call_id"], "name": name, "result": result}
    if step.body.get("is_error"):
        body["is_error"] = True
    return Step("function_result", body, step.state, step.seq, step.created_at)
