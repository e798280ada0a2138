"""Text of a known size: estimates of tokens, cuts that can be gone on from, and calls as a model writes them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

from interactd.nouns import Usage

BYTES_PER_TOKEN = 3.5
_BREAKS = ("\n\n", "\n", ". ", " ")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a longer text: characters `start` to `end` of `length`. Pieces in a row join to the whole."""

    text: str
    start: int
    end: int
    length: int
    more_tokens: int

    @property
    def cut(self) -> bool:
        return self.end < self.length


def tokens(text: str) -> int:
    """Estimate the tokens of a text from its bytes; somewhat high for English, near for code and CJK."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def cut(text: str, max_tokens: int, start: int = 0) -> Piece:
    """Return the piece from `start` that has at most `max_tokens`, ending at a paragraph where one is near.

    Args:
        text: the whole.
        max_tokens: what the piece may cost.
        start: in characters; beyond the end gives an empty piece.
    """
    start = min(start, len(text))
    room = math.floor(max_tokens * BYTES_PER_TOKEN)
    # At most `room` characters can fit: no need to look at a whole that is a hundred times longer.
    window = text[start : start + room]
    encoded = window.encode("utf-8", "replace")
    if len(encoded) > room:
        window = encoded[:room].decode("utf-8", "ignore")
    end = start + max(len(window), 1 if start < len(text) else 0)
    if end < len(text):
        end = _break(text, start, end)
    return Piece(text[start:end], start, end, len(text), tokens(text[end:]))


def _break(text: str, start: int, end: int) -> int:
    for mark, least in zip(_BREAKS, (0.5, 0.7, 0.8, 0.9), strict=True):
        found = text.rfind(mark, start + int((end - start) * least), end)
        if found >= 0:
            return found + len(mark)
    return end


def clean(text: str) -> str:
    """Return text every transport can carry: half characters become the replacement character, NUL goes."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def one_line(text: str, limit: int) -> str:
    """Return the text on one line, cut to `limit` characters."""
    line = " ".join(text[: limit * 8].split())
    return line if len(line) <= limit and len(text) <= limit * 8 else line[: limit - 1].rstrip() + "…"


def call(tool: str, arguments: dict[str, Any]) -> str:
    """Write a call, with JSON values: `get_interaction(interaction_id="int_…", wait_s=30)`."""
    return f"{tool}({', '.join(f'{name}={compact(value)}' for name, value in arguments.items())})"


def compact(value: object) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def when(seconds: float | None) -> str:
    """Write a time: `2026-11-22 14:02 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds is not None else "unknown"


def iso(seconds: float) -> str:
    """Write a time for a program: `2026-11-22T14:02:33Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def span(seconds: float) -> str:
    """Write a duration in its two largest sensible units: `1.8 s`, `12 min`, `23 h`, `6 days`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def plural(count: int, noun: str) -> str:
    """`1 turn`, `2 turns`, `1,000 turns`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def usage_line(usage: Usage | None) -> str:
    """Write what a turn cost; what the provider did not say is not called zero."""
    if usage is None or not usage.as_dict():
        return "Tokens: not reported by the provider"

    def figure(value: int | None) -> str:
        return "unknown" if value is None else f"{value:,}"

    cached = f" ({usage.cached:,} cached)" if usage.cached else ""
    thought = f", {usage.thought:,} thought" if usage.thought else ""
    return f"Tokens: {figure(usage.input)} in{cached}, {figure(usage.output)} out{thought}"


def answer(*blocks: str) -> str:
    """Join the blocks that are not empty with an empty line between them."""
    return clean("\n\n".join(block for block in blocks if block))
