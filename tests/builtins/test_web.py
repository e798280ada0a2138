"""url_fetch under the environment's rules, and how its text comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.agents.kit import RUN_PATIENCE_S, calls, result_of, rig
from interactd.builtins.web import PolicyFetcher
from interactd.nouns import Json
from support.provider import FakeProvider, Raw

pytestmark = pytest.mark.anyio


async def test_a_page_is_fetched_as_text_where_the_rules_allow_it(tmp_path: Path) -> None:
    async with FakeProvider() as web, rig(tmp_path, fetcher=PolicyFetcher()) as it:
        web.routes["/page"] = Raw(
            "<html><body><h1>Title</h1><p>words</p><script>no</script></body></html>", content_type="text/html"
        )
        network: Json = {"allowlist": [{"domain": f"127.0.0.1:{web.port}"}]}
        it.agents.put(id="reader", environment={"network": network})
        session = await it.session(agent="reader")
        it.model.script(
            calls("url_fetch", {"url": f"{web.base_url}/page"}),
            calls("url_fetch", {"url": "https://example.org"}, "c2"),
            "ok",
        )
        sent = await it.engine.send_turn(session.id, "read")
        result = await it.engine.wait(sent.interaction.id, RUN_PATIENCE_S)
        assert result.interaction.status == "completed", result.interaction.error
        page = result_of(result)["result"][0]
        assert page["url"] == f"{web.base_url}/page"
        assert page["status"] == "success"
        assert "words" in page["text"]
        assert "<p>" not in page["text"]
        refused = result_of(result, "c2")
        assert refused["is_error"] is True
        assert refused["result"][0]["status"] == "error"
        assert [s.type for s in result.steps].count("url_context_call") == 2
        names = [tool["name"] for tool in it.model.requests[0].tools]
        assert "url_fetch" in names
        assert any("words" in str(step.body) for step in it.model.requests[-1].steps)
