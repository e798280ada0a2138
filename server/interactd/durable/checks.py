"""Checking what a caller gives: each says the field, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

from interactd.errors import InvalidArgument, NotFound
from interactd.ids import PREFIXES, ULID_LENGTH, as_given, parse_prefix
from interactd.nouns import Json
from interactd.store.schedules_port import ScheduleStore

MAX_NAME = 200
MAX_METADATA = 4096
MAX_LIMIT = 200


async def id_of(
    store: ScheduleStore,
    kind: Literal["trigger", "execution", "webhook", "delivery", "interaction"],
    text: Any,
    owner: str,
) -> str:
    """Return the whole id for an id or a unique part of one, of this owner's.

    Raises:
        InvalidArgument, NotFound, AmbiguousId.
    """
    field = f"{kind}_id"
    if not isinstance(text, str):
        raise InvalidArgument(f"{field}: expected an id ({PREFIXES[kind]}...)", field=field)
    try:
        prefix = parse_prefix(kind, text)
    except InvalidArgument as error:
        if kind != "interaction":
            error.repair = f"list_{kind.replace('delivery', 'deliverie')}s shows the ids there are."
        raise
    assert len(prefix) <= len(PREFIXES[kind]) + ULID_LENGTH
    try:
        return await store.find(kind, prefix, owner)
    except NotFound as error:
        as_given(error, prefix, text)
        raise


def check_choice(field: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of the choices. Raises: InvalidArgument."""
    if value not in choices:
        raise InvalidArgument(f"{field}: expected one of {', '.join(choices)}, got {value!r:.60}", field=field)
    return cast("str", value)


def check_number(field: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    """Return a number in its bounds. Raises: InvalidArgument."""
    right = isinstance(value, int) or (isinstance(value, float) and not whole and math.isfinite(value))
    if isinstance(value, bool) or not right or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidArgument(f"{field}: expected {kind} from {low:,} to {high:,}, got {value!r:.40}", field=field)
    return value


def check_name(field: str, value: Any) -> str | None:
    """Return a name on one line, or `None`. Raises: InvalidArgument."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        raise InvalidArgument(f"{field}: expected one line of at most {MAX_NAME} characters", field=field)
    return value.strip() or None


def check_flag(field: str, value: Any) -> bool:
    """Return a boolean. Raises: InvalidArgument."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{field}: expected true or false, got {value!r:.40}", field=field)
    return value


def check_object(field: str, value: Any) -> Json:
    """Return an object. Raises: InvalidArgument."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{field}: expected an object, got {value!r:.40}", field=field)
    return cast("Json", value)


def check_limit(value: Any) -> int:
    """Return a page size. Raises: InvalidArgument."""
    return int(check_number("limit", value, 1, MAX_LIMIT, whole=True))
