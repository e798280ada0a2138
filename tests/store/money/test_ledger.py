"""The ledger under every interleaving: no budget is exceeded, and nothing that was spent is lost or counted twice."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interactd.errors import Fenced
from interactd.ids import new_id, new_ulid
from interactd.nouns import NANO, Interaction, Json, Session, Usage, user_input
from interactd.store.ledger_port import Bill, Granted, Outcome, Refused, Reservation
from interactd.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

DAY = "2026-11-28"


class Runner:
    """One interaction being run, as the engine's purse does it."""

    def __init__(self, store: SqliteStore, id: str, day_budget: Json) -> None:
        self.store = store
        self.id = id
        self.epoch = 1
        self.day_budget = day_budget
        self.call: Outcome | None = None

    def bill(self) -> Bill:
        return Bill(self.id, self.epoch, DAY, time.time(), call=self.call)

    async def reserve(self, nano: int | None, tokens: int = 10, *, name: str = "") -> Granted | Refused:
        id = name or f"{self.id}.{new_ulid()}"
        asked = Reservation(id, self.bill(), "p", "m", None, nano, tokens, {"day": self.day_budget})
        answer = await self.store.ledger.reserve(asked)
        self.call = Outcome(id, "unknown", None, nano, tokens) if isinstance(answer, Granted) else None
        return answer

    async def settle(self, nano: int, tokens: int = 5) -> None:
        assert self.call is not None
        self.call = Outcome(self.call.id, "settled", Usage(input=tokens, output=0), nano, tokens)
        await self.store.append(self.id, self.epoch, [], bill=self.bill())

    async def release(self) -> None:
        assert self.call is not None
        self.call = Outcome(self.call.id, "released")
        await self.store.append(self.id, self.epoch, [], bill=self.bill())

    async def die(self) -> None:
        """The process is gone; the next one takes the turn up."""
        claimed = await self.store.claim(self.id, from_status=("in_progress",), now=time.time())
        assert claimed is not None
        self.epoch, self.call = claimed.epoch, None


async def started(
    store: SqliteStore, *, budget: Json | None = None, session_budget: Json | None = None, parent: str | None = None,
    day: Json | None = None, agent: str | None = None,
) -> Runner:  # fmt: skip
    now = time.time()
    session = Session(new_id("session"), now, now, budget=session_budget)
    await store.create_session(session)
    one = Interaction(
        new_id("interaction"), session.id, "in_progress", now, budget=budget, parent_id=parent, agent=agent, epoch=1,
        attempt=1,
    )  # fmt: skip
    await store.accept(one, [user_input("x")], expires_at=None)
    return Runner(store, one.id, day or {})


async def test_a_reservation_that_fits_is_granted_and_one_that_does_not_is_refused(store: SqliteStore) -> None:
    run = await started(store, budget={"usd": 1})
    assert isinstance(await run.reserve(NANO), Granted)
    await run.settle(NANO // 2)
    refused = await run.reserve(NANO // 2 + 1)
    assert isinstance(refused, Refused)
    (short,) = refused.shortfalls
    assert (short.scope, short.unit, short.limit, short.spent, short.held) == ("interaction", "usd", NANO, NANO // 2, 0)
    assert isinstance(await run.reserve(NANO // 2), Granted), "to the last nano-dollar"


async def test_an_unknown_price_fits_no_budget_in_money_and_every_other(store: SqliteStore) -> None:
    refused = await (await started(store, session_budget={"usd": 100})).reserve(None)
    assert isinstance(refused, Refused)
    assert refused.shortfalls[0].needed is None
    assert isinstance(await (await started(store, budget={"tokens": 100})).reserve(None), Granted)


@pytest.mark.parametrize("scope", ["interaction", "session", "agent", "day"])
async def test_children_draw_on_the_budgets_of_what_started_them(store: SqliteStore, scope: str) -> None:
    usd: Json = {"usd": 1}
    parent = await started(
        store,
        budget=usd if scope == "interaction" else None,
        session_budget=usd if scope == "session" else None,
        day=usd if scope == "day" else None,
        agent="a",
    )
    if scope == "agent":
        asked = Reservation("r", parent.bill(), "p", "m", None, NANO // 2, 1, {"agent": usd})
        assert isinstance(await store.ledger.reserve(asked), Granted)
        parent.call = Outcome("r", "unknown", None, NANO // 2, 1)
    else:
        assert isinstance(await parent.reserve(NANO // 2), Granted)
    await parent.settle(NANO // 2)
    child = await started(store, parent=parent.id, day=parent.day_budget)
    refused = await child.reserve(NANO)
    assert isinstance(refused, Refused)
    assert refused.shortfalls[0].scope == scope
    assert isinstance(await child.reserve(NANO // 2), Granted)
    await child.settle(NANO // 2)
    (mine,) = await store.ledger.accounts([parent.id])
    assert mine.nano == NANO
    assert isinstance(await (await started(store, parent=child.id, day=parent.day_budget)).reserve(1), Refused)


async def test_a_call_whose_runner_died_counts_at_its_worst_once(store: SqliteStore) -> None:
    run = await started(store, budget={"usd": 10})
    await run.reserve(3 * NANO)
    await run.die()
    assert isinstance(await run.reserve(4 * NANO), Granted)
    (mine,) = await store.ledger.accounts([run.id])
    assert (mine.nano, mine.unsure_nano, mine.held_nano) == (3 * NANO, 3 * NANO, 4 * NANO)
    await run.settle(NANO)
    await store.settle(run.id, run.epoch, "completed", now=time.time(), bill=run.bill())
    (mine,) = await store.ledger.accounts([run.id])
    assert (mine.nano, mine.unsure_nano, mine.held_nano, mine.steps) == (4 * NANO, 3 * NANO, 0, 2)


async def test_an_interaction_that_ends_leaves_nothing_reserved(store: SqliteStore) -> None:
    run = await started(store, budget={"usd": 10, "seconds": 100})
    await run.reserve(NANO)
    await store.settle(run.id, None, "cancelled", now=time.time())
    (mine,) = await store.ledger.accounts([run.id])
    assert (mine.nano, mine.held_nano) == (NANO, 0)
    with pytest.raises(Fenced):
        await run.reserve(NANO)


async def test_a_released_call_cost_nothing_and_booking_twice_counts_once(store: SqliteStore) -> None:
    run = await started(store)
    await run.reserve(NANO)
    await run.release()
    await run.reserve(NANO)
    await run.settle(NANO // 4)
    await store.append(run.id, run.epoch, [], bill=run.bill())
    (mine,) = await store.ledger.accounts([run.id])
    assert (mine.nano, mine.steps, mine.held_nano) == (NANO // 4, 1, 0)


async def test_a_deleted_session_stays_in_the_days_sums_and_nowhere_by_name(store: SqliteStore) -> None:
    run = await started(store, agent="helper")
    await run.reserve(NANO)
    await run.settle(NANO)
    one = await store.settle(run.id, run.epoch, "completed", now=time.time(), bill=run.bill())
    before = await store.ledger.report("model", since=None, since_day=None, owner="local")
    await store.delete_session(one.session_id, time.time())
    assert await store.ledger.report("model", since=None, since_day=None, owner="local") == before
    (line,) = await store.ledger.report("session", since=None, since_day=None, owner="local")
    assert (line["key"], line["nano"]) == (None, NANO)
    assert (await store.ledger.day(DAY)).nano == NANO
    with sqlite3.connect(store.file) as db:
        for table in ("ledger", "spent", "ledger_folded"):
            for row in db.execute(f"SELECT * FROM {table}"):
                assert run.id not in str(row)
                assert one.session_id not in str(row)


async def test_time_is_lent_in_parts_and_never_beyond_the_budget(store: SqliteStore) -> None:
    run = await started(store, session_budget={"seconds": 10})
    granted = await run.reserve(0)
    assert isinstance(granted, Granted)
    assert granted.lease_ms == 5_000
    worked = 0
    while isinstance(granted, Granted):
        worked += granted.lease_ms or 0
        granted = await store.ledger.tick(Bill(run.id, run.epoch, DAY, time.time(), active_ms=worked))
    assert worked == 10_000
    assert granted.shortfalls[0].unit == "seconds"


OPS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from(["reserve", "settle", "release", "die", "leave"]), st.integers(1, 400)
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPS)
def test_no_interleaving_exceeds_a_budget_or_loses_what_was_spent(
    tmp_path: Path, ops: list[tuple[int, str, int]]
) -> None:
    asyncio.run(_interleaved(tmp_path / f"{new_ulid()}.db", ops))


async def _interleaved(path: Path, ops: list[tuple[int, str, int]]) -> None:
    store = SqliteStore(path)
    await store.open()
    try:
        day: Json = {"usd": 1.5e-6}
        parent = await started(store, budget={"usd": 1e-6}, day=day)
        runs = [
            parent,
            await started(store, parent=parent.id, day=day),
            await started(store, parent=parent.id, budget={"usd": 4e-7}, day=day),
            await started(store, session_budget={"usd": 7e-7}, day=day),
            await started(store, day=day),
        ]
        spent = {run.id: 0 for run in runs}
        held: dict[str, int] = {run.id: 0 for run in runs}

        async def one(run: Runner, op: str, amount: int) -> None:
            if op == "reserve":
                # What was left open counts at its worst from then on.
                spent[run.id] += held[run.id]
                held[run.id] = amount if isinstance(await run.reserve(amount), Granted) else 0
            elif op == "die":
                await run.die()
            elif run.call is not None and held[run.id]:
                if op == "settle":
                    used = min(amount, held[run.id])
                    await run.settle(used)
                    spent[run.id] += used
                    held[run.id] = 0
                elif op == "release":
                    await run.release()
                    held[run.id] = 0

        # Those of different runs at once, as they come; those of one run in order.
        for at in range(0, len(ops), 5):
            by_run: dict[int, list[tuple[str, int]]] = {}
            for number, op, amount in ops[at : at + 5]:
                by_run.setdefault(number, []).append((op, amount))

            async def several(number: int, mine: list[tuple[str, int]]) -> None:
                for op, amount in mine:
                    await one(runs[number], op, amount)

            await asyncio.gather(*(several(number, mine) for number, mine in by_run.items()))
            await _check(store, runs, spent, held)
    finally:
        await store.aclose()


async def _check(store: SqliteStore, runs: list[Runner], spent: dict[str, int], held: dict[str, int]) -> None:
    ids = [run.id for run in runs]
    accounts = {one.key: one for one in await store.ledger.accounts(ids)}
    family = ids[:3]
    expected: dict[str, Any] = {
        ids[0]: (sum(spent[id] for id in family), sum(held[id] for id in family)),
        **{id: (spent[id], held[id]) for id in ids[1:]},
    }
    assert {id: (one.nano, one.held_nano) for id, one in accounts.items()} == expected
    today = await store.ledger.day(DAY)
    assert (today.nano, today.held_nano) == (sum(spent.values()), sum(held.values()))
    assert today.nano + today.held_nano <= 1_500
    assert sum(expected[ids[0]]) <= 1_000
    assert sum(expected[ids[2]]) <= 400
    assert sum(expected[ids[3]]) <= 700
