"""What becomes of a trigger whose time has come: worked out here, carried out by the store."""

from __future__ import annotations

from interactd.durable.settings import DurableSettings
from interactd.durable.triggers.timetable import Timetable, count, latest, timetable
from interactd.durable.triggers.zones import zone
from interactd.ids import new_id
from interactd.nouns import Json
from interactd.store.schedules_port import Cause, Decision, Execution, Trigger

LABEL = "trigger"
"""The label of a run's session that has the trigger's id."""


def times_of(trigger: Trigger) -> Timetable:
    """The trigger's times. Raises: InvalidArgument, where its zone is no longer known on this machine."""
    return timetable(trigger.schedule, zone(trigger.time_zone), trigger.anchor_at)


def decide(trigger: Trigger, now: float, settings: DurableSettings) -> Decision:
    """Say what is to be recorded and started for a trigger, and when it is due next.

    The last time that is due is on time if it is not later than the grace; every other one was missed. Missed times
    are skipped, with one record for all of them, or made up for by one run: the one that is on time where there is
    one.
    """
    times = times_of(trigger)
    decision = Decision(trigger.id, trigger.revision, trigger.next_run_at, times.after(now), now)
    due = trigger.next_run_at
    if due is None or due > now:
        # The clock went back: what is due next is worked out anew, from a little before now, because the clock may have
        # been wrong for a while. What has a record is not done again.
        since = now if now < trigger.updated_at else max(now - settings.grace_s, trigger.updated_at)
        decision.next_run_at = times.after(since)
        return decision
    last = latest(times, due, now)
    on_time = now - last <= settings.grace_s
    until = last
    if on_time:
        before = _before(times, due, last)
        if before is None:
            decision.executions = [_run(trigger, last, now, "schedule")]
            return decision
        until = before
    details = {"count": count(times, due, until), "from": due, "to": until}
    if trigger.missed == "skip":
        decision.executions.append(_missed(trigger, until, now, details))
    if on_time or trigger.missed == "once":
        run = _run(trigger, last, now, "schedule" if on_time else "catch_up")
        run.details = details if trigger.missed == "once" else None
        decision.executions.append(run)
    return decision


def _before(times: Timetable, due: float, last: float) -> float | None:
    """The last due time in `[due, last)`; `None` when there is none."""
    return None if last <= due else latest(times, due, last - 0.001)


def slot_of(scheduled_at: float) -> str:
    """The name of a due time within its trigger."""
    return f"at:{scheduled_at:.3f}"


def work_of(trigger: Trigger) -> Json:
    """What a run of it does: its sessions are told apart by its name and by a label with its id."""
    labels = {**trigger.work.get("labels", {}), LABEL: trigger.id}
    work: Json = {**trigger.work, "labels": labels}
    if trigger.display_name and not work.get("title"):
        work["title"] = trigger.display_name
    return work


def _run(trigger: Trigger, scheduled_at: float, now: float, cause: Cause) -> Execution:
    return Execution(
        id=new_id("execution"),
        trigger_id=trigger.id,
        owner=trigger.owner,
        slot=slot_of(scheduled_at),
        scheduled_at=scheduled_at,
        status="in_progress",
        cause=cause,
        created_at=now,
        timeout_s=trigger.execution_timeout_s,
        work=work_of(trigger),
        start_at=now,
    )


def _missed(trigger: Trigger, scheduled_at: float, now: float, details: dict[str, float]) -> Execution:
    missed = _run(trigger, scheduled_at, now, "schedule")
    missed.status, missed.start_at, missed.finished_at = "skipped", None, now
    missed.reason, missed.details, missed.work = "missed", dict(details), {}
    return missed
