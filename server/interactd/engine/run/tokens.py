"""How many tokens something will be: bytes / 4, images counted whole, corrected by what providers report."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from interactd.nouns import Json, Step

IMAGE_TOKENS: Final = 1_600
"""About what the large providers charge for one picture of ordinary size."""
_PER_STEP: Final = 8
"""Role marks and field names around each step."""


def estimate_text(text: str) -> int:
    """Tokens of a text, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // 4)


def estimate_step(step: Step) -> int:
    """Tokens of a step, without its provider state."""
    return _PER_STEP + _estimate(step.body)


def estimate_json(value: Any) -> int:
    """Tokens of a JSON value as it would be sent."""
    return estimate_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _estimate(value: Any) -> int:
    if isinstance(value, str):
        return estimate_text(value)
    if isinstance(value, dict):
        given = cast("Json", value)
        if given.get("type") == "image":
            return IMAGE_TOKENS
        return sum(1 + _estimate(inner) for name, inner in given.items() if name != "type")
    if isinstance(value, list):
        return sum(_estimate(inner) for inner in cast("list[Any]", value))
    return 1


class Calibration:
    """Per model, what its provider counted against what we estimated; kept between 1/2 and 3."""

    def __init__(self) -> None:
        self._factors: dict[str, float] = {}

    def factor(self, model: str) -> float:
        """Multiply an estimate by this."""
        return self._factors.get(model, 1.0)

    def learn(self, model: str, estimated: int, reported: int | None) -> None:
        """Note what one call's input was. Small inputs say little and are not counted."""
        if reported and estimated >= 200:
            self._factors[model] = min(3.0, max(0.5, reported / estimated))
