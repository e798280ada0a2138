"""What an answer of the model means to an agent's run. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interactd.builtins.arguments import BadArguments
from interactd.engine.agents.spoken import spoken_calls
from interactd.engine.agents.steps import function_of, own_call, rounds
from interactd.engine.agents.toolbox import Toolbox
from interactd.engine.run.outcome import Verdict, judge, refused
from interactd.ids import new_ulid
from interactd.models.port import Finished
from interactd.nouns import Status, Step

_CUT_OFF = (
    "Your answer was cut off at the output limit in the middle of this call: nothing of it was done. Make it shorter; "
    "write a long file in several smaller pieces."
)


def judged(
    answer: Sequence[Step], finished: Finished, own: Sequence[Step], toolbox: Toolbox, *, must_call: bool
) -> Verdict:
    """Return the verdict on an answer; its usable calls of the agent's tools are built-in calls in it.

    Calls that the model wrote as text are among them, after the steps that it made. Calls that cannot be used have
    their error results in it already, with a hint how to make them right. The status is `requires_action` where
    functions of the caller's are called, also beside built-in ones, which run first.
    """
    steps = [*_named(answer, toolbox), *_spoken(answer, finished, toolbox)]
    cut_off = finished.reason == "length" and any(step.type == "function_call" for step in steps)
    if cut_off or len(steps) > len(answer):
        # Of an answer that ends in the middle of a call the whole calls are good.
        finished = replace(finished, reason="tool_calls")
    verdict = judge(
        steps,
        finished,
        tools=toolbox.names,
        must_call=must_call and not rounds(own),
        call_ids=[str(step.body["id"]) for step in own if "id" in step.body],
    )
    if verdict.status not in (None, "requires_action"):
        return verdict
    refusals = {str(step.body["call_id"]): step for step in verdict.steps if step.type == "function_result"}
    kept: list[Step] = []
    for step in verdict.steps:
        if step.type == "function_result":
            continue
        kept.append(_read(step, refusals, verdict, toolbox) if step.type == "function_call" else step)
        if cut_off and "raw_arguments" in step.body:
            refusals[str(step.body["id"])].body["result"] = _CUT_OFF
    theirs = any(
        step.type == "function_call" and not function_of(step) and str(step.body["id"]) not in refusals for step in kept
    )
    status: Status | None = "requires_action" if theirs else None
    return replace(verdict, steps=[*kept, *refusals.values()], status=status)


def _named(answer: Sequence[Step], toolbox: Toolbox) -> list[Step]:
    """The steps, with calls under the exact names of the functions they mean."""
    for step in answer:
        if step.type == "function_call" and (name := toolbox.exact(str(step.body.get("name")))):
            step.body["name"] = name
    return list(answer)


def _spoken(answer: Sequence[Step], finished: Finished, toolbox: Toolbox) -> list[Step]:
    """Calls that a model wrote down as text, if it made none; its text stays what it is."""
    if finished.reason not in ("stop", "tool_calls") or any(step.type == "function_call" for step in answer):
        return []
    said = "".join(step.text for step in answer if step.type == "model_output")
    return [
        Step("function_call", {"id": f"call_{new_ulid()}", "name": name, "arguments": arguments})
        for name, arguments in spoken_calls(said, toolbox.exact)
    ]


def built_in(steps: Sequence[Step]) -> list[Step]:
    """The built-in calls among the steps of a verdict."""
    return [step for step in steps if function_of(step) and "id" in step.body]


def _read(call: Step, refusals: dict[str, Step], verdict: Verdict, toolbox: Toolbox) -> Step:
    call_id, name = str(call.body["id"]), str(call.body.get("name"))
    if refusal := refusals.get(call_id):
        if hint := toolbox.instead_of(name):
            refusal.body["result"] = f"{refusal.body['result']} {hint}"
    elif name in toolbox.tools:
        try:
            return own_call(call, toolbox.read(call))
        except BadArguments as problem:
            refusals[call_id] = refused(call, f"{name}: {problem}")
            verdict.bad_calls.append(name)
    return call
