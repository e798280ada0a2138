from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from interactd.errors import AmbiguousId, Conflict, Deleted, Expired, InvalidArgument, NotFound
from interactd.ids import new_id
from interactd.nouns import GenerationConfig
from interactd.store.port import IdempotencyKey, Store

from .kit import FAR, a_session, an_interaction, chain, create, start, turn

pytestmark = pytest.mark.anyio


async def test_a_session_comes_back_as_it_was_written(store: Store) -> None:
    session = a_session(
        owner="ann",
        title="Straße 東京",
        model="openai/gpt-5",
        agent="antigravity",
        system_instruction="be brief\nand kind",
        generation_config=GenerationConfig(thinking_level="low", temperature=0.5, stop_sequences=["a", "b"]),
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        labels={"project": "x", "with space": "ü"},
        ttl_s=60.0,
        expires_at=FAR,
    )
    await store.create_session(session)
    assert await store.get_session(session.id) == session


async def test_a_session_that_never_was_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound) as caught:
        await store.get_session(new_id("session"))
    assert caught.value.fields["kind"] == "session"


async def test_data_survives_closing_and_opening_again(make_store: Callable[[], Store]) -> None:
    first = make_store()
    await first.open()
    session = await create(first)
    id = await turn(first, session.id, "remember me")
    await first.aclose()
    second = make_store()
    await second.open()
    assert (await second.get_session(session.id)).head == id
    assert (await second.get_steps(id))[0].text == "remember me"
    assert len((await second.search("remember")).items) == 1
    await second.aclose()


async def test_a_closed_store_says_so(make_store: Callable[[], Store]) -> None:
    store = make_store()
    await store.open()
    await store.aclose()
    await store.aclose()
    with pytest.raises(Exception, match="not open"):
        await store.get_session("ses_0")


async def test_the_same_key_gives_the_same_session(store: Store) -> None:
    key = IdempotencyKey("k", "digest")
    first = await store.create_session(a_session(), key)
    again = await store.create_session(a_session(), key)
    assert (first.created, again.created) == (True, False)
    assert again.id == first.id


async def test_a_key_with_other_arguments_is_a_conflict(store: Store) -> None:
    await store.create_session(a_session(), IdempotencyKey("k", "one"))
    with pytest.raises(Conflict):
        await store.create_session(a_session(), IdempotencyKey("k", "two"))
    assert len((await store.list_sessions()).items) == 1


async def test_a_key_of_another_kind_of_work_is_a_conflict(store: Store) -> None:
    session = a_session()
    await store.create_session(session, IdempotencyKey("k", "d"))
    with pytest.raises(Conflict):
        await store.accept(an_interaction(session.id), [], expires_at=FAR, key=IdempotencyKey("k", "d"))
    assert (await store.get_session(session.id)).head is None


async def test_a_key_is_recalled_with_what_it_started(store: Store) -> None:
    key = IdempotencyKey("k", "d")
    assert await store.recall(key) is None
    session = a_session()
    await store.create_session(session, key)
    one = an_interaction(session.id)
    await store.accept(one, [], expires_at=FAR, key=IdempotencyKey("turn", "d"))
    assert await store.recall(key) == session.id
    assert await store.recall(IdempotencyKey("turn", "d")) == one.id
    assert await store.recall(IdempotencyKey("k", "d", owner="bob")) is None
    with pytest.raises(Conflict):
        await store.recall(IdempotencyKey("k", "other"))


async def test_keys_of_two_owners_do_not_meet(store: Store) -> None:
    assert (await store.create_session(a_session(), IdempotencyKey("k", "a", "ann"))).created
    assert (await store.create_session(a_session(), IdempotencyKey("k", "b", "bob"))).created


async def test_a_key_is_forgotten_after_a_day(store: Store) -> None:
    await store.create_session(a_session(), IdempotencyKey("k", "d"))
    tomorrow = time.time() + 24 * 3600 + 1
    assert (await store.create_session(a_session(created_at=tomorrow), IdempotencyKey("k", "other"))).created
    await store.sweep(tomorrow + 25 * 3600)
    assert (await store.create_session(a_session(), IdempotencyKey("k", "third"))).created


async def test_a_prefix_finds_the_one_id(store: Store) -> None:
    session = await create(store)
    id = await turn(store, session.id)
    assert await store.find("session", session.id[:-2]) == session.id
    assert await store.find("session", session.id) == session.id
    assert await store.find("interaction", id) == id


async def test_a_prefix_of_several_ids_is_ambiguous(store: Store) -> None:
    sessions = [await create(store) for _ in range(7)]
    with pytest.raises(AmbiguousId) as caught:
        await store.find("session", sessions[0].id[:8])
    assert len(caught.value.fields["candidates"]) == 5
    with pytest.raises(NotFound):
        await store.find("session", "ses_zzzz")


async def test_a_prefix_finds_what_was_deleted(store: Store) -> None:
    session = await create(store)
    id = await turn(store, session.id)
    await store.delete_session(session.id, time.time())
    assert await store.find("session", session.id[:-1]) == session.id
    assert await store.find("interaction", id[:-1]) == id


async def test_sessions_are_listed_by_activity_in_pages(store: Store) -> None:
    made = [await create(store, updated_at=float(n)) for n in range(1, 8)]
    await store.accept(an_interaction(made[2].id, created_at=100.0), [], expires_at=FAR)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.list_sessions(limit=3, cursor=cursor)
        assert len(page.items) <= 3
        seen += [session.id for session in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    rest = [session.id for session in reversed(made) if session is not made[2]]
    assert seen == [made[2].id, *rest]


async def test_a_list_can_be_narrowed(store: Store) -> None:
    now = time.time()
    mine = await create(store, labels={"a": "1", "b": "2"})
    await create(store, labels={"a": "2"})
    old = await create(store, expires_at=now - 1)
    await create(store, owner="bob", labels={"a": "1"})

    async def ids(**by: Any) -> set[str]:
        return {session.id for session in (await store.list_sessions(**by)).items}

    assert await ids(labels={"a": "1"}) == {mine.id}
    assert await ids(labels={"a": "1", "b": "3"}) == set()
    assert await ids(state="expired") == {old.id}
    assert len(await ids(state="active")) == 2
    assert len(await ids(state="all")) == 3
    assert (await store.get_session(old.id)).state == "expired"


async def test_a_cursor_that_is_none_is_refused(store: Store) -> None:
    for cursor in ("", "x", "[1]", "\ud800", "[[], {}]"):
        with pytest.raises(InvalidArgument):
            await store.list_sessions(cursor=cursor)
        with pytest.raises(InvalidArgument):
            await store.search("x", cursor=cursor)


async def test_unread_background_results_are_counted_until_they_are_fetched(store: Store) -> None:
    session, other = await create(store), await create(store, owner="bob")
    seen = await turn(store, session.id, background=True)
    await turn(store, session.id, background=False, previous=seen)
    await turn(store, other.id, background=True)
    running = await start(store, session.id, background=True)
    await store.mark_read(running, 1.0)
    assert await store.count_unread() == 1
    assert await store.count_unread(owner="bob") == 1
    assert [one.id for one in (await store.list_sessions(unread=True)).items] == [session.id]
    await store.mark_read(seen, 5.0)
    await store.mark_read(seen, 6.0)
    assert (await store.get_interaction(seen)).read_at == 5.0
    assert await store.count_unread() == 0
    assert (await store.list_sessions(unread=True)).items == []
    await store.settle(running, 1, "completed", now=2.0)
    assert await store.count_unread() == 1


async def test_expiry_can_be_moved_and_taken_off(store: Store) -> None:
    session = await create(store, expires_at=1.0)
    assert (await store.get_session(session.id)).state == "expired"
    await store.set_expiry(session.id, None, None)
    kept = await store.get_session(session.id)
    assert (kept.state, kept.expires_at, kept.ttl_s) == ("active", None, None)
    with pytest.raises(NotFound):
        await store.set_expiry(new_id("session"), None, None)


async def test_a_fork_begins_where_it_was_asked_to(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 5)
    fork = a_session(forked_from=session.id, forked_at=ids[2], head=ids[2], turns=3)
    assert (await store.fork_session(fork)).created
    assert (await store.get_session(fork.id)).turns == 3
    branch = await turn(store, fork.id, previous=ids[2])
    assert [t.interaction.id for t in await store.path(branch, limit=10)] == [*ids[:3], branch]
    assert (await store.get_session(session.id)).head == ids[4]


async def test_a_fork_of_nothing_is_not_found(store: Store) -> None:
    gone = new_id("interaction")
    with pytest.raises(NotFound):
        await store.fork_session(a_session(forked_from=new_id("session"), forked_at=gone, head=gone))
    session = await create(store)
    id = await turn(store, session.id)
    await store.delete_session(session.id, time.time())
    with pytest.raises(Deleted):
        await store.fork_session(a_session(forked_from=session.id, forked_at=id, head=id))


async def test_a_fork_with_the_same_key_is_made_once(store: Store) -> None:
    session = await create(store)
    id = await turn(store, session.id)
    key = IdempotencyKey("k", "d")

    def fork() -> Any:
        return store.fork_session(a_session(forked_from=session.id, forked_at=id, head=id), key)

    assert (await fork()).id == (await fork()).id


async def test_an_expired_session_takes_no_turn_and_says_why(store: Store) -> None:
    session = await create(store, expires_at=time.time() - 1)
    with pytest.raises(Expired):
        await start(store, session.id)
    swept = await store.sweep(time.time())
    assert [receipt.session_id for receipt in swept] == [session.id]
    with pytest.raises(Expired):
        await start(store, session.id)
    assert (await store.get_session(session.id)).state == "expired"


async def test_settings_are_kept(store: Store) -> None:
    assert await store.get_setting("x") is None
    await store.put_setting("x", {"a": [1, None, "ü"]})
    await store.put_setting("x", {"a": 2**80})
    assert await store.get_setting("x") == {"a": 2**80}


async def test_stats_count_what_is_there(store: Store) -> None:
    session = await create(store)
    await chain(store, session.id, 3)
    stats = await store.stats()
    assert (stats["sessions"], stats["interactions"], stats["steps"]) == (1, 3, 6)
    assert stats["bytes"] > 0
    assert stats["free_bytes"] > 0
    await store.check()
