"""When schedules are due, above all where the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interactd.durable.triggers.timetable import Every, count, latest, one_shot, timetable
from interactd.durable.triggers.zones import local_zone, zone
from interactd.errors import InvalidArgument

NEW_YORK, BERLIN, LORD_HOWE = "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"


def due(schedule: str, name: str, since: str, number: int) -> list[str]:
    """The next due times in the zone, as `MM-DDTHH:MM+offset`."""
    z = zone(name)
    at: float | None = datetime.fromisoformat(since).replace(tzinfo=z).timestamp()
    times = timetable(schedule, z, at or 0)
    out: list[str] = []
    for _ in range(number):
        at = times.after(at or 0)
        assert at is not None
        out.append(datetime.fromtimestamp(at, z).isoformat(timespec="minutes")[5:])
    return out


@pytest.mark.parametrize(
    ("schedule", "name", "since", "expected"),
    [
        # Spring: 02:30 is left out, so the job runs when the change is over, once, and the day after as ever.
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08T03:00-04:00", "03-09T02:30-04:00"]),
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:30+02:00"]),
        # Half an hour is left out.
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04T02:30+11:00", "10-05T02:15+11:00"]),
        # Two jobs of the gap fall on one time, which is due once.
        ("0,30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08T03:00-04:00", "03-09T02:00-04:00"]),
        # Autumn: 01:30 comes twice, and the job runs at the first.
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01T01:30-04:00", "11-02T01:30-05:00"]),
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25T02:30+02:00", "10-26T02:30+01:00"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05T01:45+11:00", "04-06T01:45+10:30"]),
        # A job around the change is where it always is.
        ("0 9 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08T09:00-04:00", "03-09T09:00-04:00"]),
        ("0 9 * * *", BERLIN, "2026-10-24T12:00", ["10-25T09:00+01:00", "10-26T09:00+01:00"]),
    ],
)
def test_a_daily_job_runs_once_on_the_days_on_which_the_clocks_change(
    schedule: str, name: str, since: str, expected: list[str]
) -> None:
    assert due(schedule, name, since, 2) == expected


def test_an_hourly_job_follows_real_time_through_both_changes() -> None:
    spring = due("@hourly", NEW_YORK, "2026-03-08T00:30", 3)
    assert spring == ["03-08T01:00-05:00", "03-08T03:00-04:00", "03-08T04:00-04:00"]
    autumn = due("0 * * * *", NEW_YORK, "2026-11-01T00:30", 3)
    assert autumn == ["11-01T01:00-04:00", "11-01T01:00-05:00", "11-01T02:00-05:00"]
    half = due("*/30 * * * *", LORD_HOWE, "2026-04-05T01:10", 4)
    assert half == ["04-05T01:30+11:00", "04-05T01:30+10:30", "04-05T02:00+10:30", "04-05T02:30+10:30"]


@pytest.mark.parametrize("minute", [10, 40])
def test_in_a_repeated_hour_no_time_that_is_over_comes_next(minute: int) -> None:
    z = ZoneInfo(NEW_YORK)
    second = datetime(2026, 11, 1, 1, minute, tzinfo=z, fold=1).timestamp()
    found = timetable("30 1 * * *", z, second).after(second)
    assert found is not None
    assert datetime.fromtimestamp(found, z).isoformat() == "2026-11-02T01:30:00-05:00"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("@daily", ["01-02T00:00+00:00", "01-03T00:00+00:00"]),
        ("@midnight", ["01-02T00:00+00:00", "01-03T00:00+00:00"]),
        ("@Weekly", ["01-04T00:00+00:00", "01-11T00:00+00:00"]),
        ("@monthly", ["02-01T00:00+00:00", "03-01T00:00+00:00"]),
        ("@yearly", ["01-01T00:00+00:00", "01-01T00:00+00:00"]),
        ("  0   9 * *  MON-FRI ", ["01-01T09:00+00:00", "01-02T09:00+00:00"]),
        ("every 90m", ["01-01T02:00+00:00", "01-01T03:30+00:00"]),
        ("every 1 day", ["01-02T00:30+00:00", "01-03T00:30+00:00"]),
        ("Every hour", ["01-01T01:30+00:00", "01-01T02:30+00:00"]),
        ("every 1h 30m", ["01-01T02:00+00:00", "01-01T03:30+00:00"]),
    ],
)
def test_every_form_is_read(schedule: str, expected: list[str]) -> None:
    assert due(schedule, "UTC", "2026-01-01T00:30", 2) == expected


def test_a_moment_is_due_once_and_read_in_its_zone() -> None:
    z = zone(BERLIN)
    times = timetable("at 2026-12-01T09:00", z, 0)
    assert times.after(0) == datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()
    assert times.after(datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()) is None
    assert timetable("AT 2026-12-01 09:00", z, 0).after(0) == times.after(0)
    assert timetable("at 2026-12-01T09:00+00:00", z, 0).after(0) == datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp()
    # 02:30 is left out on this day.
    gap = timetable("at 2026-03-29T02:30", z, 0).after(0)
    assert gap == datetime(2026, 3, 29, 3, 30, tzinfo=z).timestamp()
    assert one_shot("At 2026-12-01T09:00")
    assert not one_shot("@daily")


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("", "expected a schedule as text"),
        (None, "expected a schedule as text"),
        (7, "expected a schedule as text"),
        ("* * * *", "expected five fields (minute hour day month weekday), got 4"),
        ("* * * * * *", "expected five fields (minute hour day month weekday), got 6"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 0 * *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("@reboot", "not a known nickname"),
        ("every", 'expected "every" and a time'),
        ("every 30s", "the shortest interval is one minute"),
        ("every 0m", "the shortest interval is one minute"),
        ("every 2 fortnights", "is not a unit of time"),
        ("every 9999d", "the longest interval is 366 days"),
        ("every -5m", 'expected "every" and a time'),
        ("at tomorrow", 'expected "at" and a time'),
        ("at 2026-13-01T09:00", 'expected "at" and a time'),
        ("x" * 500, "longer than 200 characters"),
        ("daily at nine", "expected five fields"),
        ("\x00 * * * *", "bad minute"),
    ],
)
def test_what_is_no_schedule_is_refused_in_words(schedule: object, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        timetable(schedule, zone("UTC"), 0)
    assert said in caught.value.message
    assert caught.value.fields["field"] == "schedule"
    assert "five cron fields" in (caught.value.repair or "")


@pytest.mark.parametrize(
    ("name", "repair"),
    [
        ("europe/berlin", "Did you mean Europe/Berlin?"),
        ("Europe/Berlim", "Did you mean Europe/Berlin"),
        ("America/New York", "Did you mean America/New_York?"),
        ("nowhere at all", "Use an IANA name"),
        ("../../etc/passwd", "Use an IANA name"),
        ("", "Use an IANA name"),
        (5, "Use an IANA name"),
    ],
)
def test_what_is_no_time_zone_is_refused_with_near_ones(name: object, repair: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        zone(name)
    assert (caught.value.repair or "").startswith(repair)


def test_this_machines_zone_is_one_there_is() -> None:
    assert zone(local_zone())


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(
        ["*/7 * * * *", "30 2 * * *", "@hourly", "0 9 * * 1", "every 90m", "0 0 29 2 *", "@yearly"]
    ),
    name=st.sampled_from([NEW_YORK, BERLIN, LORD_HOWE, "UTC"]),
    begin=st.integers(1_760_000_000, 1_800_000_000),
    length=st.integers(0, 20 * 86_400),
)
def test_the_latest_due_time_is_the_one_that_stepping_finds(schedule: str, name: str, begin: int, length: int) -> None:
    times = timetable(schedule, zone(name), float(begin))
    first = times.after(begin)
    assert first is not None
    now = first + length
    last, number = first, 1
    while (following := times.after(last)) is not None and following <= now and number < 5000:
        assert following > last
        last, number = following, number + 1
    assert latest(times, first, now) == last
    assert count(times, first, now) == (number if isinstance(times, Every) else min(number, 1000))
