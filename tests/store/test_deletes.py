from __future__ import annotations

import asyncio
import time

import pytest

from interactd.errors import Conflict, Deleted, Expired, NotFound
from interactd.ids import new_id
from interactd.nouns import Session
from interactd.store.port import IdempotencyKey, Store

from .kit import FAR, a_session, an_interaction, chain, create, start, turn

pytestmark = pytest.mark.anyio


async def fork_at(store: Store, session: Session, at: str) -> Session:
    fork = a_session(forked_from=session.id, forked_at=at, head=at)
    await store.fork_session(fork)
    return fork


async def test_a_delete_removes_everything_and_says_what(store: Store) -> None:
    session, other = await create(store, title="t", labels={"a": "b"}), await create(store)
    ids = await chain(store, session.id, 3)
    kept = await turn(store, other.id, "other words")
    await store.search("question")
    receipt = await store.delete_session(session.id, 123.0)
    assert (receipt.session_id, receipt.deleted_at, receipt.kept) == (session.id, 123.0, {})
    assert receipt.removed["sessions"] == 1
    assert receipt.removed["interactions"] == 3
    assert receipt.removed["steps"] == 6
    assert receipt.removed["index_entries"] == 6
    gone = await store.get_session(session.id)
    assert gone == Session(session.id, session.created_at, 123.0, state="deleted", deleted_at=123.0)
    for id in ids:
        for call in (store.get_interaction(id), store.get_steps(id), store.pending(id), store.path(id, limit=1)):
            with pytest.raises(Deleted) as caught:
                await call
            assert caught.value.fields["session_id"] == session.id
    assert (await store.search("question")).items == []
    assert len((await store.search("words")).items) == 1
    assert (await store.get_interaction(kept)).session_id == other.id
    stats = await store.stats()
    assert (stats["sessions"], stats["interactions"], stats["steps"]) == (1, 1, 2)


async def test_a_second_delete_says_the_same(store: Store) -> None:
    session = await create(store)
    await chain(store, session.id, 2)
    first = await store.delete_session(session.id, 1.0)
    assert await store.delete_session(session.id, 2.0) == first
    with pytest.raises(NotFound):
        await store.delete_session(new_id("session"), 1.0)


async def test_a_session_with_a_running_turn_is_not_deleted(store: Store) -> None:
    session = await create(store)
    running = await start(store, session.id)
    with pytest.raises(Conflict) as caught:
        await store.delete_session(session.id, 1.0)
    assert caught.value.fields["interaction_id"] == running
    assert len(await store.get_steps(running)) == 1


async def test_a_key_of_a_deleted_session_starts_nothing_new(store: Store) -> None:
    session = a_session()
    await store.create_session(session, IdempotencyKey("create", "d"))
    one = an_interaction(session.id)
    await store.accept(one, [], expires_at=FAR, key=IdempotencyKey("turn", "d"))
    await store.settle(one.id, 1, "completed", now=1.0)
    await store.delete_session(session.id, 1.0)
    again = await store.create_session(a_session(), IdempotencyKey("create", "d"))
    assert (again.id, again.created) == (session.id, False)
    assert await store.recall(IdempotencyKey("turn", "d")) == one.id
    with pytest.raises(Conflict):
        await store.create_session(a_session(), IdempotencyKey("create", "other"))
    await store.sweep(time.time() + 25 * 3600)
    assert (await store.create_session(a_session(), IdempotencyKey("create", "d"))).created


async def test_what_a_fork_needs_moves_to_it(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 6)
    side = await chain(store, session.id, 2, ids[1])
    fork = await fork_at(store, session, ids[3])
    own = await chain(store, fork.id, 2, ids[3])
    receipt = await store.delete_session(session.id, 1.0)
    assert receipt.kept == {"interactions": 4, "sessions": [fork.id]}
    assert receipt.removed["interactions"] == 4
    path = await store.path(own[-1], limit=50)
    assert [one.interaction.id for one in path] == ids[:4] + own
    assert {one.interaction.session_id for one in path} == {fork.id}
    assert all(len(one.steps) == 2 for one in path)
    for id in [*ids[4:], *side]:
        with pytest.raises(Deleted):
            await store.get_interaction(id)
    assert len((await store.search("question", session_id=fork.id, limit=50)).items) == 6
    last = await store.delete_session(fork.id, 2.0)
    assert (last.removed["interactions"], last.kept) == (6, {})
    assert (await store.stats())["steps"] == 0


async def test_a_fork_without_turns_keeps_its_history_too(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 3)
    first, second = await fork_at(store, session, ids[2]), await fork_at(store, session, ids[0])
    receipt = await store.delete_session(session.id, 1.0)
    assert receipt.kept == {"interactions": 3, "sessions": [first.id, second.id]}
    receipt = await store.delete_session(first.id, 2.0)
    assert receipt.kept == {"interactions": 1, "sessions": [second.id]}
    assert [one.interaction.id for one in await store.path(ids[0], limit=9)] == ids[:1]
    assert (await store.delete_session(second.id, 3.0)).removed["interactions"] == 1


async def test_history_shared_by_two_forks_goes_from_heir_to_heir(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 4)
    near, far = await fork_at(store, session, ids[1]), await fork_at(store, session, ids[3])
    own = await turn(store, far.id, "own", previous=ids[3])
    receipt = await store.delete_session(session.id, 1.0)
    assert receipt.kept == {"interactions": 4, "sessions": [near.id, far.id]}
    receipt = await store.delete_session(near.id, 2.0)
    assert receipt.kept == {"interactions": 2, "sessions": [far.id]}
    path = await store.path(own, limit=9)
    assert [one.interaction.id for one in path] == [*ids, own]
    assert {one.interaction.session_id for one in path} == {far.id}


async def test_an_open_turn_that_moves_to_a_fork_is_cancelled(store: Store) -> None:
    session = await create(store)
    waiting = await start(store, session.id)
    await store.settle(waiting, 1, "requires_action", now=1.0)
    fork = await fork_at(store, session, waiting)
    running = await start(store, fork.id, previous=waiting)
    await store.delete_session(session.id, 5.0)
    moved = await store.get_interaction(waiting)
    assert (moved.session_id, moved.status, moved.finished_at) == (fork.id, "cancelled", 5.0)
    assert (await store.get_interaction(running)).status == "in_progress"


async def test_the_sweeper_takes_what_expired_and_nothing_that_runs(store: Store) -> None:
    now = time.time()
    kept, old, running, queued = [await create(store) for _ in range(4)]
    ids = await chain(store, old.id, 2)
    busy = await start(store, running.id)
    await start(store, queued.id, status="queued", epoch=0, attempt=0)
    for session in (old, running, queued):
        await store.set_expiry(session.id, 1.0, now - 1)
    receipts = await store.sweep(now)
    assert [receipt.session_id for receipt in receipts] == [old.id]
    assert receipts[0].removed["steps"] == 4
    gone = await store.get_session(old.id)
    assert (gone.state, gone.deleted_at) == ("expired", now)
    for id in ids:
        with pytest.raises(Expired):
            await store.get_interaction(id)
    assert (await store.get_session(kept.id)).state == "active"
    await store.settle(busy, 1, "completed", now=now)
    assert [receipt.session_id for receipt in await store.sweep(now)] == [running.id]
    assert await store.delete_session(old.id, now) == receipts[0]


async def test_the_sweeper_takes_no_more_than_it_is_told_to(store: Store) -> None:
    for _ in range(5):
        await create(store, expires_at=1.0)
    assert [len(await store.sweep(2.0, limit=2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_deletes_beside_turns_leave_the_others_whole(store: Store) -> None:
    sessions = [await create(store) for _ in range(12)]
    for session in sessions:
        await chain(store, session.id, 4)

    async def go_on(session: Session) -> None:
        head = (await store.get_session(session.id)).head
        await chain(store, session.id, 6, head)

    await asyncio.gather(
        *(store.delete_session(session.id, 1.0) for session in sessions[:6]), *(go_on(s) for s in sessions[6:])
    )
    stats = await store.stats()
    assert (stats["sessions"], stats["interactions"], stats["steps"]) == (6, 60, 120)
    assert len((await store.search("question", limit=100)).items) == 60
