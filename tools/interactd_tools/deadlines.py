"""How long each client waits for a tool, as far as this daemon has seen. In memory: it costs one call to learn."""

from __future__ import annotations

DEFAULT_S = 45.0
"""Hosts cut at 60 s; an answer that comes late is lost and paid for twice."""
MARGIN_S = 2.0
"""Left for the answer to be made and carried."""
FLOOR_S = 5.0
"""A person who presses cancel must not teach us that the host never waits."""

_seen: dict[str, float] = {}


def cancelled(client_name: str | None, seconds: float) -> None:
    """Note that a client gave up on a waiting call after so many seconds.

    Only what looks like a client's own time limit counts: a cancel before `FLOOR_S`, or at a moment that is no
    whole multiple of five seconds, is a person.
    """
    if not client_name or seconds < FLOOR_S:
        return
    # Time limits are round numbers; a round number plus the delay of the wire is still near one.
    if seconds % 5 > 1.0:
        return
    _seen[client_name] = min(seconds, _seen.get(client_name, DEFAULT_S))


def deadline_for(client_name: str | None) -> float:
    """Return the seconds this client leaves for a whole call (without our margin taken off)."""
    return _seen.get(client_name or "", DEFAULT_S)


def longest_wait(client_name: str | None, deadline_s: float | None = None) -> float:
    """Return the longest a tool may wait before it answers, in seconds.

    Args:
        client_name: whose habits count.
        deadline_s: what the face knows of this very call; the shorter of the two holds.
    """
    limit = deadline_for(client_name)
    if deadline_s is not None:
        limit = min(limit, deadline_s)
    return max(0.0, limit - MARGIN_S)


def forget() -> None:
    """Forget what was learned."""
    _seen.clear()
