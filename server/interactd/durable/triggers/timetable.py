"""When a schedule is due: cron, `every 2h`, or `at 2026-12-01T09:00`, in a time zone.

Cron lines are read and stepped through by cronsim, which does what Debian's cron does when the clocks change: a job at
a time that the spring change leaves out runs when the change is over, one at a time that the autumn change repeats runs
once, and one whose minute or hour begins with a star follows real time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from interactd.errors import InvalidArgument

FIELD: Final = "schedule"
MIN_INTERVAL_S: Final = 60
MAX_INTERVAL_S: Final = 366 * 86_400
MAX_TEXT: Final = 200
COUNTED: Final = 1000
"""Missed times are counted up to this."""
NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"every\s+((?:\d+\s*[a-z]+\s*)+|minute|hour|day|week)", re.IGNORECASE)
_PART = re.compile(r"(\d+)\s*([a-z]+)", re.IGNORECASE)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_WORDS: Final = {
    **{word: "s" for word in ("s", "sec", "secs", "second", "seconds")},
    **{word: "m" for word in ("m", "min", "mins", "minute", "minutes")},
    **{word: "h" for word in ("h", "hr", "hrs", "hour", "hours")},
    **{word: "d" for word in ("d", "day", "days")},
    **{word: "w" for word in ("w", "week", "weeks")},
}
_EXPECTED: Final = (
    'Use five cron fields such as "0 9 * * 1-5", @hourly, @daily, @weekly, @monthly or @yearly, "every 2h", or '
    '"at 2026-12-01T09:00".'
)


class Timetable(Protocol):
    """The times at which something is due, in seconds since the epoch."""

    def after(self, moment: float) -> float | None:
        """Return the first one that is later than `moment`; `None` when there is none any more."""
        ...


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields in a zone."""

    line: str
    zone: ZoneInfo

    def after(self, moment: float) -> float | None:
        zone = UTC if self.zone.key == "UTC" else self.zone
        # cronsim goes on from the second it is given, and in a repeated hour it may name a time that is over.
        for found in CronSim(self.line, datetime.fromtimestamp(int(moment // 1), zone)):
            if found.timestamp() > moment:
                return found.timestamp()
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval from a fixed moment, by real time: `every 1d` is 24 hours, whatever the clocks do."""

    seconds: float
    anchor: float

    def after(self, moment: float) -> float | None:
        if moment < self.anchor:
            return self.anchor + self.seconds
        passed = int((moment - self.anchor) // self.seconds)
        found = self.anchor + (passed + 1) * self.seconds
        return found if found > moment else found + self.seconds


@dataclass(frozen=True, slots=True)
class Once:
    """One moment."""

    moment: float

    def after(self, moment: float) -> float | None:
        return self.moment if self.moment > moment else None


def timetable(schedule: Any, zone: ZoneInfo, anchor: float) -> Timetable:
    """Read a schedule.

    Args:
        schedule: see the module.
        zone: for cron and for an `at` without an offset of its own.
        anchor: what `every` counts from.

    Raises:
        InvalidArgument: it is none of the forms; the message says what is wrong with it.
    """
    if not isinstance(schedule, str) or not schedule.strip():
        raise _wrong("expected a schedule as text", schedule)
    text = " ".join(schedule.split())
    if len(text) > MAX_TEXT:
        raise InvalidArgument(f"{FIELD}: longer than {MAX_TEXT} characters", repair=_EXPECTED, field=FIELD)
    low = text.lower()
    if low.startswith("every"):
        return Every(_interval(text), anchor)
    if low.startswith("at "):
        return Once(_moment(text[3:].strip(), zone))
    if low.startswith("@"):
        if low not in NICKNAMES:
            raise _wrong("this is not a known nickname", text)
        return Cron(NICKNAMES[low], zone)
    fields = text.split(" ")
    if len(fields) != 5:
        raise _wrong(f"expected five fields (minute hour day month weekday), got {len(fields)}", text)
    cron = Cron(text, zone)
    try:
        due = cron.after(anchor)
    except (CronSimError, ValueError, OverflowError) as error:
        raise _wrong((str(error) or "not a cron line").lower(), text) from None
    if due is None:
        raise _wrong("this is never due in the next fifty years", text)
    return cron


def one_shot(schedule: str) -> bool:
    """Whether a schedule is due once only."""
    return schedule.strip().lower().startswith("at ")


def tidy(schedule: str) -> str:
    """Return a schedule as it is kept and shown."""
    return " ".join(schedule.split())


def latest(times: Timetable, since: float, now: float) -> float:
    """Return the last due time in `[since, now]`, where `since` is one. Costs about the same however long ago."""
    window = 3600.0
    while True:
        start = now - window
        if start <= since:
            return _last(times, since, now)
        if (first := times.after(start)) is not None and first <= now:
            return _last(times, first, now)
        window *= 4


def _last(times: Timetable, first: float, now: float) -> float:
    found = first
    # A window is at most four times as long as one without any, so there are few; a dense schedule has one a minute.
    while (following := times.after(found)) is not None and following <= now:
        found = following
    return found


def count(times: Timetable, since: float, until: float) -> int:
    """Count the due times in `[since, until]`, where `since` is one; stops at `COUNTED`."""
    if isinstance(times, Every):
        return int((until - since) // times.seconds) + 1
    number, at = 1, since
    while number < COUNTED and (following := times.after(at)) is not None and following <= until:
        number, at = number + 1, following
    return number


def _interval(text: str) -> float:
    match = _EVERY.fullmatch(text)
    if match is None:
        raise _wrong('expected "every" and a time such as 30m, 2h or 1d', text)
    body = match[1].lower()
    seconds = 0.0
    for number, word in _PART.findall(body if body[0].isdigit() else f"1{body}"):
        if word not in _WORDS:
            raise _wrong(f"{word!r:.20} is not a unit of time (m, h, d, w)", text)
        seconds += int(number) * _UNITS[_WORDS[word]]
    if seconds < MIN_INTERVAL_S:
        raise _wrong("the shortest interval is one minute", text)
    if seconds > MAX_INTERVAL_S:
        raise _wrong("the longest interval is 366 days", text)
    return seconds


def _moment(text: str, zone: ZoneInfo) -> float:
    try:
        given = datetime.fromisoformat(text.replace(" ", "T", 1))
    except ValueError:
        raise _wrong('expected "at" and a time such as 2026-12-01T09:00', text) from None
    if given.tzinfo is None:
        # A time that the spring change leaves out becomes the one as much later; a repeated one is its first.
        given = given.replace(tzinfo=zone)
    try:
        return given.timestamp()
    except (OverflowError, ValueError):
        raise _wrong("this time is out of range", text) from None


def _wrong(problem: str, given: object) -> InvalidArgument:
    return InvalidArgument(f"{FIELD}: {problem}: {given!r:.80}", repair=_EXPECTED, field=FIELD)
