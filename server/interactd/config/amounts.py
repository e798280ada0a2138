"""Budgets as people say them: `$2`, `50 cents`, `100k tokens`, `20 steps`, `5 minutes`, or some of these."""

from __future__ import annotations

import re
from typing import Final

SHAPE: Final = 'such as "$2", "50k tokens and 10 minutes", or {"usd": 2, "tokens": ..., "steps": ..., "seconds": ...}'
_UNITS: Final = {
    "usd": ("usd", 1.0),
    "dollar": ("usd", 1.0),
    "buck": ("usd", 1.0),
    "cent": ("usd", 0.01),
    "token": ("tokens", 1.0),
    "step": ("steps", 1.0),
    "s": ("seconds", 1.0),
    "sec": ("seconds", 1.0),
    "second": ("seconds", 1.0),
    "min": ("seconds", 60.0),
    "minute": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "hour": ("seconds", 3600.0),
}
_TIMES: Final = {"": 1, "k": 1_000, "m": 1_000_000, "million": 1_000_000}
_LEAD: Final = re.compile(
    r"^(?:stop (?:at|after)|at most|up to|no more than|max(?:imum)?|limit|budget)[\s:]+", re.IGNORECASE
)
_ONE: Final = re.compile(
    r"(?P<sign>\$|usd\s?|us\$)?\s*(?P<number>\d{1,12}(?:\.\d{1,9})?)\s*(?P<times>(?:k|m|million)(?![a-z]))?(?P<unit>\$|\s*[a-z]+)?",
    re.IGNORECASE,
)


def budget(said: str | float) -> dict[str, float | int]:
    """Return what was said as a budget. A bare number is dollars.

    Raises:
        ValueError: it says something else; the message has examples.
    """
    if isinstance(said, int | float):
        said = f"{said:.9f}" if said >= 0 else str(said)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", said.strip())
    while (shorter := _LEAD.sub("", text)) != text:
        text = shorter
    out: dict[str, float | int] = {}
    for part in re.split(r"\s*(?:,|;|\+|&|\band\b)\s*", text):
        unit, value = _one(part)
        if unit in out:
            raise ValueError(f"expected each unit once, {SHAPE}")
        out[unit] = value
    return out


def _one(part: str) -> tuple[str, float | int]:
    found = _ONE.fullmatch(part.strip())
    if found is None:
        raise ValueError(f"expected a budget {SHAPE}")
    word = (found["unit"] or "").strip().lower()
    times, signed = (found["times"] or "").lower(), bool(found["sign"]) or word == "$"
    if times == "m" and not word and not signed:
        word, times = "min", ""
    if signed and word in ("", "$", "usd"):
        word = "usd"
    elif signed:
        raise ValueError(f"expected a budget {SHAPE}")
    key = "usd" if not word else word if word in _UNITS else word.removesuffix("s")
    if key not in _UNITS:
        raise ValueError(f"expected a budget {SHAPE}")
    unit, scale = _UNITS[key]
    value = round(float(found["number"]) * _TIMES[times] * scale, 9)
    return unit, int(value) if unit in ("tokens", "steps") and value == int(value) else value
