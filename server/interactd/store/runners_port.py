"""Who works on a store: daemons that join it, keep a lease by giving signs of life, and leave or die.

An interaction that is queued or runs belongs to a runner. Others leave it alone until its runner is gone, or has been
silent for its whole lease; then they may take it, which raises its epoch, and whatever the first one still writes is
refused as `Fenced`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interactd.nouns import Status


@dataclass(slots=True)
class Runner:
    """A daemon that works on this store, as another one sees it."""

    id: str
    started_at: float
    version: str = ""
    pid: int = 0
    lease_s: float = 30.0
    """How long it may be silent before others may take what it runs."""
    beat_at: float = 0.0
    silent_s: float = 0.0
    """Since its last beat, by a clock that nobody sets and that runs while the machine sleeps."""
    gone: bool = False
    """Whether its process has ended. False where that cannot be told."""


@dataclass(frozen=True, slots=True)
class Claim:
    """How an interaction stands: whether a runner still has it."""

    epoch: int
    status: Status
    cancel_asked: bool = False


class Runners(Protocol):
    """The runners of one store."""

    async def join(self, runner: Runner) -> None:
        """Become a runner until `leave`: `accept` and `claim` note it as the owner of what they take, and renew its
        lease in the same transaction when that is due. The end of the process ends it too.

        Raises: StorageError, StorageFull.
        """
        ...

    async def leave(self) -> None:
        """Be none any more: others may take what is left. Idempotent."""
        ...

    async def renew(self) -> None:
        """Give a sign of life."""
        ...

    @property
    def lease_left_s(self) -> float:
        """How long this runner's claims are safe from others without `renew`; at most 0 when they are not."""
        ...

    @property
    def changed(self) -> object:
        """A value that is another one when a runner may have come or gone. Costs no query."""
        ...

    async def list(self) -> list[Runner]:
        """All runners, this one included. Those that are gone stay until `bury`."""
        ...

    async def bury(self, runner_id: str) -> None:
        """Forget a runner that is gone."""
        ...

    async def claims(self, interaction_ids: Sequence[str]) -> dict[str, Claim]:
        """How these interactions stand; those that are no more are left out."""
        ...

    async def take_queued(self, interaction_id: str, was: str | None) -> bool:
        """Become the owner of a queued interaction of the runner `was`; False if it is not that any more."""
        ...

    async def ask_cancel(self, interaction_id: str, now: float) -> None:
        """Leave word for whoever runs the interaction that it is to be cancelled."""
        ...
