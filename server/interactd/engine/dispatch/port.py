"""Who runs when, behind a small port. The store is the only truth: a dispatcher holds nothing that it could not be told
again after a restart, and what it calls is idempotent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from interactd.nouns import Json


@dataclass(slots=True, eq=False)
class Ticket:
    """An interaction that is to be attempted. Times are of `boottime()`."""

    id: str
    session_id: str
    provider: str = ""
    priority: int = 0
    """Higher ones go first."""
    background: bool = False
    """Of the same priority, those that somebody waits for go first."""
    at: float = 0.0
    """Not before."""
    until: float | None = None
    """To be given up when it has not begun by then."""
    not_before: float = 0.0
    """`at` as a time of day, for people."""
    why: str = ""
    """The error code that its last attempt ended with, when it is to be tried again."""
    claimed: bool = False
    """It is in progress already (taken over, or answered) and only waits for a slot; its session is its own."""


@dataclass(frozen=True, slots=True)
class After:
    """What an attempt came to."""

    again: Ticket | None = None
    """It is to be tried again, before anything else of its session."""
    blocked: str = ""
    """It could not begin, because of something in its session that is not dispatched here: what."""


Attempt = Callable[[str], Awaitable[After]]
"""Claim the interaction, load its journal and go on with it to its end. Attempting one that runs elsewhere, or is over,
does nothing."""
GiveUp = Callable[[str], Awaitable[None]]
"""End an interaction that was not begun in time."""


class Dispatcher(Protocol):
    """Attempts each submitted interaction: one at a time in a session, in order; by priority, foreground first, and in
    turn between sessions; no more at once than the caps allow."""

    def serve(self, attempt: Attempt, give_up: GiveUp) -> None:
        """Begin. Called once."""
        ...

    def submit(self, ticket: Ticket) -> None:
        """Have it attempted when it is its turn. Submitting one that waits or runs already changes nothing."""
        ...

    def admit(self, ticket: Ticket) -> bool:
        """Take a slot for an interaction that is about to be accepted, if it could begin this moment. Follow it up with
        `submit`, or `cancel` when it was not accepted."""
        ...

    def cancel(self, interaction_id: str) -> None:
        """Do not attempt it (any more). One that is being attempted is stopped by other means."""
        ...

    def nudge(self, session_id: str) -> None:
        """Something in this session has changed that may have been in the way."""
        ...

    def arrange(self, session_id: str, order: list[str]) -> None:
        """Put what waits in a session into this order."""
        ...

    def line(self, session_id: str) -> list[str]:
        """What waits in the session, in order."""
        ...

    def position(self, interaction_id: str) -> int | None:
        """Its place in its session's line, from 1; `None` when it does not wait in one."""
        ...

    def reason(self, interaction_id: str, now: float) -> str:
        """Why it does not run yet, for people; empty when it does not wait. `now` is the time of day."""
        ...

    @property
    def queued(self) -> int:
        """How many wait and are not claimed. Costs nothing."""
        ...

    @property
    def waiting(self) -> list[str]:
        """Everything that waits and is not claimed."""
        ...

    @property
    def sessions(self) -> list[str]:
        """The sessions in which something waits."""
        ...

    def pause(self) -> None:
        """Attempt nothing more."""
        ...

    async def settled(self, timeout_s: float) -> bool:
        """Wait until no attempt is under way; True when none is."""
        ...

    def health(self) -> Json:
        """`{"running", "max_running", "waiting", "delayed", "providers": {name: {"running", "waiting",
        "max_running"?}}}`."""
        ...
