"""Budgets as tools take them: an object, or an amount as people say it."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from interactd.engine.checks.terms import check_budget
from interactd.errors import InvalidArgument
from interactd.nouns import Json
from interactd_tools.arguments.fields import refuse, wrong

_EXPECTED = 'a budget such as "$2", "50k tokens" or {"usd": 2}'
_NONE = ("none", "no", "unlimited", "no limit", "{}")


def read_budget(value: object) -> Json:
    """Return a budget as the engine takes it; an empty one for none.

    Raises:
        PydanticCustomError: it is none.
    """
    given: object = value
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _NONE:
            return {}
        if text.startswith("{"):
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                raise refuse(_EXPECTED, value) from None
    if isinstance(given, bool) or not isinstance(given, str | int | float | dict):
        raise refuse(_EXPECTED, value)
    try:
        return check_budget(cast("Any", given)) or {}
    except InvalidArgument as error:
        head, _, rest = error.message.partition(": ")
        inner = head.removeprefix("budget").removeprefix(".")
        raise wrong((f"{inner}: " if inner else "") + rest + (f". {error.repair}" if error.repair else "")) from None


Budget = Annotated[
    Json,
    BeforeValidator(read_budget),
    Field(
        description='Most it may cost: "$2", or JSON {usd, tokens, steps, seconds}.',
        json_schema_extra={"schema": {"type": "string", "x-expected": _EXPECTED}},
    ),
]
