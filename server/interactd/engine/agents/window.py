"""Fitting a long run into a model's window: old results shrink first, then old arguments, then old steps go.

What is cut stays cut: the cuts are found by walking through the run from its beginning and cutting down to half of
the room each time the room is full, so that the start of the prompt stays the same over many calls, and providers'
prompt caches with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from interactd.builtins.clamp import head_and_tail
from interactd.engine.run.tokens import estimate_step
from interactd.nouns import Json, Step, user_input

_RESULT: Final = 1_500
_SHORT: Final = 300
_GONE: Final = "[Earlier steps of this run are left out here; their files are in /workspace.]"
_NOTE: Final = "It was longer; look again if you need it"


def fit(steps: Sequence[Step], room: int) -> list[Step]:
    """Return the steps of one turn, repaired and as models see them, in at most about `room` tokens.

    Input of the user's and the last round stay as they are for as long as they can.
    """
    if sum(map(estimate_step, steps)) <= room:
        return list(steps)
    # The room changes a little with each call, as the provider's counting is learned; the cuts must not.
    room -= room % (1 << max(0, room.bit_length() - 4))
    walk = _Walk(room)
    for group in _groups(steps):
        walk.add(group)
    return walk.steps()


class _Walk:
    """The run so far: its groups, how much of each is left, and how large that is."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._groups: list[list[Step]] = []
        self._sizes: list[int] = []
        self._cut = [0, 0, 0]
        """How many groups from the beginning were clamped, clamped hard, and left out."""
        self._total = 0
        self._gone = False

    def add(self, group: list[Step]) -> None:
        self._groups.append(group)
        self._sizes.append(sum(map(estimate_step, group)))
        self._total += self._sizes[-1]
        if self._total <= self._room:
            return
        for level, cut in enumerate((_clamp_results(_RESULT), _clamp_all(_SHORT), _leave_out)):
            while self._total > self._room // 2 and self._cut[level] < len(self._groups) - 1:
                self._set(self._cut[level], [one for step in self._groups[self._cut[level]] if (one := cut(step))])
                self._cut[level] += 1
        if self._total > self._room:
            # The newest round alone is too large.
            rest = self._room - (self._total - self._sizes[-1])
            self._set(len(self._groups) - 1, [_clamp_all(max(_SHORT, rest * 2))(step) for step in self._groups[-1]])

    def _set(self, at: int, group: list[Step]) -> None:
        self._gone = self._gone or (not group and bool(self._groups[at]))
        size = sum(map(estimate_step, group))
        self._total += size - self._sizes[at]
        self._groups[at], self._sizes[at] = group, size

    def steps(self) -> list[Step]:
        """What is left, with a word on what is missing."""
        left = [step for group in self._groups for step in group]
        if self._gone:
            # As the user's, because two answers of a model in a row are not allowed everywhere.
            at = sum(step.type == "user_input" for step in left)
            left.insert(at, user_input(_GONE))
        return left


def _leave_out(step: Step) -> Step | None:
    return step if step.type == "user_input" else None


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """The input, and then each answer of the model with its results."""
    groups: list[list[Step]] = []
    answered = True
    for step in steps:
        result = step.type == "function_result"
        if not groups or step.type == "user_input" or (answered and not result):
            groups.append([])
        answered = result or step.type == "user_input"
        groups[-1].append(step)
    return groups


def _clamp_results(limit: int) -> Callable[[Step], Step]:
    def cut(step: Step) -> Step:
        if step.type != "function_result":
            return step
        text = _text(step.body.get("result"))
        if len(text) <= limit:
            return step
        body: Json = {**step.body, "result": head_and_tail(text, limit, _NOTE)}
        return Step(step.type, body, step.state, step.seq, step.created_at)

    return cut


def _clamp_all(limit: int) -> Callable[[Step], Step]:
    results = _clamp_results(limit)

    def cut(step: Step) -> Step:
        if step.type != "function_call":
            return results(step)
        arguments: Any = step.body.get("arguments") or {}
        short = {n: head_and_tail(v, limit, _NOTE) if isinstance(v, str) else v for n, v in arguments.items()}
        return Step(step.type, {**step.body, "arguments": short}, step.state, step.seq, step.created_at)

    return cut


def _text(result: Any) -> str:
    """A result as text; images are only named."""
    if isinstance(result, str):
        return result
    if isinstance(result, list):
        parts = cast("list[Any]", result)
        if all(isinstance(part, dict) for part in parts):
            return "\n".join(str(part.get("text") or f"({part.get('type')} left out)") for part in parts)
    return json.dumps(result, ensure_ascii=False)
