"""The sentences for wrong arguments: `field: expected ... got ...`, all of them in one short line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

SHOWN_VALUE = 60
SHOWN_LINE = 300


def shown(value: object) -> str:
    """Return a value as one short printable piece, whatever it is: at most 60 characters, nothing unprintable."""
    if isinstance(value, str):
        text = printable(f'"{value[:SHOWN_VALUE]}"')
        if len(text) > SHOWN_VALUE or len(value) > SHOWN_VALUE:
            size = f'..." ({len(value):,} characters)'
            return text[: SHOWN_VALUE - len(size)] + size
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int):
        text = str(value) if value.bit_length() < 200 else f"an integer of {value.bit_length():,} bits"
    elif isinstance(value, float):
        text = repr(value)
    elif isinstance(value, dict):
        text = f"an object of {_count(cast('dict[Any, Any]', value), 'field')}"
    elif isinstance(value, list):
        text = f"a list of {_count(cast('list[Any]', value), 'item')}"
    else:
        text = type(value).__name__
    return shorten(printable(text), SHOWN_VALUE)


def _count(value: Sequence[Any] | dict[Any, Any], noun: str) -> str:
    return f"{len(value):,} {noun}{'' if len(value) == 1 else 's'}"


def printable(text: str) -> str:
    """Escape control characters, lone surrogates and what else does not print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, limit: int) -> str:
    """Cut to `limit` characters, the last three of which say that it was cut."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that `given` was most likely meant to be."""
    names = list(known)
    plain = given[:SHOWN_VALUE].strip().lower().replace("-", "_")
    # A part of the name is the commonest slip: `session` for session_id, `timeout` for wait_s is not one.
    for name in names:
        if plain and (name in (_snake(given), plain + "_id", plain + "_s") or name.endswith("_" + plain)):
            return name
    close = difflib.get_close_matches(plain, names, n=1, cutoff=0.6)
    return close[0] if close else None


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name[:SHOWN_VALUE]).lstrip("_")


def one_line(problems: Sequence[str]) -> str:
    """Join the problems into one line of at most about 300 characters; what does not fit is counted."""
    line, used = "", 0
    for problem in problems:
        piece = shorten(printable(problem), SHOWN_LINE)
        if line and len(line) + len(piece) + 2 > SHOWN_LINE:
            break
        line += ("; " if line else "") + piece
        used += 1
    rest = len(problems) - used
    return line + (f"; and {rest} more" if rest else "")


def compact(value: object) -> str:
    """Return JSON on one line, for showing a call."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)
