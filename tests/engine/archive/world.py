"""A home with real agents: their folders, real environments in real sandboxes, kept files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.agents.kit import RUN_PATIENCE_S
from engine.kit import Clock, ScriptedCatalog, ScriptedModel
from interactd.agents import AgentFolders
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.port import Result
from interactd.engine.retention.settings import RetentionSettings
from interactd.paths import Paths
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore

AGENT = "description: {marker}\nmodel: scripted/m1\n"


@dataclass(slots=True)
class World:
    """The engine and its parts at hand."""

    engine: LocalEngine
    model: ScriptedModel
    environments: LocalEnvironments
    store: SqliteStore
    paths: Paths
    clock: Clock

    def agent(self, id: str, instructions: str, description: str = "helps") -> Path:
        """Write an agent into the config folder."""
        folder = self.paths.config / "agents" / id
        (folder / "sources").mkdir(parents=True, exist_ok=True)
        (folder / "agent.yaml").write_text(f"id: {id}\ndescription: {description}\nmodel: scripted/m1\n")
        (folder / "AGENTS.md").write_text(instructions)
        (folder / "sources" / "tool.sh").write_text("#!/bin/sh\necho tool\n")
        (folder / "sources" / "tool.sh").chmod(0o755)
        return folder

    async def turn(self, session_id: str, content: str = "do it", **more: Any) -> Result:
        """Send a turn and wait for its end."""
        sent = await self.engine.send_turn(session_id, content, **more)
        result = await self.engine.wait(sent.interaction.id, RUN_PATIENCE_S)
        assert result.interaction.status == "completed", result.interaction
        return result


@asynccontextmanager
async def world(
    home: Path, *, clock: Clock | None = None, images: bool = False, **retention: Any
) -> AsyncGenerator[World]:
    """A started engine under `home`, closed at the end."""
    paths = Paths(*(str(home / part) for part in ("config", "data", "state", "logs", "cache", "run"))).make()
    clock = clock or Clock()
    model = ScriptedModel()
    store = SqliteStore(paths.database)
    environments = LocalEnvironments(paths, store, all_launchers(paths), images=images)
    engine = LocalEngine(
        store,
        ScriptedCatalog(model),
        EngineSettings(version="test"),
        clock=clock,
        agents=AgentFolders(paths),
        environments=environments,
        retention=RetentionSettings(**retention),
    )
    await engine.start()
    try:
        yield World(engine, model, environments, store, paths, clock)
    finally:
        await engine.aclose()
