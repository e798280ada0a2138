"""Time zones by name, and which one this machine is in."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from typing import Any
from zoneinfo import ZoneInfo

import tzlocal

from interactd.errors import InvalidArgument

FIELD = "time_zone"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,79}")
_NONE = ("localtime", "Factory", "posixrules")


def zone(name: Any) -> ZoneInfo:
    """Return the zone of that name.

    Raises:
        InvalidArgument: there is none; the message has near ones.
    """
    if isinstance(name, str) and _NAME.fullmatch(name) and name not in _NONE:
        try:
            return ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            near = _near(name)
    else:
        near = _near(name) if isinstance(name, str) else []
    raise InvalidArgument(
        f"{FIELD}: {name!r:.60} is not a time zone",
        repair=f"Did you mean {', '.join(near)}?" if near else 'Use an IANA name such as "Europe/Berlin", or "UTC".',
        field=FIELD,
    )


def _near(name: str) -> list[str]:
    asked = name.strip().lower().replace(" ", "_")[:80]
    known = {one.lower(): one for one in zoneinfo.available_timezones()}
    if asked in known:
        return [known[asked]]
    return [known[one] for one in difflib.get_close_matches(asked, known, n=3, cutoff=0.6)]


def local_zone() -> str:
    """Return the IANA name of this machine's zone; UTC where that cannot be told."""
    try:
        name = tzlocal.get_localzone_name()
    except Exception:  # noqa: BLE001 - it reads whatever the system has; no zone is answer enough
        return "UTC"
    try:
        return "UTC" if name == "Etc/UTC" else zone(name).key
    except InvalidArgument:
        return "UTC"
