"""Random lives of sessions: a model in plain Python beside the store, and the same answers from both."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interactd.errors import Conflict, Deleted, Expired, Fenced, NotFound
from interactd.ids import new_id
from interactd.nouns import TERMINAL, Step, text_content, user_input
from interactd.store.port import IdempotencyKey, Store

from .conftest import BACKENDS
from .kit import FAR, a_session, an_interaction

T = TypeVar("T")
STATUSES = [*sorted(TERMINAL), "requires_action"]
WORDS = ["river", "gauge", "lock", "flood"]


@dataclass
class Turn:
    session: str
    previous: str | None
    status: str
    epoch: int
    texts: list[str] = field(default_factory=list[str])


@dataclass
class Model:
    """What must be true, kept the simple way."""

    heads: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])
    gone: dict[str, type[Exception]] = field(default_factory=dict[str, type[Exception]])
    keys: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    order: list[str] = field(default_factory=list[str])

    def path(self, id: str | None) -> list[str]:
        ids: list[str] = []
        while id is not None:
            ids.append(id)
            id = self.turns[id].previous
        return ids[::-1]

    def running(self, session: str) -> str | None:
        found = [i for i, t in self.turns.items() if t.session == session and t.status in RUNNING]
        assert len(found) <= 1
        return found[0] if found else None

    def remove(self, session: str, why: type[Exception]) -> tuple[int, int]:
        """Delete, and return how many interactions went and how many moved."""
        others = [s for s in self.order if s != session and s in self.heads]
        moved = 0
        for heir in others:
            tips = [self.heads[heir], *(i for i, t in self.turns.items() if t.session == heir)]
            for id in {id for tip in tips for id in self.path(tip)}:
                turn = self.turns[id]
                if turn.session == session:
                    turn.session, moved = heir, moved + 1
                    if turn.status in ("queued", "requires_action"):
                        turn.status, turn.epoch = "cancelled", turn.epoch + 1
        mine = [id for id, turn in self.turns.items() if turn.session == session]
        for id in [session, *mine]:
            self.gone[id] = why
        for id in mine:
            del self.turns[id]
        del self.heads[session]
        # The keys stay: what they started must not be started again because it is gone.
        return len(mine), moved


RUNNING = ("in_progress", "requires_action")


class Lives(RuleBasedStateMachine):
    make: Callable[[Path], Store]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="interactd-lives-")
        self.store = type(self).make(Path(self.folder.name))
        self.model = Model()
        self.run(self.store.open())

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(call, 30))

    def teardown(self) -> None:
        self.run(self.store.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def expect(self, error: type[Exception], call: Awaitable[Any]) -> None:
        with pytest.raises(error):
            self.run(call)

    def session(self, pick: st.DataObject) -> str:
        return pick.draw(st.sampled_from(sorted(self.model.heads)))

    def turn(self, pick: st.DataObject) -> str:
        return pick.draw(st.sampled_from(sorted(self.model.turns)))

    @rule()
    def create(self) -> None:
        session = a_session()
        self.run(self.store.create_session(session))
        self.model.heads[session.id] = None
        self.model.order.append(session.id)

    @precondition(lambda self: self.model.turns)
    @rule(pick=st.data())
    def fork(self, pick: st.DataObject) -> None:
        at = self.turn(pick)
        fork = a_session(forked_from=self.model.turns[at].session, forked_at=at, head=at)
        self.run(self.store.fork_session(fork))
        self.model.heads[fork.id] = at
        self.model.order.append(fork.id)

    @precondition(lambda self: self.model.heads)
    @rule(pick=st.data(), queued=st.booleans(), back=st.integers(0, 3), key=st.sampled_from([None, None, "a", "b"]))
    def accept(self, pick: st.DataObject, queued: bool, back: int, key: str | None) -> None:
        session = self.session(pick)
        path = self.model.path(self.model.heads[session])
        previous = path[-1 - back] if len(path) > back else None
        text = pick.draw(st.sampled_from(WORDS))
        one = an_interaction(session, previous, status="queued" if queued else "in_progress", epoch=0 if queued else 1)
        given = IdempotencyKey(key, session) if key else None
        call = self.store.accept(one, [user_input(text)], expires_at=FAR, key=given)
        if key in self.model.keys:
            target, of = self.model.keys[key]
            if of != session:
                self.expect(Conflict, call)
            else:
                started = self.run(call)
                assert (started.id, started.created) == (target, False)
            return
        if not queued and self.model.running(session):
            self.expect(Conflict, call)
            return
        assert self.run(call).created
        self.model.turns[one.id] = Turn(session, previous, one.status, one.epoch, [text])
        self.model.heads[session] = one.id
        if key:
            self.model.keys[key] = (one.id, session)

    @precondition(lambda self: self.model.turns)
    @rule(pick=st.data(), stale=st.booleans())
    def append(self, pick: st.DataObject, stale: bool) -> None:
        id = self.turn(pick)
        turn = self.model.turns[id]
        text = pick.draw(st.sampled_from(WORDS))
        steps = [Step("model_output", {"content": [text_content(text)]})]
        call = self.store.append(id, turn.epoch - stale, steps)
        if stale or turn.status in TERMINAL:
            self.expect(Fenced, call)
        else:
            assert [step.seq for step in self.run(call)] == [len(turn.texts)]
            turn.texts.append(text)

    @precondition(lambda self: self.model.turns)
    @rule(pick=st.data(), outside=st.booleans(), status=st.sampled_from(STATUSES))
    def settle(self, pick: st.DataObject, outside: bool, status: Any) -> None:
        id = self.turn(pick)
        turn = self.model.turns[id]
        if turn.status == "queued" and status == "requires_action":
            return
        call = self.store.settle(id, None if outside else turn.epoch, status, now=1.0)
        if turn.status in TERMINAL:
            self.expect(Fenced, call)
        else:
            turn.status, turn.epoch = status, turn.epoch + outside
            assert self.run(call).epoch == turn.epoch

    @precondition(lambda self: self.model.turns)
    @rule(pick=st.data())
    def claim(self, pick: st.DataObject) -> None:
        id = self.turn(pick)
        turn = self.model.turns[id]
        running = self.model.running(turn.session)
        taken = self.run(self.store.claim(id, from_status=["queued", "in_progress", "requires_action"], now=1.0))
        assert (taken is not None) == (turn.status not in TERMINAL and running in (None, id))
        if taken is not None:
            turn.status, turn.epoch = "in_progress", turn.epoch + 1
            assert taken.epoch == turn.epoch

    @precondition(lambda self: self.model.heads)
    @rule(pick=st.data(), expire=st.booleans())
    def remove(self, pick: st.DataObject, expire: bool) -> None:
        session = self.session(pick)
        turns = [turn for turn in self.model.turns.values() if turn.session == session]
        busy = {turn.status for turn in turns} & ({"in_progress", "queued"} if expire else {"in_progress"})
        if expire:
            self.run(self.store.set_expiry(session, 1.0, 1.0))
            receipts = self.run(self.store.sweep(2.0))
            assert len(receipts) == (not busy)
            if busy:
                self.run(self.store.set_expiry(session, None, FAR))
                return
            receipt = receipts[0]
        elif busy:
            self.expect(Conflict, self.store.delete_session(session, 2.0))
            return
        else:
            receipt = self.run(self.store.delete_session(session, 2.0))
        went, moved = self.model.remove(session, Expired if expire else Deleted)
        assert receipt.removed["interactions"] == went
        assert receipt.kept.get("interactions", 0) == moved
        assert self.run(self.store.delete_session(session, 9.0)) == receipt

    @rule()
    def reopen(self) -> None:
        self.run(self.store.aclose())
        self.store = type(self).make(Path(self.folder.name))
        self.run(self.store.open())

    @precondition(lambda self: self.model.turns)
    @rule(word=st.sampled_from(WORDS))
    def search(self, word: str) -> None:
        found = {(hit.interaction_id, hit.seq) for hit in self.run(self.store.search(word, limit=200)).items}
        wanted = {(id, n) for id, turn in self.model.turns.items() for n, text in enumerate(turn.texts) if text == word}
        assert found == wanted

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        heads = {
            session.id: session.head for session in self.run(self.store.list_sessions(state="all", limit=999)).items
        }
        assert heads == self.model.heads
        for session, head in heads.items():
            if head is None:
                continue
            path = self.run(self.store.path(head, limit=999))
            assert [one.interaction.id for one in path] == self.model.path(head)
            assert self.run(self.store.get_session(session)).turns == len(path)
            for depth, one in enumerate(path, 1):
                turn = self.model.turns[one.interaction.id]
                assert (one.interaction.status, one.interaction.epoch) == (turn.status, turn.epoch)
                assert (one.interaction.session_id, one.interaction.depth) == (turn.session, depth)
                assert [step.text for step in one.steps] == turn.texts
                assert self.run(self.store.contains(head, one.interaction.id))
        for id, why in list(self.model.gone.items())[-3:]:
            if id.startswith("int_"):
                self.expect(why, self.store.get_interaction(id))
            else:
                assert self.run(self.store.get_session(id)).state == ("expired" if why is Expired else "deleted")
        stats = self.run(self.store.stats())
        assert stats["interactions"] == len(self.model.turns)
        assert stats["steps"] == sum(len(turn.texts) for turn in self.model.turns.values())


def lives(backend: str, examples: int) -> Any:
    class Case(Lives):
        make = staticmethod(BACKENDS[backend])

    case: Any = Case.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


TestSqliteLives = lives("sqlite", 25)
TestManySqliteLives = pytest.mark.long(pytest.mark.timeout(1500)(lives("sqlite", 400)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_any_json_comes_back_equal(backend: str, tmp_path: Path) -> None:
    store = BACKENDS[backend](tmp_path)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.open())
    session = a_session()
    loop.run_until_complete(store.create_session(session))

    @settings(max_examples=60, deadline=None)
    @given(json_values, st.text(st.characters()))
    def check(value: Any, text: str) -> None:
        async def there_and_back() -> None:
            one = an_interaction(session.id, status="queued")
            step = Step("function_result", {"call_id": text, "result": value}, {"raw": value})
            await store.accept(one, [user_input(text), step], expires_at=None, pending={"v": value})
            steps = await store.get_steps(one.id)
            assert steps[0].text == text
            assert (steps[1].body, steps[1].state) == (step.body, step.state)
            assert await store.pending(one.id) == {"v": value}
            await store.search(text)
            with pytest.raises(NotFound):
                await store.get_interaction(new_id("interaction"))

        loop.run_until_complete(there_and_back())

    try:
        check()
    finally:
        loop.run_until_complete(store.aclose())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
