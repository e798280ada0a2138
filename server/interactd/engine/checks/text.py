"""Strings and JSON values that can be stored, indexed and sent to any provider."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

from interactd.errors import InvalidArgument

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_DEPTH = 64


def check_text(field: str, value: Any, *, max_bytes: int | None = None, empty: bool = True) -> str:
    """Return `value` if it is a string that UTF-8 and SQLite can hold.

    Args:
        field: the argument's name, for the message.
        value: what the caller gave.
        max_bytes: its largest size in UTF-8.
        empty: whether it may be empty or only white space.

    Raises:
        InvalidArgument: it is none; the message names the field and the position. Control characters are text, but
            NUL and halves of a surrogate pair are refused, because they would be lost on the way.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{field}: expected a string, got {kind_of(value)}", field=field)
    if bad := _UNSTORABLE.search(value):
        what = "a NUL character" if bad.group() == "\x00" else f"half of a surrogate pair (U+{ord(bad.group()):04X})"
        raise InvalidArgument(
            f"{field}: {what} at position {bad.start()}",
            repair="Remove that character, or send it properly encoded, and call again.",
            field=field,
            position=bad.start(),
        )
    if not empty and not value.strip():
        raise InvalidArgument(f"{field}: is empty", repair=f"Give some text in {field}.", field=field)
    if max_bytes is not None and len(value) > max_bytes // 4 and (size := len(value.encode())) > max_bytes:
        raise InvalidArgument(
            f"{field}: {size:,} bytes are more than the {max_bytes:,} allowed",
            repair="Shorten it, or send it in several turns.",
            field=field,
            limit=max_bytes,
        )
    return value


def check_json(field: str, value: Any, depth: int = 0) -> Any:
    """Return `value` if it is JSON: string keys, finite numbers, storable strings, at most 64 levels.

    Raises:
        InvalidArgument: something in it is not; the message names the path.
    """
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"{field}: nested more than {_MAX_DEPTH} levels deep", field=field)
    if isinstance(value, str):
        return check_text(field, value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 1 << 1023:
            raise InvalidArgument(f"{field}: the number is too large for JSON", field=field)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgument(f"{field}: {value} is not a JSON number", field=field)
        return value
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, Any]", value).items():
            check_text(f"{field} key", key)
            check_json(f"{field}.{key}" if len(field) < 200 else field, inner, depth + 1)
        return cast("Any", value)
    if isinstance(value, list | tuple):
        for at, inner in enumerate(cast("list[Any]", value)):
            check_json(f"{field}[{at}]" if len(field) < 200 else field, inner, depth + 1)
        return cast("Any", value)
    raise InvalidArgument(f"{field}: {kind_of(value)} is not JSON", field=field)


def kind_of(value: Any) -> str:
    """Name a value's type as a person who writes JSON would."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(cast("type[Any]", type(value)), type(value).__name__)
