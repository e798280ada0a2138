from __future__ import annotations

import time
from typing import Any

import pytest

from interactd.errors import Deleted, NotFound
from interactd.ids import new_id
from interactd.nouns import Step, text_content
from interactd.store.port import Hit, Store

from .kit import a_session, create, start, turn

pytestmark = pytest.mark.anyio


async def hits(store: Store, query: str, **by: Any) -> list[Hit]:
    return (await store.search(query, **by)).items


async def test_a_word_is_found_as_soon_as_its_turn_is_accepted(store: Store) -> None:
    session = await create(store, title="Rivers")
    id = await start(store, session.id, "Where does the Okavango end?")
    [hit] = await hits(store, "okavango")
    assert (hit.session_id, hit.interaction_id, hit.seq, hit.type) == (session.id, id, 0, "user_input")
    assert hit.session_title == "Rivers"
    assert hit.snippet == "Where does the [Okavango] end?"
    assert hit.score > 0


async def test_every_kind_of_step_is_found_by_its_words(store: Store) -> None:
    session = await create(store)
    id = await start(store, session.id, "uniqueinput")
    media = {"type": "image", "data": "uniquebase64", "mime_type": "image/png"}
    steps = [
        Step("thought", {"summary": [text_content("uniquethought")]}, {"signature": "uniquestate"}),
        Step("function_call", {"id": "c1", "name": "unique_tool", "arguments": {"where": {"city": "uniquecity"}}}),
        Step("function_result", {"call_id": "c1", "name": "t", "result": {"id": "uniqueresult", "n": 4711}}),
        Step("model_output", {"content": [text_content("uniqueoutput"), media]}),
        Step("code_execution_call", {"id": "c2", "arguments": {"code": "print(uniquecode)"}}),
    ]
    await store.settle(id, 1, "completed", steps=steps, now=time.time())
    words = ["uniqueinput", "uniquethought", "unique_tool", "uniquecity", "uniqueresult", "4711", "uniqueoutput"]
    for word in [*words, "uniquecode"]:
        assert len(await hits(store, word)) == 1, word
    for hidden in ("uniquebase64", "uniquestate"):
        assert await hits(store, hidden) == [], hidden
    assert [hit.type for hit in await hits(store, "unique*", types=["thought", "function_call"], limit=9)] != []
    assert {hit.type for hit in await hits(store, "unique*", types=["thought"])} == {"thought"}
    assert await hits(store, "unique*", types=[]) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("brown fox", True),
        ("fox brown", True),
        ('"quick brown"', True),
        ('"brown quick"', False),
        ("qui*", True),
        ("qui", False),
        ('"quick bro"*', True),
        ("BROWN", True),
        ("creme brulee", True),
        ("crème", True),
        ("brown missing", False),
        ("foo-bar.baz", True),
        ("user@example.com", True),
        ("brown NOT fox", False),
        ('brown "fox', True),
        ("brown !!! (fox)", True),
        ("text:brown", False),
        ("^quick", True),
        ("天气", True),
        ("气", True),
        ("气天", False),
        ("東京タワー", True),
        ("서울", True),
        ("กรุงเทพ", True),
        ("abc中文", True),
    ],
)
async def test_what_a_person_types_finds_what_they_mean(store: Store, query: str, found: bool) -> None:
    session = await create(store)
    text = (
        "The quick brown fox had Crème Brûlée at foo-bar.baz, wrote to user@example.com; 今天天气很好。"
        "東京タワーへ行く。서울에서 만나요. กรุงเทพมหานคร abc中文def"
    )
    await turn(store, session.id, text, "unrelated")
    assert bool(await hits(store, query)) == found


@pytest.mark.parametrize(
    "query", ["", "   ", "*", '"', '""', "!!!", "AND", "NEAR(a b)", "a OR", "(", "\0", "\ud800", "🎉"]
)
async def test_any_text_is_a_legal_query(store: Store, query: str) -> None:
    session = await create(store)
    await turn(store, session.id, "plain words only")
    assert await hits(store, query) == []
    await hits(store, query * 50_000)


async def test_chinese_snippets_read_as_they_were_written(store: Store) -> None:
    session = await create(store)
    await turn(store, session.id, "今天天气很好，我们去公园吧")
    [hit] = await hits(store, "天气")
    assert hit.snippet == "今天[天气]很好，我们去公园吧"


async def test_results_come_in_pages_best_first(store: Store) -> None:
    session = await create(store)
    previous: str | None = None
    for number in range(25):
        previous = await turn(store, session.id, "needle " * (number + 1), "hay", previous)
    seen: list[Hit] = []
    cursor: str | None = None
    while True:
        page = await store.search("needle", limit=10, cursor=cursor)
        seen += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert len({hit.interaction_id for hit in seen}) == len(seen) == 25
    assert [hit.score for hit in seen] == sorted((hit.score for hit in seen), reverse=True)


async def test_search_sees_its_owner_and_what_is_kept_only(store: Store) -> None:
    mine, theirs = await create(store), await create(store, owner="bob")
    old = await create(store)
    for session in (mine, theirs, old):
        await turn(store, session.id, "shared secret")
    await store.set_expiry(old.id, 1.0, time.time() - 1)
    assert {hit.session_id for hit in await hits(store, "secret")} == {mine.id}
    assert {hit.session_id for hit in await hits(store, "secret", owner="bob")} == {theirs.id}
    assert await hits(store, "secret", session_id=theirs.id) == []
    with pytest.raises(NotFound):
        await hits(store, "secret", session_id=new_id("session"))
    await store.delete_session(mine.id, time.time())
    assert await hits(store, "secret") == []
    with pytest.raises(Deleted):
        await hits(store, "secret", session_id=mine.id)


async def test_a_fork_finds_the_turns_it_came_from_and_no_later_ones(store: Store) -> None:
    session = await create(store, title="first")
    one = await turn(store, session.id, "apple one")
    two = await turn(store, session.id, "apple two", previous=one)
    await turn(store, session.id, "apple three", previous=two)
    fork = a_session(forked_from=session.id, forked_at=two, head=two, title="second")
    await store.fork_session(fork)
    own = await turn(store, fork.id, "apple four", previous=two)
    found = await hits(store, "apple", session_id=fork.id)
    assert {hit.interaction_id for hit in found} == {one, two, own}
    assert {(hit.session_id, hit.session_title) for hit in found} == {(fork.id, "second")}
    assert len(await hits(store, "apple")) == 4


async def test_words_at_the_end_of_a_long_text_are_found(store: Store) -> None:
    session = await create(store)
    await turn(store, session.id, "filler words " * 90_000 + "lastword", "x" * 1_200_000)
    [hit] = await hits(store, "lastword")
    assert "[lastword]" in hit.snippet
    assert len(hit.snippet) < 1000
