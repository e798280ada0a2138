"""Turns over the tools: answers, handles, calls, cancel, resending."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from interactd.errors import (
    ContentBlocked,
    ContextOverflow,
    InteractdError,
    KeyRefused,
    QuotaExceeded,
    RateLimited,
)
from interactd_tools.answers.text import tokens
from interactd_tools.context import ToolResult
from tools.conftest import World, fields
from tools.scripted import Says

pytestmark = pytest.mark.anyio

CALLS = [
    {"id": "call_1", "name": "get_weather", "arguments": {"city": "Paris"}},
    {"id": "call_2", "name": "get_weather", "arguments": {"city": "Lyon"}},
]
TOOLS = [{"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object"}}]


def content(result: ToolResult) -> str:
    """What is between the status line and the cut or the figures."""
    body = result.text.partition("\n\n")[2]
    return re.split(r"\n\n\[cut: |\n\n(?:Tokens: |Ended after )", body)[0]


async def test_a_turn_gives_status_ids_text_cost_and_the_next_call(world: World) -> None:
    session_id = await world.session()
    world.says("Paris is nice in May.\n\nTake the train.")
    result = await world.ok("send_turn", session_id=session_id, input="When?")
    interaction_id = fields(result)["interaction_id"]
    lines = result.text.split("\n")
    assert lines[0] == f"completed · interaction {interaction_id} · session {session_id} · model scripted/parrot"
    assert content(result) == "Paris is nice in May.\n\nTake the train."
    assert re.fullmatch(r"Tokens: 52 in \(40 cached\), 12 out, 3 thought · cost unknown · \d+\.\d s", lines[-2])
    assert lines[-1] == f'Next: send_turn(session_id="{session_id}", input="...")'
    assert fields(result)["usage"]["total_tokens"] == 67
    assert "Paris" not in str(result.structured)


async def test_the_second_turn_has_the_first_in_its_history(world: World) -> None:
    session_id = await world.session()
    await world.turn(session_id, "My name is Ada.")
    await world.turn(session_id, "What is my name?")
    said = [step.text for step in world.catalog.model.requests[-1].steps if step.type == "user_input"]
    assert said == ["My name is Ada.", "What is my name?"]


async def test_a_turn_that_takes_longer_gives_a_handle_and_get_interaction_the_answer(world: World) -> None:
    session_id = await world.session()
    gate = asyncio.Event()
    world.says(Says(["Slow", gate, " but sure."]))
    handle = await world.ok("send_turn", session_id=session_id, input="Go.", wait_s=0.05)
    interaction_id = fields(handle)["interaction_id"]
    assert handle.text.startswith(f"in_progress · interaction {interaction_id} · session {session_id}")
    assert "do not send it again" in handle.text
    assert f'Next: get_interaction(interaction_id="{interaction_id}", wait_s=30)' in handle.text
    assert "Slow" not in handle.text
    so_far = await world.ok("get_interaction", interaction_id=interaction_id, wait_s=0, offset=0)
    assert "Slow" in so_far.text
    gate.set()
    result = await world.ok(fields(handle)["next"]["tool"], **fields(handle)["next"]["arguments"])
    assert content(result) == "Slow but sure."
    assert world.asked == 1


async def test_a_background_turn_returns_at_once_and_its_result_is_announced_until_it_is_read(world: World) -> None:
    first, second = await world.session(), await world.session()
    gate = asyncio.Event()
    world.says(Says([gate, "Found it."]), "Hello.")
    handle = await world.turn(first, "Look for it.", background=True)
    assert handle["status"] in ("queued", "in_progress")
    gate.set()
    await world.ended(handle["interaction_id"])
    other = await world.ok("send_turn", session_id=second, input="Hello.")
    assert "1 unread background result: get_interaction()" in other.text
    listed = await world.ok("list_sessions", unread=True)
    assert f'Next: get_interaction(interaction_id="{handle["interaction_id"]}")' in listed.text
    read = await world.ok("get_interaction", interaction_id=handle["interaction_id"])
    assert content(read) == "Found it."
    assert fields(await world.ok("list_sessions", unread=True))["sessions"] == []
    assert "Unread" not in (await world.ok("send_turn", session_id=second, input="Again.")).text


async def test_function_calls_are_shown_with_the_exact_respond_call(world: World) -> None:
    session_id = await world.session(tools=TOOLS)
    world.says(Says(["Let me look."], calls=CALLS), "Sunny in both.")
    asked = await world.ok("send_turn", session_id=session_id, input="Weather?")
    interaction_id = fields(asked)["interaction_id"]
    assert asked.text.startswith("requires_action · ")
    assert "Let me look.\n\nWaiting for 2 function results:" in asked.text
    assert '- get_weather, call_id="call_1": {"city": "Paris"}' in asked.text
    assert (
        f'Next: respond(interaction_id="{interaction_id}", results=[{{"call_id": "call_1", "result": "..."}}, '
        '{"call_id": "call_2", "result": "..."}])' in asked.text
    )
    half = await world.ok(
        "respond", interaction_id=interaction_id, results=[{"call_id": "call_1", "result": {"c": 20}}]
    )
    assert "Waiting for 1 function result:" in half.text
    assert "call_1" not in half.text
    done = await world.ok(
        "respond", interaction_id=interaction_id, results='[{"call_id": "call_2", "result": "sunny"}]'
    )
    assert content(done) == "Sunny in both."
    whole = await world.ok("get_interaction", interaction_id=interaction_id)
    assert content(whole) == "Let me look.\n\nSunny in both."


async def test_an_answer_to_no_call_is_refused_with_the_calls_there_are(world: World) -> None:
    session_id = await world.session(tools=TOOLS)
    world.says(Says(calls=CALLS))
    asked = await world.turn(session_id)
    wrong = await world.call(
        "respond", {"interaction_id": asked["interaction_id"], "results": [{"call_id": "call_9", "result": 1}]}
    )
    assert wrong.is_error
    assert "call_9" in wrong.text
    assert "call_1" in wrong.text


async def test_a_second_turn_while_one_waits_is_a_conflict_that_says_what_to_call(world: World) -> None:
    session_id = await world.session(tools=TOOLS)
    world.says(Says(calls=CALLS))
    asked = await world.turn(session_id)
    refused = await world.call("send_turn", {"session_id": session_id, "input": "Hello?"})
    assert refused.is_error
    assert refused.text.startswith("conflict: ")
    assert asked["interaction_id"] in refused.text
    assert "respond" in refused.text


async def test_a_turn_while_one_runs_waits_in_line_when_asked(world: World) -> None:
    session_id = await world.session()
    gate = asyncio.Event()
    world.says(Says([gate, "one"]), "two")
    first = await world.turn(session_id, "1", background=True)
    second = await world.ok("send_turn", session_id=session_id, input="2", if_busy="queue", wait_s=0)
    assert second.text.startswith("queued · ")
    gate.set()
    done = await world.ok("get_interaction", interaction_id=fields(second)["interaction_id"])
    assert content(done) == "two"
    assert content(await world.ok("get_interaction", interaction_id=first["interaction_id"])) == "one"


async def test_cancel_keeps_what_was_made_and_can_be_repeated(world: World) -> None:
    session_id = await world.session()
    world.says(Says(["Half a thought", asyncio.Event()]))
    handle = await world.turn(session_id, wait_s=0.05)
    for _ in range(2):
        result = await world.ok("cancel_interaction", interaction_id=handle["interaction_id"])
        assert fields(result)["status"] == "cancelled"
        assert "Half a thought" in result.text
    assert (await world.turn(session_id))["status"] == "completed"


async def test_a_failed_turn_is_an_error_with_the_reason_and_the_way_out(world: World) -> None:
    session_id = await world.session()
    world.says(RateLimited("The provider asks to slow down", repair="Wait 20 s and send it again.", retry_after_s=20))
    result = await world.call("send_turn", {"session_id": session_id, "input": "x"})
    assert result.is_error
    assert result.text.startswith("failed · interaction int_")
    assert "rate_limited: The provider asks to slow down. Wait 20 s and send it again." in result.text
    assert fields(result)["error"] == "rate_limited"


async def test_an_answer_cut_at_the_models_limit_says_so(world: World) -> None:
    session_id = await world.session()
    world.says(Says(["Half an ans"], reason="length"))
    result = await world.ok("send_turn", session_id=session_id, input="x")
    assert fields(result)["status"] == "incomplete"
    assert "stopped at its output limit" in result.text
    assert 'input="Go on."' in result.text


async def test_an_image_from_the_model_is_an_image_and_never_text(world: World) -> None:
    session_id = await world.session()
    image = {"type": "image", "data": "aGVsbG8=", "mime_type": "image/png"}
    world.says(Says(["Here."], images=[image]))
    result = await world.ok("send_turn", session_id=session_id, input="Draw.")
    assert [(one.data, one.mime_type) for one in result.images] == [("aGVsbG8=", "image/png")]
    assert "aGVsbG8" not in result.text + str(result.structured)


LONG = "\n\n".join(f"Paragraph {i}: " + f"wörd{i} 日本 " * 40 for i in range(200))


@pytest.mark.parametrize("text", [LONG, "x" * 100_000, "日本語" * 20_000, "\n" * 30_000 + "end", "a\n\nb " * 20_000])
async def test_the_pieces_of_a_long_answer_join_to_the_whole(world: World, text: str) -> None:
    session_id = await world.session()
    world.says(text)
    result = await world.ok("send_turn", session_id=session_id, input="Write much.")
    pieces = [content(result)]
    assert tokens(pieces[0]) <= 2000
    while (now := fields(result))["next_offset"] is not None:
        assert len(pieces) < 100
        assert f"[cut: {now['more_tokens']:,} more tokens; get_interaction(interaction_id=" in result.text
        assert f"offset={now['next_offset']})]" in result.text
        assert now["next"]["tool"] == "get_interaction"
        result = await world.ok("get_interaction", **now["next"]["arguments"], max_tokens=8000)
        pieces.append(content(result))
        assert tokens(pieces[-1]) <= 8000
    assert "".join(pieces) == text


async def test_an_answer_is_cut_at_a_paragraph(world: World) -> None:
    session_id = await world.session()
    world.says("\n\n".join(f"Paragraph {i}. " + "word " * 100 for i in range(100)))
    assert content(await world.ok("send_turn", session_id=session_id, input="x")).endswith("word \n\n")


async def test_reading_behind_the_end_says_that_there_is_nothing(world: World) -> None:
    session_id = await world.session()
    world.says("Short.")
    done = await world.turn(session_id)
    beyond = await world.ok("get_interaction", interaction_id=done["interaction_id"], offset=10**15)
    assert "[nothing after offset 6]" in beyond.text


async def test_details_have_input_thoughts_calls_and_results(world: World) -> None:
    session_id = await world.session(tools=TOOLS)
    world.says(Says(thought="Ask the service.", calls=CALLS[:1]), "Sunny.")
    asked = await world.turn(session_id, "Weather?")
    results = [{"call_id": "call_1", "result": "sunny"}]
    await world.ok("respond", interaction_id=asked["interaction_id"], results=results)
    result = await world.ok("get_interaction", interaction_id=asked["interaction_id"], response_format="detailed")
    for part in ("[user]\nWeather?", "[thought]\nAsk the service.", "[calls get_weather, call_id=call_1]", "sunny"):
        assert part in result.text


async def test_the_same_key_gives_the_same_turn_and_says_so(world: World) -> None:
    session_id = await world.session()
    first = await world.turn(session_id, "Once.", idempotency_key="k1")
    again = await world.ok("send_turn", session_id=session_id, input="Once.", idempotency_key="k1")
    assert fields(again)["interaction_id"] == first["interaction_id"]
    assert "nothing new was started" in again.text
    assert world.asked == 1
    other = await world.call("send_turn", {"session_id": session_id, "input": "Else.", "idempotency_key": "k1"})
    assert other.is_error
    assert other.text.startswith("conflict: ")


@pytest.mark.parametrize("request_id", [1, "1", "abc"])
async def test_a_request_sent_again_on_its_connection_is_answered_and_not_run_twice(
    world: World, request_id: str | int
) -> None:
    async def send(
        tool: str, arguments: dict[str, Any], number: str | int = request_id, to: str = "con_1"
    ) -> ToolResult:
        result = await world.call(tool, arguments, connection=to, request_id=number)
        assert not result.is_error, result.text
        return result

    made = [fields(await send("create_session", {"title": "One"}))["session_id"] for _ in range(2)]
    assert made[0] == made[1]
    turn = {"session_id": made[0], "input": "Hello."}
    first, second = await send("send_turn", turn), await send("send_turn", turn)
    assert fields(first)["interaction_id"] == fields(second)["interaction_id"]
    assert content(first) == content(second)
    assert "nothing new" not in second.text
    assert world.asked == 1
    forks = [fields(await send("fork_session", {"session_id": made[0]}))["session_id"] for _ in range(2)]
    assert forks[0] == forks[1]
    # Another request, another connection, or other arguments under a reused id are new work.
    await send("send_turn", turn, "other")
    await send("send_turn", turn, request_id, "con_2")
    await send("send_turn", {**turn, "input": "Something else."})
    assert world.asked == 4


async def test_giving_up_on_the_call_does_not_stop_the_turn(world: World) -> None:
    session_id = await world.session()
    gate = asyncio.Event()
    world.says(Says([gate, "Done."]))
    call = asyncio.create_task(world.call("send_turn", {"session_id": session_id, "input": "x"}))
    async with asyncio.timeout(10):
        await world.catalog.model.called.wait()
    call.cancel()
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
    gate.set()
    seen = fields(await world.ok("get_session", session_id=session_id))["interactions"]
    assert content(await world.ok("get_interaction", interaction_id=seen[0]["id"])) == "Done."


@pytest.mark.parametrize(
    ("error", "following"),
    [
        (RateLimited("slow down", repair="Wait 120 s."), 'send_turn(session_id="{}", input="<the same input>")'),
        (KeyRefused("bad key"), "list_agents()"),
        (QuotaExceeded("no credit"), "list_agents()"),
        (ContentBlocked("no"), 'send_turn(session_id="{}", input="<another input>")'),
        (ContextOverflow("too long"), 'fork_session(session_id="{}", at="<an earlier turn>")'),
    ],
)
async def test_the_next_call_after_a_failure_is_not_the_one_that_fails_again(
    world: World, error: InteractdError, following: str
) -> None:
    session_id = await world.session()
    world.says(error)
    result = await world.call("send_turn", {"session_id": session_id, "input": "Hello."})
    assert result.is_error
    assert result.text.endswith(f"Next: {following.format(session_id)}")


async def test_an_incomplete_answer_says_why_once_and_what_to_do(world: World) -> None:
    session_id = await world.session()
    world.says(Says([], reason="stop"))
    result = await world.ok("send_turn", session_id=session_id, input="Hello.")
    assert fields(result)["status"] == "incomplete"
    assert ".." not in result.text.replace('"..."', "")
