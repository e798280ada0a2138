"""Sessions, transcripts, search and the machine's state as tools show them."""

from __future__ import annotations

import asyncio

import pytest

from interactd.models.port import ModelInfo
from interactd_tools.answers.text import tokens
from interactd_tools.hosts import META_KEY
from tools.conftest import World, fields

pytestmark = pytest.mark.anyio


async def test_a_new_session_says_its_id_model_lifetime_and_what_to_call(world: World) -> None:
    result = await world.ok("create_session", title="  Trip\nto Paris ", ttl="7d", labels={"project": "trip"})
    session_id = fields(result)["session_id"]
    lines = result.text.split("\n")
    assert lines[0] == f'active · session {session_id} · model scripted/parrot · "Trip to Paris"'
    assert "7 days after its last turn" in result.text
    assert lines[-1] == f'Next: send_turn(session_id="{session_id}", input="...")'


async def test_a_session_kept_for_ever_says_so(world: World) -> None:
    result = await world.ok("create_session", ttl="forever")
    assert "Kept until it is deleted." in result.text
    assert "expires_at" not in fields(result)


async def test_an_unknown_model_is_an_error_that_leads_to_list_agents(world: World) -> None:
    result = await world.call("create_session", {"model": "gtp-5"})
    assert result.is_error
    assert result.text.startswith("unknown_model: ")
    assert "list_agents" in result.text
    assert fields(result)["suggestions"] == ["scripted/parrot"]


async def test_what_a_session_sets_reaches_the_model(world: World) -> None:
    session_id = await world.session(
        system_instruction="Be brief.", thinking_level="low", generation_config={"temperature": 0.5, "seed": 7}
    )
    await world.turn(session_id, thinking_level="high")
    request = world.catalog.model.requests[0]
    assert request.system_instruction == "Be brief."
    assert request.config.as_dict() == {"thinking_level": "high", "temperature": 0.5, "seed": 7}


async def test_sessions_are_listed_last_used_first_in_pages(world: World) -> None:
    made = [await world.session(title=f"Number {i}") for i in range(5)]
    await world.turn(made[0])
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        result = await world.ok("list_sessions", limit=2, cursor=cursor)
        seen += fields(result)["sessions"]
        cursor = fields(result)["cursor"]
        if cursor:
            assert f'list_sessions(limit=2, cursor="{cursor}")' in result.text
    assert seen[0] == made[0]
    assert sorted(seen) == sorted(made)
    assert cursor is None


async def test_labels_narrow_the_list(world: World) -> None:
    await world.session(labels={"project": "a"})
    wanted = await world.session(labels={"project": "b"})
    assert fields(await world.ok("list_sessions", labels={"project": "b"}))["sessions"] == [wanted]
    none = await world.ok("list_sessions", labels={"project": "c"})
    assert none.text.startswith("No active sessions with these labels.")


async def test_a_transcript_is_short_by_default_and_pages_back(world: World) -> None:
    session_id = await world.session()
    ids: list[str] = []
    for i in range(7):
        world.says(f"Answer {i}. " + "word " * 200)
        ids.append((await world.turn(session_id, f"Question {i}?"))["interaction_id"])
    result = await world.ok("get_session", session_id=session_id, limit=3)
    assert [one["id"] for one in fields(result)["interactions"]] == ids[4:]
    assert "user: Question 6?\nmodel: Answer 6. word" in result.text
    assert "Question 3?" not in result.text
    assert tokens(result.text) < 600
    assert f'get_session(session_id="{session_id}", before="{ids[4]}") for older turns' in result.text
    older = await world.ok("get_session", session_id=session_id, limit=10, before=ids[4])
    assert [one["id"] for one in fields(older)["interactions"]] == ids[:4]
    assert fields(older)["before"] is None


async def test_a_detailed_transcript_shows_as_many_turns_as_fit_and_the_way_to_the_rest(world: World) -> None:
    session_id = await world.session()
    texts = [f"Answer {i}. " + "\n\n".join(f"word {i} {n}" * 10 for n in range(120)) for i in range(4)]
    for text in texts:
        world.says(text)
        await world.turn(session_id)
    seen: list[str] = []
    before = None
    for _ in range(10):
        result = await world.ok("get_session", session_id=session_id, response_format="detailed", before=before)
        assert tokens(result.text) < 2600
        seen = [result.text, *seen]
        before = fields(result)["before"]
        if before is None:
            break
    assert all(sum(f"Answer {i}." in page for page in seen) == 1 for i in range(4))
    whole = "\n".join(seen)
    assert "[cut: " in whole
    assert 'response_format="detailed")]' in whole


async def test_a_fork_shares_the_history_and_outlives_the_old_session(world: World) -> None:
    old = await world.session()
    first = await world.turn(old, "My name is Ada.")
    await world.turn(old, "Something else.")
    result = await world.ok("fork_session", session_id=old, at=first["interaction_id"], title="Other way")
    new = fields(result)["session_id"]
    assert f"Forked from {old} at {first['interaction_id']}, with 1 turn of history." in result.text
    await world.turn(new, "What is my name?")
    said = [step.text for step in world.catalog.model.requests[-1].steps if step.type == "user_input"]
    assert said == ["My name is Ada.", "What is my name?"]
    gone = await world.ok("delete_session", session_id=old)
    assert "because a fork goes through them: 1 interaction" in gone.text
    assert new in gone.text
    assert "My name is Ada." in (await world.ok("get_session", session_id=new)).text


async def test_a_delete_gives_a_receipt_and_the_same_one_again(world: World) -> None:
    session_id = await world.session()
    done = await world.turn(session_id)
    first = await world.ok("delete_session", session_id=session_id)
    assert first.text.startswith(f"deleted · session {session_id} · receipt rcp_")
    assert "Removed: 1 session, 1 interaction, 2 steps" in first.text
    again = await world.ok("delete_session", session_id=session_id)
    assert fields(again)["receipt_id"] == fields(first)["receipt_id"]
    for tool, arguments in (
        ("send_turn", {"session_id": session_id, "input": "x"}),
        ("get_session", {"session_id": session_id}),
        ("fork_session", {"session_id": session_id}),
        ("get_interaction", {"interaction_id": done["interaction_id"]}),
    ):
        result = await world.call(tool, arguments)
        assert result.is_error
        assert result.text.startswith("deleted: "), result.text
        assert "_session" in result.text.partition(". ")[2]


async def test_ids_may_be_shortened_and_ambiguous_ones_are_listed(world: World) -> None:
    first = await world.session()
    # Before there is a second: ids of one millisecond differ in their last letter only.
    assert fields(await world.ok("get_session", session_id=first[:-1]))["session_id"] == first
    second = await world.session()
    both = await world.call("get_session", {"session_id": first[:8]})
    assert both.text.startswith("ambiguous_id: ")
    assert set(fields(both)["candidates"]) == {first, second}


@pytest.mark.parametrize(
    "tool", ["get_session", "delete_session", "fork_session", "get_interaction", "cancel_interaction"]
)
async def test_an_id_that_never_was_is_not_found(world: World, tool: str) -> None:
    field, value = ("interaction_id", "int_") if "interaction" in tool else ("session_id", "ses_")
    result = await world.call(tool, {field: value + "7" + "z" * 25})
    assert result.is_error
    assert result.text.startswith("not_found: ")
    assert "_" in result.text.rpartition(". ")[2] or "Next: " in result.text


async def test_history_is_searched_with_snippets_and_ids(world: World) -> None:
    session_id = await world.session(title="Birds")
    world.says("The zebra finch sings at dawn.")
    done = await world.turn(session_id, "Tell me about a bird.")
    result = await world.ok("search_history", query="zebra finch")
    assert result.text.startswith('1 result for "zebra finch"')
    assert session_id in result.text
    assert f'Next: get_interaction(interaction_id="{done["interaction_id"]}")' in result.text
    assert "zebra" in result.text.partition("\n\n")[2]
    nothing = await world.ok("search_history", query='"sings zebra" OR )(')
    assert nothing.text.startswith("Nothing matches")


async def test_search_results_come_in_pages(world: World) -> None:
    session_id = await world.session()
    for _ in range(3):
        world.says("A giraffe.")
        await world.turn(session_id, "What?")
    first = await world.ok("search_history", query="giraffe", limit=2)
    assert len(fields(first)["hits"]) == 2
    second = await world.ok("search_history", query="giraffe", limit=2, cursor=fields(first)["cursor"])
    seen = {hit["interaction_id"] for result in (first, second) for hit in fields(result)["hits"]}
    assert len(seen) == 3
    assert fields(second)["cursor"] is None


async def test_models_are_listed_with_why_and_with_the_keys_of_the_caller(world: World) -> None:
    world.catalog.more = [ModelInfo("openai/gpt-5", "openai", False, "OPENAI_API_KEY is not set")]
    result = await world.call("list_agents", {}, connection="con_7")
    assert result.text.startswith("0 agents · 1 model usable, 1 not")
    assert "auto: scripted/parrot" in result.text
    assert "- not usable: openai/gpt-5: OPENAI_API_KEY is not set" in result.text
    assert 'Next: create_session(model="scripted/parrot")' in result.text
    assert "con_7" in world.catalog.asked_for


async def test_a_long_list_of_models_is_cut_and_goes_on(world: World) -> None:
    world.catalog.more = [ModelInfo(f"many/model-{i}", "many", True, "OPENAI_API_KEY") for i in range(500)]
    seen = ""
    offset = 0
    for _ in range(20):
        result = await world.ok("list_agents", offset=offset)
        assert tokens(result.text) < 2400
        seen += result.text
        offset = fields(result)["next_offset"]
        if offset is None:
            break
        assert f"list_agents(offset={offset})" in result.text
    assert all(f"many/model-{i}:" in seen for i in range(500))
    assert fields(await world.ok("list_agents", query="model-499"))["usable"] == 1


async def test_status_says_whether_the_server_is_well(world: World) -> None:
    result = await world.ok("server_status")
    assert result.text.startswith("ok · interactd ")
    assert "Running: 0 interactions, 0 queued." in result.text


@pytest.mark.parametrize("host", ["claude-code", "codex-mcp-client", "Visual Studio Code", "opencode"])
async def test_hosts_that_hide_text_behind_structured_content_get_none(world: World, host: str) -> None:
    result = await world.call("create_session", {}, client_name=host)
    assert result.structured is None
    assert result.meta[META_KEY]["session_id"] in result.text
    failed = await world.call("send_turn", {}, client_name=host)
    assert failed.structured is None


async def test_an_expired_session_is_called_expired_and_not_unknown(world: World) -> None:
    session_id = await world.session(ttl="1s")
    result = await world.call("get_session", {"session_id": session_id})
    for _ in range(200):
        if result.is_error:
            break
        await asyncio.sleep(0.05)
        result = await world.call("get_session", {"session_id": session_id})
    assert result.text.startswith(f"expired: Session {session_id} expired")
    assert "create_session" in result.text
    refused = await world.call("send_turn", {"session_id": session_id, "input": "x"})
    assert refused.text.startswith("expired: ")
    assert session_id in (await world.ok("list_sessions", state="all")).text
    assert session_id not in (await world.ok("list_sessions")).text
    assert not (await world.call("list_sessions", {"state": "all", "unread": True})).is_error


async def test_ten_thousand_calls_at_once_are_all_answered(world: World) -> None:
    session_id = await world.session()
    await world.turn(session_id)
    wrong = {"session_id": session_id, "colour": "red"}
    calls = [world.call("get_session", {"session_id": session_id} if i % 2 else wrong) for i in range(10_000)]
    results = await asyncio.gather(*calls)
    assert [result.is_error for result in results] == [i % 2 == 0 for i in range(10_000)]


async def test_what_expired_is_listed_and_not_offered_for_reading(world: World) -> None:
    session_id = await world.session(ttl="1s")
    await asyncio.sleep(1.01)  # Its time passes by the clock on the wall; there is no event to wait for.
    result = await world.ok("list_sessions", state="expired")
    assert fields(result)["sessions"] == [session_id]
    assert result.text.endswith("Next: create_session()")
