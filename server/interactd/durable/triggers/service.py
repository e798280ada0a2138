"""What people do with triggers: make, show, change, run now, delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, cast

from interactd.durable.checks import check_choice, check_limit, check_name, check_number, check_object, id_of
from interactd.durable.port import Receipt, Turns
from interactd.durable.settings import DurableSettings
from interactd.durable.triggers.deciding import work_of
from interactd.durable.triggers.firing import Firing
from interactd.durable.triggers.timetable import FIELD, one_shot, tidy, timetable
from interactd.durable.triggers.zones import local_zone, zone
from interactd.errors import Conflict, InvalidArgument, NotFound
from interactd.ids import new_id
from interactd.nouns import Caller, Json
from interactd.store.port import IdempotencyKey, Page
from interactd.store.schedules_port import Execution, ScheduleStore, Trigger

STATUSES: Final = ("active", "paused", "error", "completed")
EXECUTION_STATUSES: Final = ("queued", "in_progress", "completed", "failed", "skipped", "timed_out")
_CHANGES: Final = (
    "schedule",
    "time_zone",
    "display_name",
    "work",
    "missed",
    "overlap",
    "max_consecutive_failures",
    "execution_timeout_seconds",
    "status",
)
_TRIES: Final = 5
_RUN_NOW_S: Final = 10.0


class Triggers:
    """The methods of `Schedules` that are about triggers."""

    def __init__(
        self,
        store: ScheduleStore,
        turns: Turns,
        firing: Firing,
        settings: DurableSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._turns = turns
        self._firing = firing
        self._settings = settings
        self._clock = clock

    async def create(
        self,
        *,
        schedule: str,
        work: Json,
        time_zone: str | None,
        display_name: str | None,
        missed: str | None,
        overlap: str,
        max_consecutive_failures: int,
        execution_timeout_seconds: float,
        paused: bool,
        idempotency_key: str | None,
        caller: Caller,
    ) -> Trigger:
        """See `Schedules.create_trigger`."""
        now = self._clock()
        name = time_zone if time_zone is not None else local_zone()
        times = timetable(schedule, zone(name), now)
        trigger = Trigger(
            id=new_id("trigger"),
            owner=caller.owner,
            schedule=tidy(schedule),
            time_zone=name,
            work={},
            created_at=now,
            updated_at=now,
            anchor_at=now,
            display_name=check_name("display_name", display_name),
            status="paused" if paused else "active",
            missed=cast("Any", _missed(missed, schedule)),
            overlap=cast("Any", check_choice("overlap", overlap, ("skip", "queue"))),
            max_consecutive_failures=_failures(max_consecutive_failures),
            execution_timeout_s=_timeout(execution_timeout_seconds),
            last_pause_at=now if paused else None,
            decided_at=now,
            cwd=caller.cwd,
        )
        key = key_of(
            idempotency_key,
            caller,
            call="create_trigger",
            schedule=trigger.schedule,
            time_zone=time_zone,
            display_name=display_name,
            work=work,
            missed=missed,
            overlap=overlap,
            failures=max_consecutive_failures,
            timeout=execution_timeout_seconds,
            paused=paused,
        )
        trigger.next_run_at = None if paused else self._next(times, now)
        trigger.work = await self._turns.check(check_object("work", work), caller)
        started = await self._store.add_trigger(trigger, key, self._settings.max_triggers)
        self._changed(1 if started.created and not paused else 0)
        return trigger if started.created else await self._store.get_trigger(started.id)

    async def get(self, text: str, caller: Caller) -> Trigger:
        """See `Schedules.get_trigger`."""
        return await self._store.get_trigger(await self._id(text, caller))

    async def listing(self, status: str | None, limit: int, cursor: str | None, caller: Caller) -> Page:
        """See `Schedules.list_triggers`."""
        wanted = None if status is None else [check_choice("status", status, STATUSES)]
        return await self._store.list_triggers(
            owner=caller.owner, statuses=wanted, limit=check_limit(limit), cursor=cursor
        )

    async def update(self, text: str, changes: Json, caller: Caller) -> Trigger:
        """See `Schedules.update_trigger`."""
        id = await self._id(text, caller)
        check_object("changes", changes)
        for name in changes:
            if name not in _CHANGES:
                raise InvalidArgument(
                    f"{name:.60}: no such field of a trigger", repair=f"There are {', '.join(_CHANGES)}.", field=name
                )
        for _ in range(_TRIES):
            trigger = await self._store.get_trigger(id)
            revision = trigger.revision
            await self._change(trigger, changes, caller)
            trigger.revision = revision + 1
            if await self._store.put_trigger(trigger, revision):
                self._changed(int(trigger.status == "active"))
                return trigger
        raise Conflict(f"trigger {id} is being changed by somebody else", repair="Make the same call again.", id=id)

    async def _change(self, trigger: Trigger, changes: Json, caller: Caller) -> None:
        now = self._clock()
        if "display_name" in changes:
            trigger.display_name = check_name("display_name", changes["display_name"])
        if "overlap" in changes:
            trigger.overlap = cast("Any", check_choice("overlap", changes["overlap"], ("skip", "queue")))
        if "max_consecutive_failures" in changes:
            trigger.max_consecutive_failures = _failures(changes["max_consecutive_failures"])
        if "execution_timeout_seconds" in changes:
            trigger.execution_timeout_s = _timeout(changes["execution_timeout_seconds"])
        if "work" in changes:
            await self._change_work(trigger, check_object("work", changes["work"]), caller)
        asked = None
        if "status" in changes:
            asked = check_choice("status", changes["status"], ("active", "paused"))
        timed = "schedule" in changes or "time_zone" in changes
        times = None
        if timed:
            schedule, name = changes.get("schedule", trigger.schedule), changes.get("time_zone", trigger.time_zone)
            times = timetable(schedule, zone(name), now)
            if "schedule" in changes and one_shot(schedule) != one_shot(trigger.schedule) and "missed" not in changes:
                trigger.missed = cast("Any", _missed(None, schedule))
            trigger.schedule, trigger.time_zone, trigger.anchor_at = tidy(schedule), name, now
        if "missed" in changes:
            trigger.missed = cast("Any", _missed(changes["missed"], trigger.schedule))
        if asked == "paused" and trigger.status != "paused":
            trigger.status, trigger.last_pause_at, trigger.next_run_at = "paused", now, None
        resumed = asked == "active" and trigger.status != "active"
        if trigger.status == "completed" and timed:
            # Its one time is over; a new one wakes it.
            resumed = asked != "paused"
        if resumed:
            trigger.status, trigger.last_resume_at = "active", now
            trigger.consecutive_failure_count, trigger.error = 0, None
        if trigger.status == "active" and (resumed or timed):
            if times is None:
                times = timetable(trigger.schedule, zone(trigger.time_zone), trigger.anchor_at)
            # What came due while it was paused was not missed: nobody wanted it then.
            trigger.next_run_at, trigger.decided_at = self._next(times, now), now
        trigger.updated_at = now

    async def _change_work(self, trigger: Trigger, changes: Json, caller: Caller) -> None:
        merged = {**trigger.work, **changes}
        if changes.get("model") is not None and "agent" not in changes:
            merged.pop("agent", None)
        if changes.get("agent") is not None and "model" not in changes:
            merged.pop("model", None)
        work = await self._turns.check({name: value for name, value in merged.items() if value is not None}, caller)
        if work.get("environment") != trigger.work.get("environment"):
            trigger.environment_id = None
        if work.get("session") != trigger.work.get("session"):
            trigger.session_id = None
        trigger.work, trigger.cwd = work, caller.cwd or trigger.cwd

    async def run(self, text: str, idempotency_key: str | None, caller: Caller) -> Execution:
        """See `Schedules.run_trigger`."""
        id = await self._id(text, caller)
        trigger = await self._store.get_trigger(id)
        now = self._clock()
        execution = Execution(
            id=new_id("execution"),
            trigger_id=id,
            owner=caller.owner,
            slot="",
            scheduled_at=now,
            status="in_progress",
            cause="manual",
            created_at=now,
            timeout_s=trigger.execution_timeout_s,
            work=work_of(trigger),
            start_at=now,
        )
        execution.slot = f"manual:{execution.id}"
        key = key_of(idempotency_key, caller, call="run_trigger", trigger_id=id)
        started = await self._store.add_execution(execution, key)
        self._changed(1)
        await self._firing.run_now(started.id, _RUN_NOW_S)
        return await self._store.get_execution(started.id)

    async def delete(self, text: str, caller: Caller) -> Receipt:
        """See `Schedules.delete_trigger`."""
        id = await self._id(text, caller)
        now = self._clock()
        counts = await self._store.delete_trigger(id, now)
        self._changed(0)
        return Receipt(id, now, counts)

    async def execution(self, text: str, caller: Caller) -> Execution:
        """See `Schedules.get_execution`."""
        return await self._store.get_execution(await id_of(self._store, "execution", text, caller.owner))

    async def executions(
        self, trigger: str | None, status: str | None, limit: int, cursor: str | None, caller: Caller
    ) -> Page:
        """See `Schedules.list_executions`."""
        wanted = None if status is None else [check_choice("status", status, EXECUTION_STATUSES)]
        limit = check_limit(limit)
        trigger_id = None
        if trigger is not None:
            try:
                trigger_id = await self._id(trigger, caller)
            except NotFound:
                # A deleted one's executions stay, and are found by its whole id.
                trigger_id = trigger.strip().lower()
                found = await self._store.list_executions(owner=caller.owner, trigger_id=trigger_id, limit=1)
                if not found.items:
                    raise
        return await self._store.list_executions(
            owner=caller.owner, trigger_id=trigger_id, statuses=wanted, limit=limit, cursor=cursor
        )

    async def _id(self, text: str, caller: Caller) -> str:
        return await id_of(self._store, "trigger", text, caller.owner)

    def _next(self, times: Any, now: float) -> float:
        due: float | None = times.after(now)
        if due is None:
            raise InvalidArgument(
                f"{FIELD}: this time is over",
                repair="Give a time to come, such as at 2026-12-01T09:00; it is read in time_zone.",
                field=FIELD,
            )
        return due

    def _changed(self, holding: int) -> None:
        # The daemon must not leave between this answer and the loop's next look.
        self._firing.holding = max(self._firing.holding, holding)
        self._firing.bell.ring()


def key_of(given: Any, caller: Caller, **arguments: Any) -> IdempotencyKey | None:
    """Return the key with the digest of the call's other arguments.

    Raises:
        InvalidArgument: it is not 1 to 255 characters.
    """
    if given is None:
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= 255:
        raise InvalidArgument("idempotency_key: expected 1 to 255 characters", field="idempotency_key")
    try:
        body = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError):
        raise InvalidArgument("an argument is not plain JSON") from None
    return IdempotencyKey(given, hashlib.sha256(body.encode()).hexdigest(), caller.owner)


def _missed(given: Any, schedule: str) -> str:
    if given is None:
        # A single moment that was slept through is what somebody waits for; a daily one comes again.
        return "once" if one_shot(schedule) else "skip"
    return check_choice("missed", given, ("skip", "once"))


def _failures(given: Any) -> int:
    return int(check_number("max_consecutive_failures", given, 0, 1_000_000, whole=True))


def _timeout(given: Any) -> float:
    return check_number("execution_timeout_seconds", given, 1, 7 * 86_400)
