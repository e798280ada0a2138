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
    groups = _groups(steps)
    for cut in (_clamp_results(_RESULT), _clamp_all(_SHORT)):
        done = _cut_to(groups, room, cut)
        if sum(estimate_step(step) for group in done for step in group) <= room:
            return [step for group in done for step in group]
    return _drop(groups, room)


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


def _cut_to(groups: list[list[Step]], room: int, cut: Callable[[Step], Step]) -> list[list[Step]]:
    done: list[list[Step]] = []
    total, next_ = 0, 0
    sizes: list[int] = []
    for group in groups:
        done.append(group)
        sizes.append(sum(map(estimate_step, group)))
        total += sizes[-1]
        if total <= room:
            continue
        while next_ < len(done) - 1 and total > room // 2:
            done[next_] = [cut(step) for step in done[next_]]
            smaller = sum(map(estimate_step, done[next_]))
            total += smaller - sizes[next_]
            sizes[next_] = smaller
            next_ += 1
    return done


def _drop(groups: list[list[Step]], room: int) -> list[Step]:
    """The input, a word on what is missing, and the newest rounds; a round that is too large alone is cut."""
    cut = _clamp_all(_SHORT)
    head = [step for group in groups for step in group if step.type == "user_input"]
    left = room - sum(map(estimate_step, head)) - 32
    kept: list[list[Step]] = []
    for group in reversed(groups):
        if any(step.type == "user_input" for step in group):
            continue
        if not kept:
            share = max(200, left * 3)
            group = [_clamp_results(share)(step) for step in group]
        else:
            group = [cut(step) for step in group]
        left -= sum(map(estimate_step, group))
        if left < 0 and kept:
            break
        kept.append(group)
    # As the user's, because two answers of a model in a row are not allowed everywhere.
    return [*head, user_input(_GONE), *(step for group in reversed(kept) for step in group)]


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
