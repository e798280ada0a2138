"""Durations as people write them: `90s`, `30m`, `24h`, `7d`, `2w`, a number of seconds, or `forever`."""

from __future__ import annotations

import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST_S = 100 * 365 * 86400.0


def seconds(value: str | float) -> float | None:
    """Return the duration in seconds, `None` for one without an end (`forever`, `never`, 0).

    Raises:
        ValueError: it is no duration; the message says what one looks like.
    """
    word = str(value).strip().lower()
    if word in {"forever", "never"}:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)\s*([smhdw]?)", word, re.ASCII)
    if match is None:
        raise ValueError("expected a duration such as 90m, 24h, 7d or forever")
    length = float(match[1]) * _UNITS[match[2]]
    if length > LONGEST_S:
        raise ValueError("expected a duration of at most 100 years, or forever")
    return length or None
