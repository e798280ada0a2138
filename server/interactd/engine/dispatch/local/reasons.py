"""Why something waits, in a few words for people."""

from __future__ import annotations

from datetime import datetime

from interactd.engine.dispatch.local.line import Line
from interactd.engine.dispatch.port import Ticket


def reason_of(line: Line, ticket: Ticket, position: int | None, now: float, time_of_day: float) -> str:
    """Say what it waits for.

    Args:
        line: where it waits.
        ticket: what waits.
        position: its place in its session's line; `None` when it has none.
        now: of `boottime`.
        time_of_day: seconds since the epoch.
    """
    if position is not None and (position > 1 or line.busy(ticket.session_id)):
        return f"{ordinal(position)} in line of its session"
    if ticket.at > now:
        left = ticket.at - now
        if ticket.why:
            return f"tries again in {span(left)}: {ticket.why}"
        return f"not before {_time(ticket.not_before or time_of_day + left, time_of_day)}"
    if blocked := line.parked.get(ticket.session_id):
        return f"{ordinal(position or 1)} in line of its session: {blocked}"
    if line.full(ticket.provider):
        return f"waits for one of {_slots(line.caps[ticket.provider])} of {ticket.provider}"
    return f"waits for one of {_slots(line.most)}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def span(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h".replace(".0 h", " h")


def _slots(count: int) -> str:
    return f"{count} slot" + ("" if count == 1 else "s")


def _time(when: float, now: float) -> str:
    at, today = datetime.fromtimestamp(when), datetime.fromtimestamp(now)
    if at.date() == today.date():
        return f"{at:%H:%M:%S}" if when - now < 600 else f"{at:%H:%M}"
    return f"{at:%Y-%m-%d %H:%M}"
