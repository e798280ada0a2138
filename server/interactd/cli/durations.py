"""Times as people write and read them."""

from __future__ import annotations

import re
import time
from datetime import datetime

from interactd.errors import InvalidArgument

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_ttl(text: str, field: str = "--ttl") -> float:
    """Read `90m`, `24h`, `7d`, `2w`, `3600` (seconds) or `forever`; returns seconds, 0 for ever.

    Raises:
        InvalidArgument: it is none of these.
    """
    word = text.strip().lower()
    if word in {"forever", "never", "0"}:
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", word)
    if not match:
        raise InvalidArgument(
            f"{field}: expected a time such as 90m, 24h, 7d or forever, got {text[:40]!r}", field=field
        )
    return float(match[1]) * _UNITS[match[2] or "s"]


def ago(iso: str) -> str:
    """Say how long ago an ISO time was, in its largest unit."""
    seconds = time.time() - datetime.fromisoformat(iso).timestamp()
    return f"{span(seconds)} ago" if seconds >= _UNITS["m"] else "just now"


def span(seconds: float) -> str:
    """Say a length of time in its largest unit, at least in seconds; a time that is over is `0s`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
