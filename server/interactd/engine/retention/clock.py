"""Whether the time of day can be believed enough to delete by it.

A machine whose clock is wrong by a day would otherwise delete a day's sessions at once. So the store notes the time
that was last seen, and how long the machine had been up then. Where more time has gone by the clock than the machine's
uptime explains, nothing is deleted for a while: a wrong clock is usually put right within minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from interactd.errors import InteractdError
from interactd.nouns import Json

log = logging.getLogger(__name__)

JUMP_S: Final = 3600.0
"""More unexplained time than this is doubted."""
GRACE_S: Final = 3600.0
_NAME: Final = "retention.clock"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Settings(Protocol):
    """The part of the store that is needed here."""

    async def get_setting(self, name: str) -> Any: ...
    async def put_setting(self, name: str, value: Any) -> None: ...


def uptime() -> tuple[str, float]:
    """Return which boot this is, and the seconds since (time asleep included where the system tells)."""
    try:
        return _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        # Another process on such a system cannot be told from another boot: then only this process's time counts.
        return f"process {_STARTED}", time.monotonic()


_STARTED: Final = time.time_ns()


class ClockWatch:
    """Looks at the clock once a minute; `trusted` says whether what is over by it may be deleted."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        since_boot: Callable[[], tuple[str, float]] = uptime,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self._clock = clock
        self._since_boot = since_boot
        self._grace_s = grace_s
        self.trusted = False
        self.doubted_until: float | None = None
        """Seconds of uptime until which nothing is deleted, while the clock is doubted."""

    async def look(self, store: Settings) -> bool:
        """Compare the clock with what was noted, and note what it says now; returns `trusted`."""
        boot, up = self._since_boot()
        now = self._clock()
        last: Json | None = await store.get_setting(_NAME)
        if last is not None and self._unexplained(last, boot, up, now) > JUMP_S:
            until = last.get("doubted_until")
            if until is None or last.get("doubted_boot") != boot:
                until = up + self._grace_s
                log.warning(
                    "the clock is %.0f s ahead of what is explained; nothing is deleted for now", now - last["at"]
                )
                await self._note(store, {**last, "doubted_until": until, "doubted_boot": boot})
            if up < until:
                self.trusted, self.doubted_until = False, until
                return False
        self.trusted, self.doubted_until = True, None
        await self._note(store, {"at": now, "boot": boot, "up": up})
        return True

    def _unexplained(self, last: Json, boot: str, up: float, now: float) -> float:
        # After another boot the machine was off for nobody knows how long: only its uptime is explained.
        explained = up - last["up"] if last["boot"] == boot else up
        return (now - last["at"]) - max(explained, 0.0)

    async def _note(self, store: Settings, note: Json) -> None:
        try:
            await store.put_setting(_NAME, note)
        except InteractdError as error:
            log.debug("the time could not be noted: %s", error)
