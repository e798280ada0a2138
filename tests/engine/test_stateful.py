"""Turns, forks, cancels, queues, answers, deletes and restarts in any order, against a plain model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from engine.kit import Rig, ScriptedModel, called, ended, rig, said
from interactd.engine.port import Result
from interactd.errors import Conflict, Deleted
from interactd.models.port import ModelRequest
from interactd.nouns import TERMINAL

T = TypeVar("T")
NOTHING: Any = multiple()  # pyright: ignore[reportUnknownVariableType]
"""What a rule returns that made nothing."""
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}


@dataclass
class Turn:
    """What must be true of one accepted turn."""

    id: str
    session: str
    text: str
    previous: str | None
    outcome: str | None = None
    """The terminal status it was first seen with: the only one it may ever have."""
    steps: list[Any] = field(default_factory=list[Any])
    """The steps it was last seen with: later ones may only be added behind them."""


class Sessions(RuleBasedStateMachine):
    sessions = Bundle("sessions")
    turns = Bundle("turns")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.Runner()
        self.model = ScriptedModel(default=self.answer)
        self.model.gate = asyncio.Event()
        self.model.gate.set()
        self.known: dict[str, Turn] = {}
        self.heads: dict[str, str | None] = {}
        self.dead: set[str] = set()
        self.count = 0
        self.context: AbstractAsyncContextManager[Rig]
        self.it: Rig

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.loop.run(bounded())

    @initialize()
    def begin(self) -> None:
        self.context = rig(self.folder / "db", model=self.model)
        self.it = self.do(self.context.__aenter__())

    def answer(self, request: ModelRequest) -> Any:
        """Call a function when asked to; else say how many user inputs there are."""
        last = request.steps[-1]
        if last.type == "user_input" and "call" in last.text:
            return [*called("add", {}, f"c-{last.text}"), *ended("tool_calls")]
        inputs = sum(step.type == "user_input" for step in request.steps)
        return [*said(f"after {inputs}"), *ended()]

    # -- what can be done ------------------------------------------------------------------------------------
    @rule(target=sessions)
    def create(self) -> str:
        session = self.do(self.it.engine.create_session(tools=[TOOL], ttl_s=0))
        self.heads[session.id] = None
        return session.id

    @rule(target=turns, session=sessions, call=st.booleans(), queue=st.booleans(), at=st.none() | turns)
    def send(self, session: str, call: bool, queue: bool, at: str | None) -> Any:
        self.count += 1
        text = f"{'call' if call else 'say'} {self.count}"
        if at is not None and (self.known[at].session != session or at in self.dead):
            at = None
        try:
            sent = self.do(
                self.it.engine.send_turn(
                    session,
                    text,
                    previous_interaction_id=at,
                    if_busy="queue" if queue else "conflict",
                    idempotency_key=f"key-{self.count}",
                )
            )
        except Deleted:
            assert session in self.dead
            return NOTHING
        except Conflict as error:
            in_the_way = self.known[error.fields["interaction_id"]]
            self.refused(in_the_way, session, queue)
            return NOTHING
        assert session not in self.dead
        previous = at or self.heads[session]
        assert sent.interaction.previous_interaction_id == previous
        self.known[sent.interaction.id] = Turn(sent.interaction.id, session, text, previous)
        self.heads[session] = sent.interaction.id
        again = self.do(
            self.it.engine.send_turn(
                session,
                text,
                previous_interaction_id=at,
                if_busy="queue" if queue else "conflict",
                idempotency_key=f"key-{self.count}",
            )
        )
        assert (again.interaction.id, again.replayed) == (sent.interaction.id, True)
        return sent.interaction.id

    def refused(self, in_the_way: Turn, session: str, queue: bool) -> None:
        assert not queue, "a turn that may queue is never refused"
        assert in_the_way.session == session

    @rule()
    def hold_the_model(self) -> None:
        assert self.model.gate is not None
        self.model.gate.clear()

    @rule()
    def let_the_model_go(self) -> None:
        assert self.model.gate is not None
        self.do(self._let_go())

    async def _let_go(self) -> None:
        assert self.model.gate is not None
        self.model.gate.set()
        for turn in self.known.values():
            if turn.session not in self.dead and turn.outcome is None:
                await self.it.engine.wait(turn.id, 0.02)

    @rule(turn=turns)
    def cancel(self, turn: str) -> None:
        self.look(turn, self.it.engine.cancel(turn), must_be_terminal=True)

    @rule(turn=turns)
    def respond(self, turn: str) -> None:
        call_id = f"c-{self.known[turn].text}"
        before = self.look(turn, self.it.engine.get_interaction(turn))
        if before is not None and before.interaction.status == "requires_action":
            self.look(turn, self.it.engine.respond(turn, [{"call_id": call_id, "result": "42"}]))

    @rule(target=sessions, turn=turns)
    def fork(self, turn: str) -> Any:
        source = self.known[turn].session
        try:
            fork = self.do(self.it.engine.fork_session(source, at=turn, ttl_s=0))
        except Deleted:
            assert source in self.dead
            return NOTHING
        except Conflict:
            seen = self.look(turn, self.it.engine.get_interaction(turn))
            assert seen is not None
            return NOTHING
        self.heads[fork.id] = turn
        assert fork.turns == len(self.path(turn))
        return fork.id

    @rule(session=consumes(sessions))
    def delete(self, session: str) -> None:
        receipt = self.do(self.it.engine.delete_session(session))
        assert receipt.session_id == session
        self.dead.add(session)
        heirs = set(receipt.kept.get("sessions", ()))
        assert heirs.isdisjoint(self.dead)
        for turn in self.known.values():
            if turn.session == session:
                needed = [
                    other for other, head in self.heads.items() if other not in self.dead and turn.id in self.path(head)
                ]
                # What a fork still needs lives on with the fork; the rest is gone.
                if needed:
                    turn.session = self.do(self.it.store.get_interaction(turn.id)).session_id
                    assert turn.session in needed
                else:
                    turn.session = session

    @precondition(lambda self: self.count % 3 == 0)
    @rule()
    def restart(self) -> None:
        self.do(self.context.__aexit__(None, None, None))
        self.context = rig(self.folder / "db", model=self.model)
        self.it = self.do(self.context.__aenter__())

    # -- what must hold --------------------------------------------------------------------------------------
    def look(self, turn_id: str, call: Awaitable[Result], *, must_be_terminal: bool = False) -> Result | None:
        turn = self.known[turn_id]

        async def made() -> Result:
            return await call

        try:
            seen = self.do(made())
        except Deleted:
            assert turn.session in self.dead
            return None
        self.check(turn, seen, must_be_terminal)
        return seen

    def check(self, turn: Turn, seen: Result, must_be_terminal: bool = False) -> None:
        status = seen.interaction.status
        if turn.outcome is not None:
            assert status == turn.outcome, "a terminal status never changes"
        if status in TERMINAL:
            turn.outcome = status
        assert not must_be_terminal or status in TERMINAL
        assert [step.seq for step in seen.steps] == list(range(len(seen.steps))), "no gap, nothing doubled"
        shown = [(step.type, step.text) for step in seen.steps]
        assert shown[: len(turn.steps)] == turn.steps, "steps are only ever added"
        turn.steps = shown
        assert shown[0] == ("user_input", turn.text)
        types = [type_ for type_, _ in shown]
        if status == "completed":
            said_once = ["user_input", "model_output"]
            with_call = ["user_input", "function_call", "function_result", "model_output"]
            assert types in (said_once, with_call)
        if status == "requires_action":
            assert types == ["user_input", "function_call"]
            assert [call["id"] for call in seen.waiting_for] == [f"c-{turn.text}"]

    def path(self, head: str | None) -> list[str]:
        found: list[str] = []
        while head is not None:
            found.append(head)
            head = self.known[head].previous
        return found[::-1]

    @invariant()
    def every_accepted_turn_is_there_once_and_in_order(self) -> None:
        for session, head in self.heads.items():
            if session in self.dead or head is None:
                continue
            _, turns = self.do(self.it.engine.transcript(session, limit=200))
            assert [turn.interaction.id for turn in turns] == self.path(head)

    @invariant()
    def at_most_one_turn_of_a_session_runs(self) -> None:
        for session in self.heads:
            if session not in self.dead:
                active = self.do(self.it.store.active(session))
                assert sum(one.status != "queued" for one in active) <= 1

    def teardown(self) -> None:
        async def end() -> None:
            assert self.model.gate is not None
            self.model.gate.set()
            for turn in self.known.values():
                if turn.session in self.dead:
                    continue
                seen = await self._settled(turn)
                self.check(turn, seen)
                assert seen.interaction.status in TERMINAL
            assert self.it.engine.busy == 0
            assert self.model.running == 0
            await self.context.__aexit__(None, None, None)

        try:
            if hasattr(self, "it"):
                self.do(end())
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    async def _settled(self, turn: Turn) -> Result:
        """Wait for its end; answer it, and those before it in its session's line, when they ask."""
        waiting: Callable[[str], Awaitable[Result]] = lambda id_: self.it.engine.wait(id_, 0.2)  # noqa: E731
        while True:
            seen = await waiting(turn.id)
            if seen.interaction.terminal:
                return seen
            for one in await self.it.store.active(seen.session.id):
                if one.status == "requires_action":
                    text = self.known[one.id].text
                    await self.it.engine.respond(one.id, [{"call_id": f"c-{text}", "result": "42"}])


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
