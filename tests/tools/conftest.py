"""A world to call tools in: the real engine and store, and a model that says what a test wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import interactd_tools
from engine.agents.kit import Folder
from interactd.agents.port import BUILTIN_TOOLS
from interactd.builtins.port import BuiltinTool
from interactd.engine import LocalEngine
from interactd.engine.port import Engine
from interactd.nouns import Caller
from interactd.paths import Paths, find
from interactd.sandbox.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore
from interactd_tools import deadlines
from interactd_tools.context import CallContext, Progress, ToolResult
from tools.scripted import Item, Says, ScriptedCatalog


@dataclass
class World:
    engine: Engine
    catalog: ScriptedCatalog
    caller: Caller = field(default_factory=Caller)

    def says(self, *items: Item) -> None:
        """What the model answers next, one item a call."""
        self.catalog.model.script += items

    @property
    def asked(self) -> int:
        """How often the model was called."""
        return len(self.catalog.model.requests)

    def context(
        self,
        *,
        progress: Progress | None = None,
        request_id: str | int | None = None,
        connection: str | None = None,
        deadline_s: float | None = None,
        client_name: str | None = None,
    ) -> CallContext:
        caller = Caller(connection=connection) if connection else self.caller
        return CallContext(self.engine, caller, request_id, progress, deadline_s, client_name)

    async def call(self, tool: str, arguments: object = None, /, **context: Any) -> ToolResult:
        return await interactd_tools.call(tool, arguments, self.context(**context), toolsets=["all"])

    async def ok(self, tool: str, /, **arguments: Any) -> ToolResult:
        """Call a tool that must succeed."""
        result = await self.call(tool, arguments)
        assert not result.is_error, result.text
        return result

    async def ended(self, interaction_id: str) -> None:
        """Wait until the interaction's run is over, without reading its result."""
        async with asyncio.timeout(60):
            async for _ in self.engine.events(interaction_id):
                pass

    def runs(self, code: str, *, call_id: str = "c1", language: str = "python", text: str = "") -> None:
        """The model answers next that this code is to be run."""
        arguments = {"language": language, "code": code}
        self.says(
            Says([text] if text else [], calls=[{"id": call_id, "name": "code_execution", "arguments": arguments}])
        )

    async def run(self, *codes: str, answer: str = "Done.", **arguments: Any) -> dict[str, Any]:
        """Let an agent run these pieces of code one after another and end; returns the fields of its finished run."""
        for at, code in enumerate(codes):
            self.runs(code, call_id=f"c{self.asked}_{at}")
        self.says(answer)
        started = fields(await self.ok("run_agent_background", input="Do it.", **arguments))
        await self.ended(started["interaction_id"])
        return fields(await self.ok("get_interaction", interaction_id=started["interaction_id"]))

    async def session(self, **arguments: Any) -> str:
        """Create a session; returns its id."""
        return fields(await self.ok("create_session", **arguments))["session_id"]

    async def turn(self, session_id: str, text: str = "Hello.", **arguments: Any) -> dict[str, Any]:
        """Send a turn that must succeed; returns the structured fields."""
        return fields(await self.ok("send_turn", session_id=session_id, input=text, **arguments))


def fields(result: ToolResult) -> dict[str, Any]:
    """The structured fields of a result."""
    assert result.structured is not None
    return result.structured


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[World]:
    catalog = ScriptedCatalog()
    engine = LocalEngine(SqliteStore(tmp_path / "interactd.db"), catalog)
    await engine.start()
    deadlines.forget()
    yield World(engine, catalog)
    await engine.aclose()
    deadlines.forget()


@dataclass
class AgentWorld(World):
    """With agents that work in real sandboxes; `antigravity` and `helper` are there."""

    folder: Folder = field(default_factory=lambda: Folder(Path()))
    environments: LocalEnvironments = field(init=False)


def agents_at(home: Path, catalog: ScriptedCatalog, *tools: BuiltinTool) -> AgentWorld:
    """An engine with agents under `home`, not started; `tools` are further ones that `antigravity` has."""
    paths: Paths = find({"INTERACTD_HOME": str(home)}).make()
    store = SqliteStore(paths.database)
    folder = Folder(home / f"agents-{len(list(home.iterdir()))}")
    more = tuple(tool.name for tool in tools)
    folder.put(id="antigravity", description="Does everything", tools=(*BUILTIN_TOOLS, *more))
    folder.put(id="helper", description="Helps with \x1b[31mthings", tools=("files",))
    environments = LocalEnvironments(paths, store, all_launchers(paths))
    engine = LocalEngine(store, catalog, agents=folder, environments=environments, extra_tools=tools)
    made = AgentWorld(engine, catalog, folder=folder)
    made.environments = environments
    return made


@pytest.fixture
async def agents(tmp_path: Path, anyio_backend: str) -> AsyncIterator[AgentWorld]:
    made = agents_at(tmp_path, ScriptedCatalog())
    await made.engine.start()
    deadlines.forget()
    yield made
    await made.engine.aclose()
    deadlines.forget()
