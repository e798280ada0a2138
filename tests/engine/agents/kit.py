"""An engine with agents: real store, real environments in real sandboxes, a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.kit import PATIENCE_S, Clock, Item, ScriptedCatalog, ScriptedModel, called, ended
from interactd.agents.port import AgentDefinition, AgentProblem
from interactd.builtins.port import BuiltinTool
from interactd.builtins.web import Fetcher
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Event, Result
from interactd.errors import NotFound
from interactd.nouns import Json, Session
from interactd.paths import Paths
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore

RUN_PATIENCE_S = 60.0


class Folder:
    """Agents as a dictionary; remembers every content that was there, by hash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now: dict[str, AgentDefinition] = {}
        self.ever: dict[str, AgentDefinition] = {}

    def put(self, **fields: Any) -> AgentDefinition:
        """Write an agent, or change it."""
        folder = self.root / f"agent{len(self.ever)}"
        folder.mkdir(parents=True)
        given: Json = {"id": "helper", "description": "helps", "instructions": "You help.", "folder": folder}
        given |= {"hash": f"{len(self.ever):064x}", **fields}
        made = AgentDefinition(**given)
        self.now[made.id] = self.ever[made.hash] = made
        return made

    async def resolve(self, agent_id: str, *, cwd: str | None = None, pinned: str | None = None) -> AgentDefinition:
        if pinned is not None:
            return self.ever[pinned]
        if agent_id not in self.now:
            raise NotFound(f"There is no agent {agent_id}.", kind="agent", id=agent_id)
        return self.now[agent_id]

    async def list(self, *, cwd: str | None = None) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        return [*self.now.values()], []


@dataclass(slots=True)
class Rig:
    """The engine and its parts at hand."""

    engine: LocalEngine
    model: ScriptedModel
    agents: Folder
    environments: LocalEnvironments
    store: SqliteStore
    paths: Paths
    clock: Clock
    sessions: list[Session] = field(default_factory=list[Session])

    async def session(self, **more: Any) -> Session:
        made = await self.engine.create_session(agent=more.pop("agent", "helper"), **more)
        self.sessions.append(made)
        return made

    async def turn(self, content: str = "do it", *, session: Session | None = None, **more: Any) -> Result:
        """Send a turn and wait for its end."""
        session = session or (self.sessions[-1] if self.sessions else await self.session())
        sent = await self.engine.send_turn(session.id, content, **more)
        return await self.ended(sent.interaction.id)

    async def ended(self, interaction_id: str) -> Result:
        result = await self.engine.wait(interaction_id, RUN_PATIENCE_S)
        assert result.interaction.status not in ("queued", "in_progress"), result.interaction.status
        return result

    async def events(self, interaction_id: str) -> list[Event]:
        async with asyncio.timeout(RUN_PATIENCE_S):
            return [event async for event in self.engine.events(interaction_id)]

    async def files(self, result: Result) -> dict[str, bytes]:
        """What was kept of a turn."""
        kept = await self.environments.artifacts(result.interaction.id)
        return {one.name: one.path.read_bytes() for one in kept}


@asynccontextmanager
async def rig(
    home: Path,
    *,
    model: ScriptedModel | None = None,
    agents: Folder | None = None,
    launcher: str | None = None,
    tools: Sequence[BuiltinTool] = (),
    fetcher: Fetcher | None = None,
    start: bool = True,
    clock: Clock | None = None,
    money: MoneySettings | None = None,
    **settings: Any,
) -> AsyncGenerator[Rig]:
    """A started engine under `home`, closed at the end. The agent `helper` is there."""
    paths = Paths(*(str(home / part) for part in ("config", "data", "state", "logs", "cache", "run"))).make()
    model = model or ScriptedModel()
    if agents is None:
        agents = Folder(home / "agents")
        agents.put()
    clock = clock or Clock()
    store = SqliteStore(paths.database)
    environments = LocalEnvironments(paths, store, all_launchers(paths), launcher=launcher)
    engine = LocalEngine(
        store,
        ScriptedCatalog(model),
        EngineSettings(version="test", **settings),
        clock=clock,
        agents=agents,
        environments=environments,
        extra_tools=tools,
        fetcher=fetcher,
        money=money,
    )
    if start:
        await engine.start()
    try:
        yield Rig(engine, model, agents, environments, store, paths, clock)
    finally:
        await engine.aclose()


def runs(code: str, call_id: str = "c1", *, language: str = "python", index: int = 0) -> list[Item]:
    """An answer that runs code."""
    return [*called("code_execution", {"language": language, "code": code}, call_id, index), *ended("tool_calls")]


def calls(name: str, arguments: Any, call_id: str = "c1") -> list[Item]:
    """An answer that calls one function."""
    return [*called(name, arguments, call_id), *ended("tool_calls")]


def several(*given: tuple[str, Any, str]) -> list[Item]:
    """An answer that calls several functions: name, arguments, id."""
    items: list[Item] = []
    for index, (name, arguments, call_id) in enumerate(given):
        items += called(name, arguments, call_id, index)
    return [*items, *ended("tool_calls")]


def steps(result: Result) -> list[str]:
    return [step.type for step in result.steps]


def result_of(result: Result, call_id: str = "c1") -> Json:
    """The body of a call's result."""
    return next(step.body for step in result.steps if step.body.get("call_id") == call_id)


def shown(model: ScriptedModel, at: int = -1) -> list[tuple[str, str]]:
    """Type and text of the steps of a request."""
    return [
        (s.type, s.text or str(s.body.get("result", s.body.get("arguments", "")))) for s in model.requests[at].steps
    ]


__all__ = ["PATIENCE_S", "Folder", "Rig", "calls", "replace", "result_of", "rig", "runs", "several", "shown", "steps"]
