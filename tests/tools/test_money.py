"""Budgets and costs as tools take and show them."""

from __future__ import annotations

from typing import Any

import pytest

from interactd.nouns import Usage
from tools.conftest import World, fields
from tools.scripted import Says

pytestmark = pytest.mark.anyio
TOKENS = {"tokens": 100_000}


@pytest.mark.parametrize("budget", [TOKENS, "100k tokens", '{"tokens": 100000}', "stop at 100,000 tokens"])
async def test_a_budget_is_taken_as_people_say_it_and_shown_with_the_result(world: World, budget: Any) -> None:
    world.says(Says(["Yes."], usage=Usage(input=90_000, output=10)))
    answer = await world.ok("send_turn", session_id=await world.session(), input="Hi.", budget=budget)
    assert "Tokens: 90,000 in, 10 out · cost unknown · " in answer.text
    assert "Budget: 9,990 tokens of the 100,000 tokens left (nearly used up)" in answer.text
    assert fields(answer)["budgets"] == [
        {"scope": "interaction", "limit": {"tokens": 100_000}, "left": {"tokens": 9_990}}
    ]
    assert fields(answer)["cost_usd"] is None


@pytest.mark.parametrize("budget", ["two bananas", {"eur": 1}, True, [1], {"usd": -1}])
async def test_a_wrong_budget_is_refused_in_words(world: World, budget: Any) -> None:
    answer = await world.call("send_turn", {"session_id": await world.session(), "input": "Hi.", "budget": budget})
    assert answer.is_error
    assert "budget: " in answer.text
    assert "$2" in answer.text or "may have usd" in answer.text or "expected a number" in answer.text


async def test_a_budget_in_money_for_a_model_without_a_price_is_refused(world: World) -> None:
    answer = await world.call("send_turn", {"session_id": await world.session(), "input": "Hi.", "budget": "$2"})
    assert answer.is_error
    assert answer.text.startswith("unknown_price: The turn's budget is in money")
    assert world.asked == 0


async def test_a_turn_over_its_budget_says_whose_and_the_call_that_goes_on(world: World) -> None:
    session = await world.session(budget={"tokens": 50})
    over = await world.ok("send_turn", session_id=session, input="Hi.")
    assert over.text.startswith("budget_exceeded · ")
    assert "The session's budget of 50 tokens does not cover another call" in over.text
    following = fields(over)["next"]
    assert following["tool"] == "set_budget"
    raised = await world.ok("set_budget", **following["arguments"])
    assert "left)" in raised.text
    world.says("There.")
    assert "There." in (await world.ok("send_turn", session_id=session, input="Go on.")).text
    none = await world.ok("set_budget", session_id=session, budget="none")
    assert "no budget of its own" in none.text


async def test_usage_is_shown_by_what_is_asked(world: World) -> None:
    session = await world.session(title="Mine")
    await world.turn(session)
    shown = await world.ok("get_usage", by="session", since="7d")
    assert f"- {session} (Mine): cost unknown" in shown.text
    assert "estimate" in shown.text
    assert fields(shown)["total"]["calls"] == 1
    by_model = fields(await world.ok("get_usage", by="model"))
    assert [line["key"] for line in by_model["lines"]] == ["scripted/parrot"]
    status = await world.ok("server_status")
    assert "Spent today: cost unknown" in status.text
