from __future__ import annotations

import asyncio

import pytest

from interactd.errors import NotFound
from interactd.store.port import Store

from .kit import a_session, chain, create, turn

pytestmark = pytest.mark.anyio


async def test_a_path_ends_at_the_head_and_comes_oldest_first(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 12)
    assert [t.interaction.id for t in await store.path(ids[-1], limit=5)] == ids[-5:]
    assert [t.interaction.id for t in await store.path(ids[-1], limit=50)] == ids
    assert [t.interaction.depth for t in await store.path(ids[-1], limit=2)] == [11, 12]
    assert [t.interaction.id for t in await store.path(ids[-1], limit=3, before=ids[6])] == ids[3:6]
    assert await store.path(ids[-1], limit=3, before=ids[0]) == []
    assert await store.path(ids[-1], limit=0) == []
    bare = await store.path(ids[-1], limit=2, with_steps=False)
    assert [t.steps for t in bare] == [[], []]
    full = await store.path(ids[-1], limit=1)
    assert [step.text for step in full[0].steps] == ["question 11", "answer 11"]


async def test_a_page_before_a_turn_of_another_branch_is_refused(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 4)
    side = await turn(store, session.id, previous=ids[1])
    with pytest.raises(NotFound):
        await store.path(ids[-1], limit=3, before=side)
    assert (await store.get_session(session.id)).head == side
    assert (await store.get_session(session.id)).turns == 3


async def test_contains_follows_the_path_and_no_branch(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 70)
    side = await chain(store, session.id, 5, ids[40])
    fork = a_session(forked_from=session.id, forked_at=side[1], head=side[1])
    await store.fork_session(fork)
    far = await chain(store, fork.id, 9, side[1])
    tips = {ids[-1]: ids, side[-1]: ids[:41] + side, far[-1]: ids[:41] + side[:2] + far}
    for tip, on in tips.items():
        for id in {*ids, *side, *far}:
            assert await store.contains(tip, id) == (id in on)
    assert not await store.contains(ids[-1], "int_nothing")
    assert not await store.contains("int_nothing", ids[0])


async def test_reads_run_beside_writes(store: Store) -> None:
    session = await create(store)
    ids = await chain(store, session.id, 3)

    async def look() -> None:
        for _ in range(30):
            path = await store.path(ids[-1], limit=10)
            assert [len(one.steps) for one in path] == [2, 2, 2]

    await asyncio.gather(*(look() for _ in range(8)), chain(store, session.id, 30, ids[-1]))
