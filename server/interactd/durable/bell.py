"""Waiting for a time or for news, whichever comes first."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung when something may have become due; several rings before anybody looks are one."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake who waits, or who waits next."""
        self._rung.set()

    async def wait(self, seconds: float | None) -> None:
        """Return when it was rung since the last `wait`, or after so many seconds (`None`: only when rung)."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._rung.clear()
