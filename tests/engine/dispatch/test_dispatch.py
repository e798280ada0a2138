"""Priorities, caps, delays, time-outs and retries, through the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.kit import PATIENCE_S, Clock, Rig, ScriptedModel, called, rig, texts, until
from interactd.engine.dispatch import retries
from interactd.errors import KeyRefused, ProviderUnavailable, QuotaExceeded, RateLimited, StreamTruncated
from interactd.models.port import StepDelta

pytestmark = pytest.mark.anyio


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BASE_S", 0.02)


class Other(ScriptedModel):
    """A model of another provider."""

    def __init__(self) -> None:
        super().__init__("m2")
        self.provider = "other"


async def sent(it: Rig, text: str, session_id: str | None = None, **more: Any) -> str:
    """Send a turn, in a session of its own unless one is given; returns its id."""
    session = session_id or (await it.engine.create_session()).id
    return (await it.engine.send_turn(session, text, **more)).interaction.id


async def reason(it: Rig, interaction_id: str) -> str | None:
    return (await it.engine.get_interaction(interaction_id)).queue_reason


def order(model: ScriptedModel) -> list[str]:
    return [request.steps[-1].text for request in model.requests]


async def test_a_turn_without_a_slot_is_queued_and_says_what_for(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=1) as it:
        it.model.gate = asyncio.Event()
        first = await sent(it, "a")
        await it.model.asked(1)
        session = await it.engine.create_session()
        second = await it.engine.send_turn(session.id, "b")
        third = await it.engine.send_turn(session.id, "c", if_busy="queue")
        assert (second.interaction.status, second.queue_reason) == ("queued", "waits for one of 1 slot")
        assert third.queue_reason == "2nd in line of its session"
        assert await reason(it, first) is None
        it.model.gate.set()
        for id in (first, second.interaction.id, third.interaction.id):
            assert (await it.ended(id)).interaction.status == "completed"


async def test_priority_and_foreground_go_first(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=1) as it:
        it.model.gate = asyncio.Event()
        await sent(it, "first")
        await it.model.asked(1)
        ids = [
            await sent(it, "background", background=True),
            await sent(it, "foreground"),
            await sent(it, "urgent", background=True, dispatch={"priority": 10}),
            await sent(it, "whenever", dispatch={"priority": -10}),
        ]
        it.model.gate.set()
        for id in ids:
            await it.ended(id)
        assert order(it.model) == ["first", "urgent", "foreground", "background", "whenever"]


async def test_a_providers_cap_holds_and_others_go_past_it(tmp_path: Path) -> None:
    other = Other()
    async with rig(tmp_path / "db", others=[other], provider_slots={"scripted": 2}) as it:
        it.model.gate = asyncio.Event()
        ids = [await sent(it, f"t{n}", background=True) for n in range(4)]
        await it.model.asked(2)
        assert await reason(it, ids[3]) == "waits for one of 2 slots of scripted"
        elsewhere = await sent(it, "x", model="other/m2")
        assert (await it.ended(elsewhere)).interaction.status == "completed"
        health = (await it.engine.status())["dispatch"]
        assert health["providers"]["scripted"] == {"running": 2, "waiting": 2, "max_running": 2}
        it.model.gate.set()
        for id in ids:
            await it.ended(id)
        assert it.model.most_running == 2


async def test_a_delayed_turn_waits_says_until_when_and_keeps_the_daemon(tmp_path: Path) -> None:
    async with rig(tmp_path / "db") as it:
        session = await it.engine.create_session()
        id = await sent(it, "later", session.id, background=True, dispatch={"delay_s": 0.3})
        behind = await sent(it, "behind", session.id, if_busy="queue")
        assert (await reason(it, id) or "").startswith("not before ")
        assert await reason(it, behind) == "2nd in line of its session"
        assert it.engine.busy == 2
        assert it.model.requests == []
        await it.ended(behind)
        assert order(it.model) == ["later", "behind"]


async def test_a_delay_survives_a_restart_and_a_clock_that_is_set_back_a_day(tmp_path: Path) -> None:
    clock, model = Clock(), ScriptedModel()
    async with rig(tmp_path / "db", clock=clock, model=model) as it:
        id = await sent(it, "later", background=True, dispatch={"delay_s": 0.5})
        assert it.model.requests == []
    clock.now -= 86_400
    async with rig(tmp_path / "db", clock=clock, model=model) as it:
        assert (await it.engine.get_interaction(id)).interaction.status == "queued"
        assert (await it.ended(id)).interaction.status == "completed"


@pytest.mark.parametrize("jump", [86_400, -86_400])
async def test_a_clock_that_jumps_moves_no_delay_and_ends_no_run(tmp_path: Path, jump: float) -> None:
    async with rig(tmp_path / "db", lease_s=0.6) as it, rig(tmp_path / "db", clock=it.clock, lease_s=0.6) as b:
        it.model.gate = asyncio.Event()
        running = await sent(it, "running", dispatch={"timeout_s": 60})
        later = await sent(it, "later", background=True, dispatch={"delay_s": 60, "start_timeout_s": 60})
        await it.model.asked(1)
        it.clock.now += jump
        await asyncio.sleep(1.2)  # two leases
        assert len(it.model.requests) == 1
        assert (await b.engine.get_interaction(later)).interaction.status == "queued"
        it.model.gate.set()
        done = await it.ended(running)
        assert (done.interaction.status, done.interaction.epoch) == ("completed", 1)
        assert (done.interaction.finished_at or 0) >= (done.interaction.started_at or 0)
        await it.engine.cancel(later)


async def test_what_does_not_begin_in_time_fails_and_nothing_was_called(tmp_path: Path) -> None:
    async with rig(tmp_path / "db", max_running=1) as it:
        it.model.gate = asyncio.Event()
        first = await sent(it, "a")
        await it.model.asked(1)
        session = await it.engine.create_session()
        late = await sent(it, "late", session.id, dispatch={"start_timeout_s": 1})
        events = asyncio.create_task(it.events(late))
        done = await it.ended(late)
        assert (done.interaction.status, (done.interaction.error or {})["code"]) == ("failed", "start_timeout")
        assert (done.interaction.usage, done.interaction.started_at) == (None, None)
        assert (await events)[-1].data["status"] == "failed"
        it.model.gate.set()
        await it.ended(first)
        assert (await it.turn(session.id, "again")).interaction.status == "completed"
        assert order(it.model) == ["a", "again"]


async def test_a_turn_that_runs_too_long_keeps_what_it_said(it: Rig) -> None:
    it.model.script([StepDelta(0, "text", "half"), asyncio.Event()])
    id = await sent(it, "x", dispatch={"timeout_s": 1})
    done = await it.ended(id)
    assert (done.interaction.status, (done.interaction.error or {})["code"]) == ("incomplete", "time_exceeded")
    assert texts(done) == ["user_input: x", "model_output: half"]
    assert it.model.running == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "error",
    [RateLimited("Slow down.", retry_after_s=0.05), ProviderUnavailable("Down."), StreamTruncated("Cut.")],
    ids=lambda error: error.code,
)
async def test_a_background_run_is_tried_again_for_what_may_pass(it: Rig, error: Exception) -> None:
    it.model.script([StepDelta(0, "text", "ha"), error], [error])
    id = await sent(it, "x", background=True)
    events = await it.events(id)
    done = await it.ended(id)
    assert (done.interaction.status, texts(done)) == ("completed", ["user_input: x", "model_output: ok"])
    assert (len(it.model.requests), done.interaction.attempt) == (3, 3)
    assert [event.data["status"] for event in events if event.type == "interaction.status"] == [
        "in_progress",
        "queued",
        "in_progress",
        "queued",
        "in_progress",
        "completed",
    ]


@pytest.mark.usefixtures("quick")
async def test_it_is_given_up_after_so_many_retries_and_a_foreground_turn_at_once(it: Rig) -> None:
    it.model.script(*([RateLimited("No.")] for _ in range(9)))
    back = await it.ended(await sent(it, "x", background=True, dispatch={"retries": 2}))
    assert (back.interaction.status, (back.interaction.error or {})["code"]) == ("failed", "rate_limited")
    assert len(it.model.requests) == 3
    fore = await it.ended(await sent(it, "y"))
    assert (fore.interaction.status, len(it.model.requests)) == ("failed", 4)
    asked = await it.ended(await sent(it, "z", dispatch={"retries": 1}))
    assert (asked.interaction.status, len(it.model.requests)) == ("failed", 6)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [KeyRefused("No."), QuotaExceeded("Broke."), RuntimeError("a bug")])
async def test_what_would_only_fail_again_is_not_tried_again(it: Rig, error: Exception) -> None:
    it.model.script([error])
    done = await it.ended(await sent(it, "x", background=True))
    assert (done.interaction.status, len(it.model.requests)) == ("failed", 1)


@pytest.mark.usefixtures("quick")
async def test_an_answer_with_a_finished_step_is_not_thrown_away_for_a_retry(it: Rig) -> None:
    it.model.script([*called("f", {}, "c1"), StreamTruncated("Cut.")])
    done = await it.ended(await sent(it, "x", background=True))
    assert (done.interaction.status, len(it.model.requests)) == ("failed", 1)
    assert [step.type for step in done.steps] == ["user_input", "function_call"]


async def test_a_retry_waits_without_a_slot_says_why_and_survives_a_restart(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with rig(tmp_path / "db", model=model, max_running=1) as it:
        model.script([RateLimited("Slow down.", retry_after_s=60)])
        id = await sent(it, "x", background=True)

        async def waits() -> bool:
            return (await it.engine.get_interaction(id)).interaction.status == "queued"

        await until(waits)
        told = await reason(it, id) or ""
        assert told.startswith("tries again in ")
        assert told.endswith(" s: rate_limited")
        assert (await it.ended(await sent(it, "y"))).interaction.status == "completed"
        assert it.engine.busy == 1
        assert await it.engine.drain(PATIENCE_S)
    async with rig(tmp_path / "db", model=model) as it:
        assert (await reason(it, id) or "").startswith("tries again in ")
        assert len(model.requests) == 2
        cancelled = await it.engine.cancel(id)
        assert cancelled.interaction.status == "cancelled"
        assert it.engine.busy == 0


async def test_turns_behind_a_retry_wait_for_it(it: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BASE_S", 0.2)
    it.model.script([ProviderUnavailable("Down.")])
    session = await it.engine.create_session()
    first = await sent(it, "a", session.id, background=True)
    second = await sent(it, "b", session.id, if_busy="queue")
    await it.ended(second)
    assert (await it.engine.get_interaction(first)).interaction.status == "completed"
    assert order(it.model) == ["a", "a", "b"]


def test_pauses_grow_are_never_the_same_and_honour_the_provider() -> None:
    error = {"code": "rate_limited"}
    pauses = [[retries.pause_before(error, n, 9) or 0 for _ in range(50)] for n in range(9)]
    assert all(1 * 2**n <= pause <= 2 * 2**n for n in range(7) for pause in pauses[n])
    assert all(len(set(some)) > 40 for some in pauses)
    assert max(pauses[8]) <= retries.LONGEST_S
    asked = [retries.pause_before({**error, "retry_after_s": 30}, 0, 1) or 0 for _ in range(50)]
    assert all(30 <= pause <= 33 for pause in asked)
    assert retries.pause_before({**error, "retry_after_s": 1e6}, 0, 1) is None
    assert retries.pause_before(error, 1, 1) is None
    assert retries.pause_before({"code": "key_refused"}, 0, 9) is None
