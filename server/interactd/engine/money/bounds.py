"""The most that a call can take: never less than what the provider will count.

A token is a byte at least, so the bytes of a text are a bound for any tokenizer. What a provider has counted once is
known better: a request that only adds to the one before takes what that took, and the bytes of what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, cast

from interactd.models import known
from interactd.models.port import Model, ModelRequest
from interactd.nouns import Json, Step

IMAGE: Final = 10_000
"""More than any provider counts for one picture."""
PER_STEP: Final = 32
"""Role marks and field names around a step."""
PER_REQUEST: Final = 64
WITH_TOOLS: Final = 1_024
"""Providers add instructions of their own when there are tools."""
OUTPUT: Final = 131_072
"""Assumed of a model whose longest answer nobody knows."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class InputBound:
    """Bounds the input of one run's calls, one after the other."""

    def __init__(self) -> None:
        self._steps: Sequence[Step] = ()
        self._frame: Any = None
        self._counted = 0

    def of(self, request: ModelRequest) -> int:
        """Return the most input tokens that the request can be."""
        whole = _frame_bytes(request) + sum(map(_step_bytes, request.steps))
        before = len(self._steps)
        grown = self._counted and _frame(request) == self._frame and request.steps[:before] == self._steps
        if not grown:
            return whole
        return min(whole, self._counted + PER_REQUEST + sum(map(_step_bytes, request.steps[before:])))

    def learn(self, request: ModelRequest, counted: int) -> None:
        """Note what a request was counted as."""
        self._steps, self._frame, self._counted = list(request.steps), _frame(request), counted


def most_output(model: Model) -> int:
    """Return the most tokens that one answer of the model can have."""
    most = known.output(model.name) or OUTPUT
    return min(most, model.context_window) if model.context_window else most


def sure_output(model: Model) -> int:
    """Return a limit for answers that the model is sure to accept."""
    return known.output(model.name) or 8_192


def _frame(request: ModelRequest) -> tuple[str, str | None, list[Json]]:
    return request.model, request.system_instruction, request.tools


def _frame_bytes(request: ModelRequest) -> int:
    size = PER_REQUEST + len((request.system_instruction or "").encode("utf-8", "replace"))
    return size + WITH_TOOLS + _bytes(request.tools) if request.tools else size


def _step_bytes(step: Step) -> int:
    return PER_STEP + _size(step.body) + (0 if step.state is None else _bytes(step.state))


def _size(value: Any) -> int:
    if isinstance(value, str):
        # Where it is sent as JSON inside JSON these are escaped, twice.
        escaped = sum(map(value.count, '"\\\n\r\t'))
        strange = len(_CONTROL.findall(value)) if _CONTROL.search(value) else 0
        size = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        return size + 2 + 3 * escaped + 6 * strange
    if isinstance(value, dict):
        given = cast("Json", value)
        if given.get("type") == "image":
            return IMAGE
        return sum(len(name) + 4 + _size(inner) for name, inner in given.items())
    if isinstance(value, list):
        return 2 + sum(1 + _size(inner) for inner in cast("list[Any]", value))
    return _bytes(value)


def _bytes(value: Any) -> int:
    # As JSON: what is escaped on the wire may be read escaped.
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace"))
