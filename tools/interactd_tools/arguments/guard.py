"""What no argument may contain, whichever tool it is for: checked before anything else looks at it.

Half a Unicode character cannot be stored or sent on, NaN is not JSON, and a structure nested a thousand deep ends
the process that walks it by recursion. So this walk does not recurse.
"""

from __future__ import annotations

import math
from typing import Any, cast

from interactd_tools.arguments.problems import printable, shorten, shown

MAX_DEPTH = 40
MAX_NODES = 200_000
MAX_INT = 2**63 - 1


def bad_values(arguments: dict[str, Any]) -> dict[str, str]:
    """Return what is impossible in the arguments: top-level field to the sentence about it."""
    problems: dict[str, str] = {}
    # (top-level field, path, value, depth)
    waiting: list[tuple[str, str, Any, int]] = [(name, name, value, 1) for name, value in arguments.items()]
    nodes = 0
    while waiting:
        field, path, value, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES:
            problems.setdefault(field, f"{_at(path)}: expected at most {MAX_NODES:,} values in all")
            break
        if field in problems:
            continue
        if problem := _bad(value):
            problems[field] = f"{_at(path)}: {problem}"
        elif isinstance(value, dict | list) and depth > MAX_DEPTH:
            problems[field] = f"{_at(field)}: expected at most {MAX_DEPTH} levels of nesting, got more"
        elif isinstance(value, dict):
            for key, item in cast("dict[Any, Any]", value).items():
                if problem := _bad(key):
                    problems[field] = f"{_at(path)}: a key: {problem}"
                    break
                waiting.append((field, f"{path}.{key}", item, depth + 1))
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            waiting.extend((field, f"{path}[{i}]", item, depth + 1) for i, item in enumerate(items))
    return {name: problems[name] for name in arguments if name in problems}


def _at(path: str) -> str:
    return shorten(printable(path), 40)


def _bad(value: object) -> str | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return (
                f"expected Unicode text, got half a character (lone surrogate {shown(value[error.start])[1:-1]})"
                f" at position {error.start:,}"
            )
        if "\0" in value:
            return f"expected text, got a NUL character at position {value.index(chr(0)):,}"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"expected a number, got {value!r}"
    elif isinstance(value, int) and abs(value) > MAX_INT:
        return f"expected a number of at most 64 bits, got {shown(value)}"
    elif not isinstance(value, dict | list | int | float | None):
        return f"expected JSON, got {shown(value)}"
    return None
