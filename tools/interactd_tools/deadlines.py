"""How long each client waits for a tool, as far as this daemon has seen. In memory: it costs one call to learn."""

from __future__ import annotations

DEFAULT_S = 45.0
"""Hosts cut at 60 s; an answer that comes late is lost and paid for twice."""
MARGIN_S = 2.0
"""Left for the answer to be made and carried."""
SHORTEST_S = 5.0
"""A client that gives up sooner is a person who changed their mind."""
_ROUND_S = 5.0
_WIRE_S = 1.0
_CLIENTS = 1000

_limits: dict[str, float] = {}
_once: dict[str, float] = {}


def cancelled(client_name: str | None, seconds: float) -> None:
    """Note that a client gave up on a waiting call after so many seconds.

    A time limit shows as a round number of seconds, or as the same number twice; anything else is a person who
    pressed stop, and must not shorten every wait from then on.
    """
    if not client_name or not seconds >= SHORTEST_S:
        return
    is_round = seconds % _ROUND_S <= _WIRE_S
    if is_round or abs(_once.get(client_name, -_ROUND_S) - seconds) <= _WIRE_S:
        _limits[client_name] = min(seconds, deadline_for(client_name))
    else:
        _once[client_name] = seconds
    for notes in (_limits, _once):
        # Names come from clients: they must not fill the memory of a daemon that lives for months.
        while len(notes) > _CLIENTS:
            del notes[next(iter(notes))]


def deadline_for(client_name: str | None) -> float:
    """Return the seconds this client leaves for a whole call, our margin not yet taken off."""
    return _limits.get(client_name or "", DEFAULT_S)


def longest_wait(client_name: str | None, deadline_s: float | None = None) -> float:
    """Return the longest a tool may wait before it answers, in seconds.

    Args:
        client_name: whose habits count.
        deadline_s: what the face knows of this very call; the shorter of the two holds.
    """
    limit = deadline_for(client_name)
    if deadline_s is not None:
        limit = min(limit, deadline_s)
    # A margin must not eat a short deadline whole.
    return max(0.0, limit - min(MARGIN_S, limit / 4))


def last_moment(client_name: str | None, deadline_s: float | None = None) -> float:
    """Return the seconds after which an answer, whatever it says, must be on its way; arguments as above."""
    limit = min(deadline_for(client_name), DEFAULT_S if deadline_s is None else deadline_s)
    return (limit + longest_wait(client_name, deadline_s)) / 2


def forget() -> None:
    """Forget what was learned."""
    _limits.clear()
    _once.clear()
