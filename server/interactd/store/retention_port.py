"""What the store does for those who look after what is kept: sizes, old notes, what deleted sessions leave outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from interactd.nouns import Json
from interactd.store.port import Receipt


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many old notes one call removed."""

    keys: int = 0
    tombstones: int = 0
    artifacts: int = 0

    @property
    def any(self) -> bool:
        return bool(self.keys or self.tombstones or self.artifacts)


class Retention(Protocol):
    """Every method is a transaction, as in `interactd.store.port`."""

    async def receipt(self, session_id: str) -> Receipt | None:
        """A deleted session's receipt as it stands now: `pending` until nothing of the session is left anywhere."""
        ...

    async def leftovers(self) -> dict[str, Json]:
        """What sessions that are gone left outside of the store and no session refers to any more: session id ->
        `{"environments": [ids], "agents": [hashes]}`."""
        ...

    async def settle(self, session_id: str, removed: dict[str, int]) -> None:
        """It is gone: off the note, and into the receipt."""
        ...

    async def amend(self, session_id: str, removed: dict[str, int]) -> None:
        """Add to a receipt what else was removed."""
        ...

    async def pinned_agents(self) -> set[str]:
        """Hashes that some session pins or an open turn runs with."""
        ...

    async def trim(
        self, *, keys_before: float, tombstones_before: float, artifacts_before: float = 0, limit: int = 500
    ) -> Trimmed:
        """Remove a few idempotency keys, tombstones (environments' too) and artifacts older than these times."""
        ...

    async def sizes(self) -> Json:
        """`{"bytes", "wal_bytes", "free_bytes" (unused inside the file), "disk_free_bytes", "spare_bytes", "rows":
        {table: count}, "pending"}`; `pending` is the housekeeping that a delete left to be done, or None."""
        ...

    async def expiring(self, now: float, owner: str) -> Json:
        """What would be removed when: `{"sessions": {"overdue", "day", "week", "later", "never"}, "environments":
        {...}, "next": [{"session_id", "title", "expires_at"}] (up to 5)}`."""
        ...

    async def vacuum(self) -> Json:
        """Rewrite the file without its unused parts: `{"before_bytes", "after_bytes", "seconds"}`.

        Raises:
            StorageFull: there is no room for the copy that it takes on the way; nothing was changed.
        """
        ...
