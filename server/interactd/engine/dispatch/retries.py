"""When an attempt that failed is made again, and after how long. Pure, but for chance."""

from __future__ import annotations

import random
from typing import Final

from interactd.nouns import Json

RETRYABLE: Final = frozenset(
    {"rate_limited", "provider_unavailable", "provider_timeout", "stream_truncated", "sandbox_failed"}
)
"""Codes of errors that may be gone in a while. Everything else would only fail, or cost, again."""
BASE_S: Final = 2.0
LONGEST_S: Final = 300.0
LONGEST_ASKED_S: Final = 6 * 3600.0
"""A provider that wants us to wait longer than this is not waited for."""


def pause_before(error: Json, retries: int, most: int) -> float | None:
    """Seconds to wait before the attempt is made again; `None` when it is not to be.

    Args:
        error: what the attempt ended with.
        retries: how often it was tried again before, without getting on.
        most: how often it may be.
    """
    if retries >= most or error.get("code") not in RETRYABLE:
        return None
    # Half of it is chance, so that those that failed together do not come back together.
    pause = min(LONGEST_S, BASE_S * 2**retries) * random.uniform(0.5, 1.0)
    asked = error.get("retry_after_s")
    if not isinstance(asked, int | float):
        return pause
    return None if asked > LONGEST_ASKED_S else max(pause, asked * random.uniform(1.0, 1.1))
