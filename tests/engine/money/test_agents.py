"""Agents' budgets: for each turn, and for all turns of a day; models and tools are cut when time is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.agents.kit import Folder, rig, runs
from engine.kit import ScriptedModel
from engine.money.kit import money
from interactd.nouns import GenerationConfig

pytestmark = pytest.mark.anyio
SHORT = GenerationConfig(max_output_tokens=50)


def helper(folder: Path, **budget: Any) -> Folder:
    agents = Folder(folder / "agents")
    agents.put(budget=budget, generation_config=SHORT)
    return agents


async def test_each_turn_of_an_agent_has_its_own_budget(tmp_path: Path) -> None:
    model = ScriptedModel(default=runs("print(1)"))
    agents = helper(tmp_path, turn={"steps": 2})
    async with rig(tmp_path, model=model, agents=agents, money=money()) as one:
        for asked in (2, 4):
            result = await one.turn()
            assert result.interaction.status == "budget_exceeded"
            assert len(model.requests) == asked
            error = result.interaction.error or {}
            assert (error["budget"]["scope"], error["budget"]["unit"]) == ("interaction", "steps")
            assert sum(step.type == "code_execution_result" for step in result.steps) == 2, "its work is kept"
        assert result.cost is not None
        assert result.cost["sandbox_seconds"] > 0


async def test_all_turns_of_an_agent_share_its_budget_of_the_day(tmp_path: Path) -> None:
    agents = helper(tmp_path, steps=2)
    async with rig(tmp_path, agents=agents, money=money()) as one:
        for _ in range(2):
            await one.session()
            assert (await one.turn()).interaction.status == "completed"
        await one.session()
        over = await one.turn()
        assert over.interaction.status == "budget_exceeded"
        assert "Agent helper's daily budget of 2 steps is used up" in (over.interaction.error or {})["message"]
        usage = await one.engine.usage(by="agent")
        assert [(line["key"], line["calls"]) for line in usage["lines"]] == [("helper", 2)]
        assert usage["total"]["sandbox_s"] > 0


async def test_a_tool_is_cut_when_the_budget_in_seconds_is_over(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.script(runs("import time; print('begun', flush=True); time.sleep(600)"))
    agents = helper(tmp_path)
    async with rig(tmp_path, model=model, agents=agents, money=money()) as one:
        result = await one.turn(budget={"seconds": 4})
        assert result.interaction.status == "budget_exceeded"
        assert (result.interaction.error or {})["budget"]["unit"] == "seconds"
        assert len(model.requests) == 1
