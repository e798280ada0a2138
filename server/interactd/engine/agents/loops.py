"""Noticing that an agent goes round in circles. Pure: read from the journal, so that a crash forgets nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from interactd.engine.agents.steps import for_model
from interactd.nouns import Step

SAME_FAILURES: Final = 3
"""Identical failing calls, without anything new in between that worked, after which a run is stopped."""
SAME_SUCCESSES: Final = 6
"""Identical calls in a row with an identical result."""


@dataclass(frozen=True, slots=True)
class Made:
    """A call with its result."""

    name: str
    arguments: str
    result: str
    failed: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.arguments


def calls_made(steps: Sequence[Step]) -> list[Made]:
    """Every answered call, in the order of the results."""
    shown = for_model(steps)
    calls = {step.body.get("id"): step for step in shown if step.type == "function_call"}
    made: list[Made] = []
    for step in shown:
        call = calls.get(step.body.get("call_id")) if step.type == "function_result" else None
        if call is not None:
            arguments = call.body.get("raw_arguments") or _text(call.body.get("arguments"))
            result = _text(step.body.get("result"))
            made.append(Made(str(call.body.get("name")), str(arguments), result, bool(step.body.get("is_error"))))
    return made


def loop_of(steps: Sequence[Step]) -> Made | None:
    """The call that is being repeated to no end; `None` while the run gets on.

    A failing call counts each time it is made just so. The count begins anew when a call works that had not been
    made before: that is what fixing and trying again looks like, and not what turning in a circle does.
    """
    failures: Counter[tuple[str, str]] = Counter()
    worked: set[tuple[str, str]] = set()
    last: Made | None = None
    same = 0
    for call in calls_made(steps):
        if call.failed:
            failures[call.key] += 1
            if failures[call.key] >= SAME_FAILURES:
                return call
        elif call.key not in worked:
            worked.add(call.key)
            failures.clear()
        same = same + 1 if call == last else 1
        last = call
        if same >= SAME_SUCCESSES:
            return call
    return None


def hint_for(steps: Sequence[Step], name: str, arguments: object, result: object, failed: bool) -> str | None:
    """What to tell a model that has just repeated itself, before it is stopped for it."""
    key = (name, _text(arguments))
    before = [call for call in calls_made(steps) if call.key == key]
    if failed and any(call.failed for call in before):
        return "You made this same call before and it failed in the same way. Do something else."
    if not failed and len(before) >= 2 and all(call.result == _text(result) for call in before[-2:]):
        return "You have this result already. Go on with the next step, or give your answer."
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
