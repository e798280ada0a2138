"""Time zones by name, and which one this machine is in."""

from __future__ import annotations

import difflib
import functools
import zoneinfo
from typing import Any
from zoneinfo import ZoneInfo

import tzlocal

from interactd.errors import InvalidArgument

FIELD = "time_zone"


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def zone(name: Any) -> ZoneInfo:
    """Return the zone of that name.

    Raises:
        InvalidArgument: there is none; the message has near ones.
    """
    if isinstance(name, str) and name in _names() and name not in ("localtime", "Factory"):
        return ZoneInfo(name)
    shown = repr(name)[:60]
    asked = name.strip().lower().replace(" ", "_")[:80] if isinstance(name, str) else ""
    lower = {one.lower(): one for one in _names()}
    hint = [lower[one] for one in difflib.get_close_matches(asked, lower, n=3, cutoff=0.6)] if asked else []
    if asked in lower:
        hint = [lower[asked]]
    raise InvalidArgument(
        f"{FIELD}: {shown} is not a time zone",
        repair=f"Did you mean {', '.join(hint)}?" if hint else 'Use an IANA name such as "Europe/Berlin", or "UTC".',
        field=FIELD,
    )


def local_zone() -> str:
    """Return the IANA name of this machine's zone; UTC where that cannot be told."""
    try:
        name = tzlocal.get_localzone_name()
    except Exception:  # noqa: BLE001 - it reads whatever the system has; no zone is answer enough
        return "UTC"
    return name if name in _names() else "UTC"
