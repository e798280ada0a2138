from __future__ import annotations

import pytest

from tools.conftest import World, fields

pytestmark = pytest.mark.anyio


async def test_a_turn_that_waits_says_why_wherever_it_is_looked_at(world: World) -> None:
    session = await world.session()
    later = {"session_id": session, "input": "x", "background": True, "dispatch": {"delay_s": 600, "priority": 3}}
    sent = await world.ok("send_turn", **later)
    id = fields(sent)["interaction_id"]
    assert fields(sent)["status"] == "queued"
    assert fields(sent)["queue_reason"].startswith("not before ")
    assert f"It waits: {fields(sent)['queue_reason']}" in sent.text
    seen = await world.ok("get_interaction", interaction_id=id, wait_s=0)
    assert fields(seen)["queue_reason"].startswith("not before ")
    listed = await world.ok("list_sessions")
    assert f"now: {id} queued: not before " in listed.text
    status = await world.ok("server_status")
    assert "1 interaction not before a later time." in status.text
    cancelled = await world.ok("cancel_interaction", interaction_id=id)
    assert fields(cancelled)["status"] == "cancelled"
    assert "now:" not in (await world.ok("list_sessions")).text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"priority": 1000}, "dispatch.priority: expected a whole number from -100 to 100"),
        ({"timeout_s": 0}, "dispatch.timeout_s: expected a number from 1 to 604,800"),
        ({"urgent": True}, "dispatch.urgent"),
    ],
)
async def test_wrong_terms_are_named(world: World, given: dict[str, object], told: str) -> None:
    session = await world.session()
    refused = await world.call("send_turn", {"session_id": session, "input": "x", "dispatch": given})
    assert refused.is_error
    assert told in refused.text
