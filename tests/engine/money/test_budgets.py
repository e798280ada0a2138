"""Budgets of turns, sessions and days, as callers meet them; every token of these models is a dollar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.kit import ScriptedModel, called, ended, rig, said
from engine.money.kit import money
from interactd.engine.money.purse import LEAST_ANSWER
from interactd.errors import InteractdError, ProviderUnavailable, RateLimited, StreamTruncated, UnknownPrice
from interactd.models.port import Finished, StepDelta, StepStarted
from interactd.nouns import GenerationConfig, Json, Usage

pytestmark = pytest.mark.anyio
SHORT = GenerationConfig(max_output_tokens=100)
LOOKUP: Json = {"type": "function", "name": "look", "description": "", "parameters": {"type": "object"}}
ROOM = 3_000
"""More than one call of these can cost at its worst."""


async def test_a_turn_says_what_it_cost(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db", money=money()) as one:
        session = await one.engine.create_session()
        result = await one.turn(session.id)
        assert result.cost is not None
        assert (result.cost["usd"], result.cost["tokens"], result.cost["steps"]) == (15, 15, 1)
        assert result.cost["budgets"] == []
        assert "unsure_usd" not in result.cost


async def test_a_model_without_a_price_costs_nobody_knows_what(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db") as one:
        session = await one.engine.create_session()
        result = await one.turn(session.id, budget={"tokens": 10_000}, generation_config=SHORT)
        assert result.interaction.status == "completed"
        assert result.cost is not None
        assert (result.cost["usd"], result.cost["unpriced_calls"]) == (None, 1)


async def test_a_budget_in_money_refuses_a_model_without_a_price_before_anything_starts(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db") as one:
        session = await one.engine.create_session()
        with pytest.raises(UnknownPrice, match="nobody knows what scripted/m1 costs") as refused:
            await one.engine.send_turn(session.id, "hello", budget="$2")  # pyright: ignore[reportArgumentType]
        assert 'prices."scripted/m1"' in str(refused.value.repair)
        assert one.model.requests == []
        assert (await one.engine.get_session(session.id)).turns == 0


@pytest.mark.parametrize("scope", ["interaction", "session", "day"])
@pytest.mark.parametrize("unit", ["usd", "tokens"])
async def test_a_budget_that_covers_no_call_keeps_the_call_from_being_made(
    tmp_path: Path, scope: str, unit: str
) -> None:
    budget = {unit: 50}
    async with rig(tmp_path / "a.db", money=money(day=budget if scope == "day" else None)) as one:
        session = await one.engine.create_session(budget=budget if scope == "session" else None)
        result = await one.turn(session.id, "x" * 200, budget=budget if scope == "interaction" else None)
        assert result.interaction.status == "budget_exceeded"
        assert one.model.requests == []
        error = result.interaction.error or {}
        assert (error["budget"]["scope"], error["budget"]["unit"], error["budget"]["limit"]) == (scope, unit, 50)
        assert "does not cover another call" in error["message"]
        assert result.cost is not None
        assert result.cost["usd"] == 0


async def test_a_small_budget_is_used_to_its_end(tmp_path: Path) -> None:
    """The answer may be as long as the budget pays for; one cut there says so, and keeps what came."""
    model = ScriptedModel(default=[*said("a long ans"), Finished("length", "length", Usage(input=100, output=300))])
    async with rig(tmp_path / "a.db", model=model, money=money()) as one:
        session = await one.engine.create_session()
        result = await one.turn(session.id, budget={"usd": 600})
        (asked,) = model.requests
        limit = asked.config.max_output_tokens
        assert limit is not None
        assert LEAST_ANSWER <= limit < 600
        assert result.interaction.status == "budget_exceeded"
        assert [step.text for step in result.steps if step.type == "model_output"] == ["a long ans"]
        error = result.interaction.error or {}
        assert "was cut where" in error["message"]
        following = error["next"]
        assert following["tool"] == "send_turn"
        assert following["arguments"]["budget"]["usd"] > 600


async def test_a_longer_answer_than_asked_for_is_the_models_own_limit(tmp_path: Path) -> None:
    model = ScriptedModel(default=[*said("cut"), Finished("length", "length", Usage(input=10, output=100))])
    async with rig(tmp_path / "a.db", model=model, money=money()) as one:
        session = await one.engine.create_session()
        result = await one.turn(session.id, budget={"usd": 100_000}, generation_config=SHORT)
        assert result.interaction.status == "incomplete"
        assert model.requests[0].config.max_output_tokens == 100


async def test_a_sessions_budget_is_for_all_its_turns_and_can_be_raised(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db", money=money()) as one:
        session = await one.engine.create_session(budget={"steps": 2}, generation_config=SHORT)
        assert (await one.turn(session.id)).interaction.status == "completed"
        assert (await one.turn(session.id)).interaction.status == "completed"
        over = await one.turn(session.id)
        assert over.interaction.status == "budget_exceeded"
        error = over.interaction.error or {}
        assert error["next"]["tool"] == "set_budget"
        made = await one.engine.set_budget(**error["next"]["arguments"])
        assert made["budget"]["steps"] >= 4
        assert made["left"]["steps"] == made["budget"]["steps"] - 2
        assert (await one.turn(session.id, "Go on.")).interaction.status == "completed"


async def test_rounds_of_the_callers_functions_count_together(tmp_path: Path) -> None:
    model = ScriptedModel(default=lambda request: [*called("look", {}, f"c{len(request.steps)}"), *ended("tool_calls")])
    async with rig(tmp_path / "a.db", model=model, money=money()) as one:
        session = await one.engine.create_session(tools=[LOOKUP], generation_config=SHORT)
        result = await one.turn(session.id, budget={"steps": 3})
        for _ in range(2):
            assert result.interaction.status == "requires_action"
            calls = [{"call_id": call["id"], "result": "r"} for call in result.waiting_for]
            result = await one.ended((await one.engine.respond(result.interaction.id, calls)).interaction.id)
        assert result.interaction.status == "requires_action"
        calls = [{"call_id": call["id"], "result": "r"} for call in result.waiting_for]
        result = await one.ended((await one.engine.respond(result.interaction.id, calls)).interaction.id)
        assert result.interaction.status == "budget_exceeded"
        assert len(model.requests) == 3
        assert result.cost is not None
        assert result.cost["steps"] == 3
        assert sum(step.type == "function_result" for step in result.steps) == 3, "all work is kept"


async def test_a_budget_in_seconds_cuts_a_call_and_keeps_what_came(tmp_path: Path) -> None:
    never = asyncio.Event()
    model = ScriptedModel(default=[StepStarted(0, "model_output"), StepDelta(0, "text", "so far"), never])
    async with rig(tmp_path / "a.db", model=model, money=money()) as one:
        session = await one.engine.create_session(generation_config=SHORT)
        result = await one.turn(session.id, budget={"seconds": 1})
        assert result.interaction.status == "budget_exceeded"
        assert [step.text for step in result.steps if step.type == "model_output"] == ["so far"]
        error = result.interaction.error or {}
        assert error["budget"]["unit"] == "seconds"
        assert result.cost is not None
        assert result.cost["unsure_usd"] > 0, "nobody knows what the call cost: it counts at its worst"
        assert 0.9 < result.cost["seconds"] < 5


@pytest.mark.parametrize(
    ("usage", "cost", "unsure"),
    [
        (None, None, True),
        (Usage(), None, True),
        (Usage(input=0, output=0, total=0), None, True),
        (Usage(input=10, output=0), None, True),
        (Usage(input=10), None, True),
        (Usage(input=10, output=10**15), None, True),
        (Usage(input=10**15, output=10), None, True),
        (Usage(input=10, output=5, thought=10**15), None, True),
        (Usage(input=10, output=5, cached=10**9), 15, False),
        (Usage(input=10, output=5, thought=20), 35, False),
        (Usage(input=10_000, output=5), 10_005, False),
    ],
)
async def test_usage_that_cannot_be_counts_at_its_worst(
    tmp_path: Path, usage: Usage | None, cost: float | None, unsure: bool
) -> None:
    model = ScriptedModel(default=[*said("yes"), Finished("stop", "stop", usage)])
    async with rig(tmp_path / "a.db", model=model, money=money()) as one:
        session = await one.engine.create_session()
        result = await one.turn(session.id, generation_config=SHORT)
        assert result.interaction.status == "completed"
        assert result.cost is not None
        assert ("unsure_usd" in result.cost) == unsure
        if cost is not None:
            assert result.cost["usd"] == cost
        else:
            assert 100 < result.cost["usd"] < ROOM


@pytest.mark.parametrize(
    ("error", "paid"),
    [
        (RateLimited("slow down", status=429), False),
        (ProviderUnavailable("no", sent=False), False),
        (ProviderUnavailable("no", status=503), False),
        (ProviderUnavailable("no", status=504), True),
        (ProviderUnavailable("closed without an answer"), True),
        (StreamTruncated("cut"), True),
    ],
)
async def test_a_failed_call_costs_what_it_may_have_cost(tmp_path: Path, error: InteractdError, paid: bool) -> None:
    async with rig(tmp_path / "a.db", money=money()) as one:
        one.model.script([error])
        session = await one.engine.create_session(generation_config=SHORT)
        result = await one.turn(session.id, dispatch={"retries": 0})
        assert result.interaction.status == "failed"
        assert result.cost is not None
        assert (result.cost["usd"] > 0) == paid
        assert result.cost.get("unsure_usd", 0) == result.cost["usd"]


async def test_turns_at_once_do_not_overspend_the_day_together(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db", money=money(day={"usd": 2_000})) as one:
        one.model.usage = Usage(input=100, output=100)
        sessions = [await one.engine.create_session(generation_config=SHORT) for _ in range(20)]
        sent = [await one.engine.send_turn(each.id, "hello") for each in sessions]
        results = [await one.ended(each.interaction.id) for each in sent]
        done = [result for result in results if result.interaction.status == "completed"]
        assert {result.interaction.status for result in results} == {"completed", "budget_exceeded"}
        spent = (await one.engine.usage())["today"]
        assert spent["usd"] == 200 * len(done)
        assert 1_700 <= spent["usd"] <= 2_000, "what others had reserved and did not need was used too"


async def test_usage_is_added_up_by_day_model_agent_and_session(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db", money=money()) as one:
        first, second = await one.engine.create_session(title="one"), await one.engine.create_session()
        for id in (first.id, first.id, second.id):
            await one.turn(id)
        found = {by: await one.engine.usage(by=by) for by in ("day", "model", "agent", "session")}
        for usage in found.values():
            assert (usage["total"]["usd"], usage["total"]["calls"]) == (45, 3)
        assert [line["key"] for line in found["model"]["lines"]] == ["scripted/m1"]
        assert [(line["key"], line["usd"]) for line in found["session"]["lines"]] == [(first.id, 30), (second.id, 15)]
        assert found["session"]["lines"][0]["title"] == "one"
        await one.engine.delete_session(first.id)
        after = await one.engine.usage(by="session")
        assert after["total"]["usd"] == 45
        assert {line["key"] for line in after["lines"]} == {None, second.id}
        costs: dict[str, Any] = await one.engine.costs(session_ids=[second.id])
        assert costs[second.id]["usd"] == 15


async def test_a_turn_stopped_by_its_caller_settles_its_call(tmp_path: Path) -> None:
    async with rig(tmp_path / "a.db", money=money()) as one:
        one.model.gate = asyncio.Event()
        session = await one.engine.create_session(generation_config=SHORT)
        sent = await one.engine.send_turn(session.id, "hello")
        await one.model.asked(1)
        result = await one.engine.cancel(sent.interaction.id)
        assert result.cost is not None
        assert "reserved_usd" not in result.cost
        assert result.cost["unsure_usd"] == result.cost["usd"] > 0
