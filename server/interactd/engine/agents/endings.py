"""How an agent's turn ends, and the errors that say why and how to go on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from interactd.builtins.port import Outcome
from interactd.engine.agents.limits import GO_ON
from interactd.engine.agents.loops import Made
from interactd.engine.agents.steps import open_calls, own_result
from interactd.errors import InteractdError
from interactd.nouns import Json, Status, Step

LOST: Final = "Outcome unknown: the machine stopped while it ran. It may have taken effect, wholly or in part: look."
_NOT_RUN: Final = "It was not run: the turn was {}."


@dataclass(frozen=True, slots=True)
class Ending:
    """How the loop ended: what `settle` is told."""

    status: Status
    steps: Sequence[Step] = ()
    error: Json | None = None
    finish_reason: str | None = None


def looping(call: Made) -> Json:
    """The error of a run that makes the same call to no end."""
    what = "failed in the same way" if call.failed else "gave the same result"
    return {
        "code": "loop_detected",
        "message": f"The agent was stopped: it made the same call of {call.name} again and again, and it {what} each "
        f"time: {call.arguments[:200]} -> {call.result[:300]}",
        "repair": f"{GO_ON}, and say what to do differently, or use a stronger model.",
    }


def bad_calls(names: Sequence[str], times: int) -> Json:
    """The error of a run whose model cannot call functions."""
    return {
        "code": "bad_tool_calls",
        "message": f"In {times} answers in a row the model made only calls that cannot be used: "
        f"{', '.join(dict.fromkeys(names))}.",
        "repair": "Everything it did before is kept. Use a model that is better at calling functions.",
    }


def babbling() -> Json:
    """The error of an answer that says the same over and over."""
    return {
        "code": "loop_detected",
        "message": "The model was stopped: it wrote the same text over and over.",
        "repair": f"{GO_ON}, or use a stronger model.",
    }


def too_large() -> Json:
    """The error of a run whose model writes without end."""
    return {
        "code": "output_too_large",
        "message": "The model was stopped: it produced more than one answer may hold.",
        "repair": "Ask for less at a time.",
    }


def environment_gone(error: InteractdError, environment_id: str) -> InteractdError:
    """The error of a turn whose session's environment is no more: its files are not silently replaced by none."""
    return type(error)(
        f"{error.message.rstrip('.')}. The agent's files were in environment {environment_id}.",
        repair='Send the turn with environment "remote" to go on in a fresh one.',
        **{**error.fields, "environment_id": environment_id},
    )


def closing(own: Sequence[Step], status: Status, flight: Collection[str] = ()) -> list[Step]:
    """Results for built-in calls that never ran: a call without one would be the caller's to answer.

    Args:
        own: the turn's steps.
        status: how it ends.
        flight: ids of calls that had begun, and nobody knows how they ended.
    """
    why = "cancelled" if status == "cancelled" else "stopped"
    return [
        own_result(call, Outcome(LOST if call.body["id"] in flight else _NOT_RUN.format(why), True))
        for call in open_calls(own)
    ]
