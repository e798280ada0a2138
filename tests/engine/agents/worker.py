"""A daemon to be killed: the real engine with agents, answering `{"call", ...arguments}` lines on a socket.

    worker.py HOME SOCKET COUNT GATE

Its agent has three tools that write a line into COUNT, outside of every sandbox, and then wait for the file GATE.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from engine.agents.kit import Folder
from interactd.builtins.declare import declare
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.config import load
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.port import Result
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.paths import find
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore
from support import forked


class Bump:
    """A side effect that can be counted."""

    parallel = False

    def __init__(self, replay: Replay, count: Path, gate: Path) -> None:
        self.name = f"bump_{replay}"
        self.replay: Replay = replay
        self.declaration = declare(self.name, "bump", {})
        self._count = count
        self._gate = gate

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        with self._count.open("a") as file:
            file.write(f"{ctx.call_id}\n")
        for _ in range(6_000):
            if self._gate.exists():
                return Outcome("bumped")
            await asyncio.sleep(0.01)
        return Outcome("nobody opened the gate", is_error=True)


def shown(result: Any) -> Any:
    if isinstance(result, Result):
        return {
            "id": result.interaction.id,
            "status": result.interaction.status,
            "error": result.interaction.error,
            "environment_id": result.interaction.environment_id,
            "steps": [step.as_dict() for step in result.steps],
            "waiting_for": result.waiting_for,
            "printed": result.printed,
        }
    return {"id": result.id}


async def serve(home: str, socket: str, count: Path, gate: Path) -> None:
    os.environ["INTERACTD_HOME"] = home
    paths = find().make()
    agents = Folder(paths.data / f"agents{os.getpid()}")
    bumps = [Bump(replay, count, gate) for replay in ("safe", "ask", "never")]
    agents.put(tools=("code_execution", "files", *(bump.name for bump in bumps)))
    store = SqliteStore(paths.database)
    engine = LocalEngine(
        store,
        ModelCatalog(load(paths), KeyRing()),
        EngineSettings(),
        agents=agents,
        environments=LocalEnvironments(paths, store, all_launchers(paths)),
        extra_tools=bumps,
    )
    await engine.start()

    await forked.serve(socket, engine, shown)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
