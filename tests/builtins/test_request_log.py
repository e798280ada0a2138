"""What is asked of the web for a run from outside of its sandbox is in the run's log, like what is asked inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interactd.builtins.hooks.guard import Guard
from interactd.builtins.port import ToolContext
from interactd.builtins.web import PolicyFetcher, UrlFetch
from interactd.nouns import Json
from sandbox.environments.kit import world
from support.provider import FakeProvider, Raw

pytestmark = pytest.mark.anyio


def told(log: list[Json]) -> list[tuple[Any, ...]]:
    return [(one["method"], one["host"], one["verdict"], one.get("status")) for one in log]


async def test_url_fetch_writes_each_request_allowed_denied_and_failed(tmp_path: Path) -> None:
    async with FakeProvider() as web, world(tmp_path / "home") as w:
        web.routes["/page"] = Raw("words", content_type="text/plain")
        there, nobody = f"127.0.0.1:{web.port}", "127.0.0.1:9"
        made = await w.environments.create({"network": {"allowlist": [{"domain": there}, {"domain": nobody}]}})
        fetch = UrlFetch(PolicyFetcher())
        async with w.environments.lease(made.id, await w.interaction()) as space:
            ctx = ToolContext(space, "int_1", "call_1")
            await space.run_bash(f"python3 -c 'import urllib.request as u; u.urlopen(\"http://{there}/page\")'")
            for url in (f"http://{there}/page", f"http://{nobody}/", "https://example.org/secret?token=abc"):
                await fetch.call({"url": url}, ctx)
            log = await space.egress_log()
        assert told(log)[1:] == [
            ("GET", "127.0.0.1", "allowed", 200),
            ("GET", "127.0.0.1", "failed", None),
            ("GET", "example.org", "denied", None),
        ]
        assert log[1]["bytes_down"] > 0
        assert all(one["ms"] is not None for one in log)
        assert "secret" not in str(log)
        assert "abc" not in str(log)
        # What another run asked is not in this one's.
        async with w.environments.lease(made.id, await w.interaction()) as space:
            assert await space.egress_log() == []


async def test_http_hooks_are_in_it_too(tmp_path: Path) -> None:
    async with FakeProvider() as web, world(tmp_path / "home") as w:
        web.script(Raw('{"decision": "allow"}', content_type="application/json"))
        web.script(Raw("no", status=404))
        made = await w.environments.create({})

        def hooks(url: str) -> Json:
            return {"g": {"enabled": True, "pre_tool_execution": [{"hooks": [{"type": "http", "url": url}]}]}}

        async with w.environments.lease(made.id, await w.interaction()) as space:
            yes = Guard(hooks(f"{web.base_url}/yes"), space, trusted=True)
            assert await yes.before("code_execution", {}) is None
            for url, trusted in ((f"{web.base_url}/none", True), ("http://127.0.0.1:9/", True), (web.base_url, False)):
                assert await Guard(hooks(url), space, trusted=trusted).before("code_execution", {}) is not None
            log = await space.egress_log()
        assert [(method, verdict, status) for method, _host, verdict, status in told(log)] == [
            ("POST", "allowed", 200),
            ("POST", "allowed", 404),
            ("POST", "failed", None),
            ("POST", "denied", None),
        ]
        assert log[0]["port"] == web.port
