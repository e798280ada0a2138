"""What the same work would have cost somewhere else: assumptions, in one place, with their date.

They are no price list. Google's Interactions API bills tokens and, in its preview, neither sessions nor sandboxes; the
session-hour is what Anthropic's Managed Agents were reported to charge; the other two are round figures of the usual
order for rented two-core sandboxes and object storage. `[hosted]` in the configuration replaces any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from interactd.nouns import Json

AS_OF: Final = "2026-11-22"
ASSUMED: Final[Mapping[str, float]] = {"session_hour_usd": 0.08, "sandbox_hour_usd": 0.10, "gb_month_usd": 0.10}
NOTE: Final = (
    "An estimate from assumed prices, not an offer of anybody's. Google's hosted API bills tokens only while it is a "
    "preview."
)


def estimate(active_s: float, sandbox_s: float, stored_bytes: int, own: Mapping[str, float]) -> Json:
    """Return what this much would have cost hosted, tokens apart, in dollars.

    Args:
        active_s: seconds that turns worked.
        sandbox_s: seconds that sandboxes ran.
        stored_bytes: what is kept now, charged for a month.
        own: assumptions that replace ours.
    """
    assumed = {**ASSUMED, **own}
    parts = {
        "sessions_usd": active_s / 3600 * assumed["session_hour_usd"],
        "sandboxes_usd": sandbox_s / 3600 * assumed["sandbox_hour_usd"],
        "storage_usd_a_month": stored_bytes / 1e9 * assumed["gb_month_usd"],
    }
    return {
        **{name: round(value, 6) for name, value in parts.items()},
        "assumed": assumed,
        "as_of": "configuration" if set(own) >= set(ASSUMED) else AS_OF,
        "note": NOTE,
    }
