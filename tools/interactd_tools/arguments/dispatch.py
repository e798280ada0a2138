"""When a turn goes: one object, because few calls need any of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from interactd.engine.checks.terms import DISPATCH
from interactd.nouns import Json
from interactd_tools.arguments.fields import Arguments

_NAMES = ", ".join(DISPATCH)


def _within(name: str) -> Any:
    low, high = DISPATCH[name]
    return Field(ge=low, le=high)


class Dispatch(Arguments):
    """Higher priorities go first, 0 is usual; times are in seconds."""

    priority: Annotated[int, _within("priority")] | None = None
    delay_s: Annotated[float, _within("delay_s")] | None = None
    start_timeout_s: Annotated[float, _within("start_timeout_s")] | None = None
    timeout_s: Annotated[float, _within("timeout_s")] | None = None
    retries: Annotated[int, _within("retries")] | None = None


Shown = Annotated[
    Dispatch, Field(description=f"When it goes: {_NAMES}.", json_schema_extra={"x-published": {"type": "object"}})
]
Hidden = Annotated[Dispatch, Field(json_schema_extra={"x-published": None})]
"""Taken, and left out of the list that hosts pay for."""


def dispatch_of(given: Dispatch | None) -> Json | None:
    """Return what the engine takes; `None` when nothing is said."""
    return (given.model_dump(exclude_none=True) or None) if given else None
