"""What an answer of the model means to an agent's run. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interactd.builtins.arguments import BadArguments
from interactd.engine.agents.steps import function_of, own_call, rounds
from interactd.engine.agents.toolbox import Toolbox
from interactd.engine.run.outcome import Verdict, judge, refused
from interactd.models.port import Finished
from interactd.nouns import Status, Step


def judged(
    answer: Sequence[Step], finished: Finished, own: Sequence[Step], toolbox: Toolbox, *, must_call: bool
) -> Verdict:
    """Return the verdict on an answer; its usable calls of the agent's tools are built-in calls in it.

    Calls that cannot be used have their error results in it already, with a hint how to make them right. The status is
    `requires_action` where functions of the caller's are called, also beside built-in ones, which run first.
    """
    verdict = judge(
        answer,
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
    theirs = any(
        step.type == "function_call" and not function_of(step) and str(step.body["id"]) not in refusals for step in kept
    )
    status: Status | None = "requires_action" if theirs else None
    return replace(verdict, steps=[*kept, *refusals.values()], status=status)


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
