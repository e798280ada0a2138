"""Triggers: fired once for each time, whatever the clock and the last run do; changed, run by hand, stopped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.kit import QUICK, Rig, rig, until
from engine.kit import ScriptedModel
from interactd.errors import (
    Conflict,
    InvalidArgument,
    KeyRefused,
    NotFound,
    UnknownModel,
)
from interactd.nouns import Caller

pytestmark = pytest.mark.anyio

MINUTE = 60.0


def on_the_five(rig: Rig) -> float:
    """The clock's next multiple of five minutes."""
    return (rig.clock() // 300 + 1) * 300


async def test_a_due_time_starts_one_turn_in_a_session_of_its_own(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(display_name="Tidy up", work={"title": "Tidying", "labels": {"kind": "tidy"}})
        assert trigger.status == "active"
        assert trigger.next_run_at == on_the_five(r)
        assert r.schedules.holding == 1
        r.clock.now = on_the_five(r) + 1
        (done,) = await r.ran(trigger.id, 1)
        assert (done.status, done.cause, done.scheduled_at) == ("completed", "schedule", trigger.next_run_at)
        result = await r.engine.get_interaction(done.interaction_id or "")
        assert result.interaction.background
        assert result.session.title == "Tidying"
        assert result.session.labels == {"kind": "tidy", "trigger": trigger.id}
        assert done.work == {}
        assert result.session.ttl_s == 7 * 86_400
        after = await r.schedules.get_trigger(trigger.id)
        assert after.next_run_at == (trigger.next_run_at or 0) + 300
        assert after.last_run_at is not None
        r.clock.now += 300
        second = (await r.ran(trigger.id, 2))[1]
        assert second.session_id != done.session_id
        assert len(r.model.requests) == 2


async def test_the_same_session_is_gone_on_in_where_that_was_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(work={"session": "same"})
        for number in (1, 2, 3):
            r.clock.now = on_the_five(r) + 1
            await r.ran(trigger.id, number)
        runs = await r.executions(trigger.id)
        assert len({one.session_id for one in runs}) == 1
        session, turns = await r.engine.transcript(runs[0].session_id or "")
        assert len(turns) == 3
        assert session.ttl_s is None
        fixed = await r.engine.create_session(model="m1")
        other = await r.trigger(work={"session": fixed.id[:20]})
        ran = await r.schedules.run_trigger(other.id)
        assert ran.session_id == fixed.id


async def test_times_that_were_missed_are_skipped_with_one_record(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        first = on_the_five(r)
    async with rig(tmp_path, clock=r.clock, start=False) as late:
        late.clock.now = first + 3600 + 200
        await late.engine.start()
        (missed,) = await late.ran(trigger.id, 1)
        assert (missed.status, missed.reason, missed.interaction_id) == ("skipped", "missed", None)
        assert missed.details == {"count": 13, "from": first, "to": first + 3600}
        assert (await late.schedules.get_trigger(trigger.id)).next_run_at == first + 3900
        assert late.model.requests == []


async def test_missed_times_are_made_up_for_once_where_that_was_chosen(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(missed="once")
        first = on_the_five(r)
    async with rig(tmp_path, clock=r.clock, start=False) as late:
        late.clock.now = first + 3600 + 200
        await late.engine.start()
        (run,) = await late.ran(trigger.id, 1)
        assert (run.status, run.cause, run.scheduled_at) == ("completed", "catch_up", first + 3600)
        assert run.details == {"count": 13, "from": first, "to": first + 3600}
        assert len(late.model.requests) == 1
        late.clock.now = first + 3900
        assert [one.cause for one in await late.ran(trigger.id, 2)] == ["catch_up", "schedule"]


@pytest.mark.parametrize("missed", ["skip", "once"])
async def test_a_time_within_the_grace_is_on_time_and_counts_for_those_before_it(tmp_path: Path, missed: str) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(missed=missed)
        first = on_the_five(r)
    async with rig(tmp_path, clock=r.clock, start=False) as late:
        late.clock.now = first + 600 + 100
        await late.engine.start()
        found = await late.ran(trigger.id, 2 if missed == "skip" else 1)
        assert [(one.status, one.scheduled_at) for one in found] == (
            [("skipped", first + 300), ("completed", first + 600)] if missed == "skip" else [("completed", first + 600)]
        )
        assert found[-1].cause == "schedule"
        assert len(late.model.requests) == 1


async def test_a_clock_that_goes_back_fires_nothing_again_and_one_that_jumps_forward_misses(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        first = on_the_five(r)
        for number in (1, 2, 3):
            r.clock.now = first + (number - 1) * 300 + 1
            await r.ran(trigger.id, number)
        # Back a quarter of an hour before the first: those three times come again, and nothing happens at them.
        r.clock.now = first - 1000
        await until(lambda: _next_is(r, trigger.id, first - 900))
        for number, at in enumerate((first - 900, first - 600, first - 300)):
            r.clock.now = at + 1
            assert (await r.ran(trigger.id, 4 + number))[3 + number].scheduled_at == at
        for number in (1, 2, 3):
            r.clock.now = first + (number - 1) * 300 + 1
            await r.looked()
        assert len(await r.executions(trigger.id)) == 6
        assert len(r.model.requests) == 6
        r.clock.now = first + 900 + 1
        assert (await r.ran(trigger.id, 7))[6].status == "completed"
        # A year on by mistake, and back.
        r.clock.now = first + 366 * 86_400 + 150
        assert (await r.ran(trigger.id, 8))[7].reason == "missed"
        r.clock.now = first + 1200 + 1
        found = await r.ran(trigger.id, 9)
        assert (found[8].status, found[8].scheduled_at) == ("completed", first + 1200)


async def _next_is(r: Rig, trigger_id: str, at: float) -> bool:
    return (await r.schedules.get_trigger(trigger_id)).next_run_at == at


async def test_a_time_at_which_the_last_run_has_not_ended_is_skipped(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path, model=model) as r:
        trigger = await r.trigger(execution_timeout_seconds=86_400)
        r.clock.now = on_the_five(r) + 1
        await model.asked(1)
        r.clock.now = on_the_five(r) + 1
        (skipped,) = await r.ran(trigger.id, 1, "skipped")
        (running,) = await r.executions(trigger.id, status="in_progress")
        assert skipped.reason == "overlap"
        assert skipped.details == {"execution_id": running.id}
        with pytest.raises(Conflict) as caught:
            await r.schedules.run_trigger(trigger.id)
        assert caught.value.fields["interaction_id"] == running.interaction_id
        model.gate.set()
        await r.ran(trigger.id, 1, "completed")


async def test_runs_wait_in_line_where_that_was_chosen_and_not_too_many_of_them(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path, model=model) as r:
        trigger = await r.trigger(overlap="queue", execution_timeout_seconds=86_400)
        r.clock.now = on_the_five(r) + 1
        await model.asked(1)
        for _ in range(10):
            assert (await r.schedules.run_trigger(trigger.id)).status == "queued"
        with pytest.raises(Conflict, match="wait already"):
            await r.schedules.run_trigger(trigger.id)
        r.clock.now = on_the_five(r) + 1
        (full,) = await r.ran(trigger.id, 1, "skipped")
        assert full.reason == "queue_full"
        model.gate.set()
        done = await r.ran(trigger.id, 11, "completed")
        assert [one.cause for one in done] == ["schedule", *["manual"] * 10]
        assert model.most_running == 1


async def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path, model=model) as r:
        trigger = await r.trigger("@yearly", execution_timeout_seconds=30)
        run = await r.schedules.run_trigger(trigger.id)
        assert run.status == "in_progress"
        await model.asked(1)
        r.clock.now += 31
        (over,) = await r.ran(trigger.id, 1)
        assert over.status == "timed_out"
        assert over.error is not None
        assert over.error["code"] == "timed_out"
        ended = await r.engine.wait(run.interaction_id or "", 10)
        assert ended.interaction.status == "cancelled"
        await until(lambda: _nothing_to_cancel(r))
        assert (await r.executions(trigger.id))[0].status == "timed_out"
        assert (await r.schedules.get_trigger(trigger.id)).consecutive_failure_count == 1


async def _nothing_to_cancel(r: Rig) -> bool:
    return not (await r.store.schedules.due()).cancels


async def test_too_many_failures_in_a_row_stop_the_trigger_and_a_success_forgives(tmp_path: Path) -> None:
    model = ScriptedModel()
    broken = KeyRefused("it is down")
    async with rig(tmp_path, model=model) as r:
        trigger = await r.trigger(max_consecutive_failures=2)
        model.script([broken], "fine", [broken], [broken])
        for number in range(1, 5):
            r.clock.now = on_the_five(r) + 1
            await r.ran(trigger.id, number)
        runs = await r.executions(trigger.id)
        assert [one.status for one in runs] == ["failed", "completed", "failed", "failed"]
        assert runs[0].error is not None
        assert runs[0].error["code"] == "key_refused"
        stopped = await r.schedules.get_trigger(trigger.id)
        assert (stopped.status, stopped.next_run_at, stopped.consecutive_failure_count) == ("error", None, 2)
        assert stopped.error is not None
        assert stopped.error["code"] == "key_refused"
        status = (await r.engine.status())["schedules"]
        assert status["in_error"] == [{"id": trigger.id, "display_name": None}]
        await until(lambda: _holds_nothing(r))
        again = await r.schedules.update_trigger(trigger.id, {"status": "active"})
        assert (again.status, again.consecutive_failure_count, again.error) == ("active", 0, None)


async def _holds_nothing(r: Rig) -> bool:
    return r.schedules.holding == 0


async def test_a_run_that_cannot_even_start_fails_with_its_reason_and_no_interaction(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        session = await r.engine.create_session(model="m1")
        trigger = await r.trigger(work={"session": session.id})
        await r.engine.delete_session(session.id)
        run = await r.schedules.run_trigger(trigger.id)
        assert (run.status, run.interaction_id) == ("failed", None)
        assert run.error is not None
        assert run.error["code"] == "deleted"


async def test_a_cancelled_run_is_no_failure_of_the_triggers(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.gate = asyncio.Event()
    async with rig(tmp_path, model=model) as r:
        trigger = await r.trigger()
        run = await r.schedules.run_trigger(trigger.id)
        await model.asked(1)
        await r.engine.cancel(run.interaction_id or "")
        (over,) = await r.ran(trigger.id, 1)
        assert over.status == "failed"
        assert over.error is not None
        assert over.error["code"] == "cancelled"
        assert (await r.schedules.get_trigger(trigger.id)).consecutive_failure_count == 0


async def test_run_now_works_while_paused_and_once_a_key(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(paused=True)
        assert (trigger.status, trigger.next_run_at) == ("paused", None)
        r.clock.now += 3600
        run = await r.schedules.run_trigger(trigger.id[:16], idempotency_key="k")
        assert run.cause == "manual"
        assert run.interaction_id is not None
        await r.ran(trigger.id, 1)
        again = await r.schedules.run_trigger(trigger.id, idempotency_key="k")
        assert again.id == run.id
        assert len(await r.executions(trigger.id)) == 1
        other = await r.trigger()
        with pytest.raises(Conflict):
            await r.schedules.run_trigger(other.id, idempotency_key="k")


async def test_pausing_and_resuming_forgets_what_came_due_in_between(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(missed="once")
        paused = await r.schedules.update_trigger(trigger.id, {"status": "paused"})
        assert (paused.status, paused.next_run_at, paused.last_pause_at) == ("paused", None, r.clock.now)
        await until(lambda: _holds_nothing(r))
        r.clock.now += 7200
        resumed = await r.schedules.update_trigger(trigger.id, {"status": "active"})
        assert resumed.next_run_at == on_the_five(r)
        assert await r.executions(trigger.id) == []


async def test_everything_of_a_trigger_can_be_changed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger(work={"labels": {"a": "b"}})
        changed = await r.schedules.update_trigger(
            trigger.id,
            {
                "schedule": "every  2h",
                "time_zone": "Europe/Berlin",
                "display_name": "Other",
                "missed": "once",
                "overlap": "queue",
                "max_consecutive_failures": 0,
                "execution_timeout_seconds": 60,
                "work": {"input": "something else", "labels": None},
            },
        )
        assert (changed.schedule, changed.time_zone, changed.display_name) == ("every 2h", "Europe/Berlin", "Other")
        assert changed.next_run_at == r.clock.now + 7200
        assert changed.work == {
            "input": [{"type": "text", "text": "something else"}],
            "session": "new",
            "model": "m1",
        }
        assert await r.schedules.get_trigger(trigger.id) == changed
        ran = await r.schedules.run_trigger(trigger.id)
        assert ran.timeout_s == 60
        await r.ran(trigger.id, 1)
        assert "something else" in str(r.model.requests[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "nonsense"}, "schedule: expected five fields"),
        ({"time_zone": "Mars"}, "time_zone: 'Mars' is not a time zone"),
        ({"status": "error"}, "status: expected one of active, paused"),
        ({"missed": "twice"}, "missed: expected one of skip, once"),
        ({"overlap": "x"}, "overlap: expected one of skip, queue"),
        ({"max_consecutive_failures": -1}, "max_consecutive_failures: expected a whole number from 0"),
        ({"execution_timeout_seconds": 0}, "execution_timeout_seconds: expected a number from 1 to 604,800, got 0"),
        ({"execution_timeout_seconds": float("nan")}, "execution_timeout_seconds: expected a number"),
        ({"nonsense": 1}, "nonsense: no such field of a trigger"),
        ({"work": {"inptu": "x"}}, "inptu: no such field of what a trigger runs"),
        ({"work": {"input": ""}}, "input: is required"),
        ({"work": {"model": "m1", "agent": "a"}}, "model, agent: a trigger runs a model or an agent"),
        ({"work": {"budget": {"usd": -1}}}, "budget.usd"),
        ({"work": {"environment": "env_1"}}, "environment, limits: are an agent's"),
        ({"work": {"session": "int_01"}}, "session_id: expected a session id"),
        ({"work": {"share_environment": "yes"}}, "share_environment: expected true or false"),
        ({"display_name": "a\nb"}, "display_name: expected one line"),
        ({"schedule": "at 2001-01-01T00:00"}, "schedule: this time is over"),
    ],
)
async def test_wrong_changes_are_refused_in_words_and_change_nothing(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        with pytest.raises(InvalidArgument) as caught:
            await r.schedules.update_trigger(trigger.id, changes)
        assert said in caught.value.message
        assert await r.schedules.get_trigger(trigger.id) == trigger


async def test_what_could_not_run_is_refused_when_it_is_made(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(UnknownModel):
            await r.trigger(work={"model": "m9"})
        with pytest.raises(NotFound):
            await r.trigger(work={"session": "ses_" + "0" * 26})
        with pytest.raises(InvalidArgument, match="runs no agents"):
            await r.trigger(work={"model": None, "agent": "antigravity"})
        with pytest.raises(InvalidArgument, match="this time is over"):
            await r.trigger("at 2001-01-01T00:00")
        assert (await r.schedules.list_triggers()).items == []


async def test_a_moment_runs_once_even_when_it_was_slept_through(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger("at 2031-12-01T09:00", time_zone="Europe/Berlin")
        assert trigger.missed == "once"
    async with rig(tmp_path, clock=r.clock, start=False) as late:
        late.clock.now = (trigger.next_run_at or 0) + 86_400
        await late.engine.start()
        (run,) = await late.ran(trigger.id, 1)
        assert (run.status, run.cause) == ("completed", "catch_up")
        over = await late.schedules.get_trigger(trigger.id)
        assert (over.status, over.next_run_at) == ("completed", None)
        await until(lambda: _holds_nothing(late))
        anew = await late.schedules.update_trigger(trigger.id, {"schedule": "at 2041-12-01T09:00"})
        assert anew.status == "active"


async def test_deleting_keeps_what_it_ran(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        trigger = await r.trigger()
        run = await r.schedules.run_trigger(trigger.id)
        await r.ran(trigger.id, 1)
        receipt = await r.schedules.delete_trigger(trigger.id)
        assert receipt.counts == {"executions_kept": 1, "still_running": 0}
        for call in (r.schedules.get_trigger, r.schedules.delete_trigger, r.schedules.run_trigger):
            with pytest.raises(NotFound):
                await call(trigger.id)
        assert [one.id for one in await r.executions(trigger.id)] == [run.id]
        assert (await r.schedules.get_execution(run.id)).interaction_id == run.interaction_id
        r.clock.now += 3600
        await r.looked()
        assert len(await r.executions()) == 1


async def test_the_same_create_call_makes_one_trigger(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        one = await r.trigger(idempotency_key="k")
        assert (await r.trigger(idempotency_key="k")).id == one.id
        with pytest.raises(Conflict):
            await r.trigger("@daily", idempotency_key="k")
        assert len((await r.schedules.list_triggers()).items) == 1


async def test_triggers_are_one_owners_own_and_listed_in_pages(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        made = [(await r.trigger()).id for _ in range(5)]
        other = Caller(owner="other")
        assert (await r.schedules.list_triggers(caller=other)).items == []
        with pytest.raises(NotFound):
            await r.schedules.get_trigger(made[0], caller=other)
        seen: list[str] = []
        cursor = None
        while True:
            page = await r.schedules.list_triggers(limit=2, cursor=cursor)
            seen += [one.id for one in page.items]
            if (cursor := page.cursor) is None:
                break
        assert seen == made
        with pytest.raises(InvalidArgument, match="cursor"):
            await r.schedules.list_triggers(cursor="nonsense")


async def test_there_is_a_limit_to_their_number(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=replace(QUICK, max_triggers=2)) as r:
        await r.trigger()
        await r.trigger()
        with pytest.raises(Conflict, match="there may be 2"):
            await r.trigger()
