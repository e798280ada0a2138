"""Models that do not read pictures: what their provider says of them, and their requests without any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

from interactd.errors import InteractdError
from interactd.nouns import Json, Step, text_content

_NOTE: Final = "(a picture, which this model cannot read: use code to find out what you need of it)"
_SAYS_SO: Final = re.compile(r"image|picture|vision|multi-?modal|modalit|mmproj", re.IGNORECASE)


def shows_pictures(steps: Sequence[Step]) -> bool:
    """Whether a tool's result among these has a picture in it."""
    return any(_pictures(step) for step in steps)


def refuses_pictures(error: InteractdError) -> bool:
    """Whether a provider's refusal of a request with pictures may be because of them."""
    return error.code == "provider_rejected" or _SAYS_SO.search(error.message) is not None


def without_pictures(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with a note in place of each picture that a tool returned."""
    return [_described(step) if _pictures(step) else step for step in steps]


def _pictures(step: Step) -> bool:
    result: Any = step.body.get("result") if step.type == "function_result" else None
    return isinstance(result, list) and any(_is_picture(part) for part in cast("list[Any]", result))


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and cast("Json", part).get("type") == "image"


def _described(step: Step) -> Step:
    parts = [text_content(_NOTE) if _is_picture(part) else part for part in cast("list[Any]", step.body["result"])]
    return Step(step.type, {**step.body, "result": parts}, step.state, step.seq, step.created_at)
