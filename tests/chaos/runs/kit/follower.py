"""A client that follows one interaction's events over every death of the daemon, asking for what it has not seen."""

from __future__ import annotations

import asyncio
from typing import Any

from chaos.runs.kit.world import Gone, Json, World


class Follower:
    """Follows until the interaction's terminal status was told."""

    def __init__(self, world: World, interaction_id: str) -> None:
        self.stopped: list[Json] = []
        """Steps as `step.stop` told them, in order."""
        self.text: dict[int, str] = {}
        """The text of each step, from its deltas: begun anew at each `step.start`."""
        self.last = ""
        self.after = 0
        self._world = world
        self._id = interaction_id
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async with self._world.control() as control:
                    async for event in control.events(self._id, self.after):
                        self._take(event)
                if self.last in ("completed", "failed", "cancelled", "incomplete", "budget_exceeded"):
                    return
            except Gone:
                pass
            await asyncio.sleep(0.01)

    def _take(self, event: Json) -> None:
        assert event["seq"] > self.after, (event, self.after)
        self.after = event["seq"]
        data: Any = event["data"]
        if event["type"] == "interaction.status":
            self.last = data["status"]
        elif event["type"] == "step.start":
            self.text[data["index"]] = ""
        elif event["type"] == "step.delta" and "text" in data["delta"]:
            self.text[data["index"]] += data["delta"]["text"]
        elif event["type"] == "step.stop":
            assert data["index"] == len(self.stopped), (data["index"], len(self.stopped))
            self.stopped.append(data["step"])

    def judge(self, steps: list[tuple[str, Json]]) -> None:
        """What was told is what the journal has: each step once, in order, none left out."""
        assert [step["type"] for step in self.stopped] == [type for type, _ in steps]
        for index, ((type, body), told) in enumerate(zip(steps, self.stopped, strict=True)):
            name = "call_id" if type.endswith("_result") else "id"
            assert told.get(name) == body.get(name)
            if type == "model_output":
                said = "".join(part.get("text", "") for part in body["content"])
                assert self.text[index] == said
