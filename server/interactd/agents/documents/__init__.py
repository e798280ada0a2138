"""Texts that people write (YAML, JSON, Markdown with front matter), read so that every value knows its line.

A `Document` holds plain values (None, bool, int, float, str, list, dict with text keys), the line of every field, and
what was wrong. Nothing in here raises for bad input: faults are collected, so that a person sees all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FieldPath = tuple[str | int, ...]
MAX_DEPTH = 32
MAX_NODES = 20_000


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a line (from 1) of a text."""

    message: str
    line: int | None = None
    path: FieldPath = ()


@dataclass(slots=True)
class Document:
    """What was read. `value` is None when the text could not be parsed at all: then there are faults."""

    value: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict[FieldPath, int])
    faults: list[Fault] = field(default_factory=list[Fault])

    def line(self, path: FieldPath) -> int | None:
        """Return the line of a field, or of the nearest thing around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


class Stop(Exception):
    """Ends the reading of a document after the fault that makes going on pointless."""


def field_name(path: FieldPath) -> str | None:
    """Return `tools[1].parameters` for a path; None for the whole document."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    if not out:
        return None
    # A key can hold what no terminal should be given, such as a byte order mark.
    out = out if out.isprintable() else ascii(out)[1:-1]
    return out if len(out) <= 200 else out[:197] + "..."
