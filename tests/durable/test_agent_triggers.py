"""Triggers that run agents: where they work, in real environments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from durable.kit import QUICK, until
from engine.agents.kit import Folder
from interactd.agents.port import BUILTIN_TOOLS
from interactd.durable.local import LocalSchedules
from interactd.engine import LocalEngine
from interactd.errors import InvalidArgument, NotFound
from interactd.paths import find
from interactd.sandbox.credentials.store import Credentials
from interactd.sandbox.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.schedules_port import Execution
from interactd.store.sqlite import SqliteStore
from tools.scripted import Says, ScriptedCatalog

pytestmark = pytest.mark.anyio


class World:
    def __init__(self, home: Path) -> None:
        paths = find({"INTERACTD_HOME": str(home)}).make()
        store = SqliteStore(paths.database)
        folder = Folder(home / "agents")
        folder.put(id="antigravity", description="Does everything", tools=BUILTIN_TOOLS)
        self.catalog = ScriptedCatalog()
        self.schedules = LocalSchedules(
            store.schedules, Credentials(paths, name="webhook-secrets", keeping="file"), QUICK
        )
        self.environments = LocalEnvironments(paths, store, all_launchers(paths))
        self.engine = LocalEngine(
            store, self.catalog, agents=folder, environments=self.environments, schedules=self.schedules
        )

    async def trigger(self, **work: Any) -> str:
        made = await self.schedules.create_trigger(
            schedule="@yearly", time_zone="UTC", work={"input": "go", "agent": "antigravity", **work}
        )
        return made.id

    async def run(self, trigger_id: str) -> Execution:
        """Run it, with one command that makes a sandbox needed."""
        call = {"id": "c", "name": "code_execution", "arguments": {"language": "bash", "code": "echo x >> f; wc -l f"}}
        self.catalog.model.script += [Says([], calls=[call]), "Done."]
        started = await self.schedules.run_trigger(trigger_id)

        async def over() -> Execution | None:
            one = await self.schedules.get_execution(started.id)
            return one if one.finished_at is not None else None

        return await until(over, within_s=60)


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.engine.start()
    yield made
    await made.engine.aclose()


async def test_runs_share_one_environment_in_sessions_of_their_own(world: World) -> None:
    id = await world.trigger(environment={"env": {"A": "b"}})
    first, second = await world.run(id), await world.run(id)
    assert (first.status, second.status) == ("completed", "completed"), (first.error, second.error)
    assert first.environment_id is not None
    assert second.environment_id == first.environment_id
    assert second.session_id != first.session_id
    assert (await world.schedules.get_trigger(id)).environment_id == first.environment_id
    files = await world.environments.files(first.environment_id)
    assert [one["path"] for one in files] == ["f"]
    # Deleted, or not used for too long: the next one is made from the same body, and shared.
    await world.environments.delete(first.environment_id)
    third = await world.run(id)
    assert third.status == "completed"
    assert third.environment_id not in (None, first.environment_id)
    assert (await world.environments.get(third.environment_id or "")).env == {"A": "b"}
    assert (await world.run(id)).environment_id == third.environment_id
    # Another one asked for by an edit.
    other = await world.environments.create({})
    await world.schedules.update_trigger(id, {"work": {"environment": other.id}})
    assert (await world.run(id)).environment_id == other.id


async def test_each_run_has_a_fresh_one_where_that_was_chosen(world: World) -> None:
    id = await world.trigger(share_environment=False)
    first, second = await world.run(id), await world.run(id)
    assert None not in (first.environment_id, second.environment_id)
    assert first.environment_id != second.environment_id
    assert (await world.schedules.get_trigger(id)).environment_id is None


async def test_a_session_of_its_own_remembers_where_it_works(world: World) -> None:
    id = await world.trigger(session="same")
    first, second = await world.run(id), await world.run(id)
    assert first.session_id == second.session_id
    assert first.environment_id == second.environment_id


async def test_what_an_agent_could_not_run_is_refused_at_once(world: World) -> None:
    with pytest.raises(NotFound):
        await world.trigger(agent="nobody")
    with pytest.raises(NotFound):
        await world.trigger(environment="env_" + "0" * 26)
    with pytest.raises(InvalidArgument, match="limits"):
        await world.trigger(limits={"steps": 0})
