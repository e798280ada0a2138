"""An agent over every provider's true wire, on loopback: calls, results and images come through both ways."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from engine.agents.kit import RUN_PATIENCE_S, Folder
from interactd.config import Config
from interactd.config.schema import Kind, Provider
from interactd.engine import EngineSettings, LocalEngine
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.paths import Paths
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore
from support.provider import Call, FakeProvider, Reply

pytestmark = pytest.mark.anyio

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
KINDS: list[Kind] = ["openai-chat", "openai-responses", "anthropic", "gemini"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_works_over_the_wire(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "sk-fake")
    paths = Paths(*(str(tmp_path / part) for part in ("config", "data", "state", "logs", "cache", "run"))).make()
    agents = Folder(tmp_path / "agents")
    agents.put()
    async with FakeProvider() as server:
        provider = Provider(
            kind=kind, base_url=server.base_url, api_key_env="FAKE_KEY", models=["fake-model-1"], allow_http=True
        )
        store = SqliteStore(paths.database)
        catalog = ModelCatalog(Config(providers={"fake": provider}), KeyRing(frozenset({"FAKE_KEY"})))
        engine = LocalEngine(
            store,
            catalog,
            EngineSettings(),
            agents=agents,
            environments=LocalEnvironments(paths, store, all_launchers(paths)),
        )
        await engine.start()
        try:
            code = f"import base64\nopen('p.png', 'wb').write(base64.b64decode('{PIXEL}'))\nprint('drawn')"
            server.script(
                [
                    Reply(
                        thought="I draw.", calls=[Call("code_execution", {"language": "python", "code": code}, "c1")]
                    ),
                    Reply(calls=[Call("view_file", {"path": "p.png"}, "c2"), Call("list_dir", {}, "c3")]),
                    "It is a pixel.",
                    "And more.",
                ]
            )
            session = await engine.create_session(agent="helper", model="fake/fake-model-1")
            sent = await engine.send_turn(session.id, "draw a pixel")
            done = await engine.wait(sent.interaction.id, RUN_PATIENCE_S)
            assert done.interaction.status == "completed", done.interaction.error
            assert done.steps[-1].text == "It is a pixel."
            types = [step.type for step in done.steps]
            assert types.count("code_execution_call") == types.count("code_execution_result") == 1
            assert types.count("function_call") == types.count("function_result") == 2
            third = server.requests[2].body
            assert b"drawn" in third
            assert b"p.png" in third
            assert PIXEL[:40].encode() in third, "the picture itself is shown to the model"
            assert b"interactd_function" not in third
            again = await engine.send_turn(session.id, "and?")
            assert (await engine.wait(again.interaction.id, RUN_PATIENCE_S)).interaction.status == "completed"
            assert b"drawn" in server.requests[3].body, "earlier turns are replayed with their calls"
            assert base64.b64decode(PIXEL) == next(
                one.path.read_bytes() for one in await engine.artifacts(sent.interaction.id) if one.name == "p.png"
            )
        finally:
            await engine.aclose()
