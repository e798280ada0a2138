"""Which run goes when: one at a time in a session, in order; and no more than so many over all sessions.

A session's waiting turns are started one by one as their predecessors end, however they end. The limit over all
sessions is a first-come queue in which every session stands at most once, so that a session with many turns waiting
cannot keep the others out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from interactd.engine.agents.run import run_of
from interactd.engine.core import Core
from interactd.engine.run.note import Note
from interactd.engine.run.runner import Run
from interactd.errors import InteractdError
from interactd.models.port import Model
from interactd.nouns import Interaction, Session, Step

log = logging.getLogger(__name__)


class Queue:
    """Owns every run's task, and the order of what waits."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slots = asyncio.Semaphore(core.settings.max_running)
        self._waiting: dict[str, deque[str]] = {}
        self._runs: dict[str, Run] = {}
        self._by_session: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_work: Callable[[], None] = _nothing
        """Called when something runs or waits that did not before."""

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def queued(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def runs(self) -> list[Run]:
        return list(self._runs.values())

    def run_of(self, interaction_id: str) -> Run | None:
        return self._runs.get(interaction_id)

    def run_in(self, session_id: str) -> Run | None:
        """The session's run, unless it is writing its outcome already."""
        run = self._by_session.get(session_id)
        return None if run is None or run.settling else run

    @property
    def waiting(self) -> list[str]:
        """Every interaction that waits in some session's line."""
        return [id for line in self._waiting.values() for id in line]

    def knows(self, interaction: Interaction) -> bool:
        """Whether the interaction runs or waits here."""
        return interaction.id in self._runs or interaction.id in self._waiting.get(interaction.session_id, ())

    def next_in(self, session_id: str) -> str | None:
        """The first of the session's waiting turns."""
        line = self._waiting.get(session_id)
        return line[0] if line else None

    def waiting_in(self, session_id: str) -> int:
        return len(self._waiting.get(session_id, ()))

    def position(self, interaction: Interaction) -> int | None:
        """How many of the session's waiting turns go first, plus one; `None` when it does not wait."""
        line = self._waiting.get(interaction.session_id, ())
        return line.index(interaction.id) + 1 if interaction.id in line else None

    def launch(
        self, interaction: Interaction, session: Session, own: Sequence[Step], note: Note, model: Model | None = None
    ) -> None:
        """Run a claimed interaction as a task of our own, whoever asked for it."""
        if before := self._runs.get(interaction.id):
            # It has settled, or we could not have claimed; its channel must not be taken for the new run's.
            self._core.hub.close(before.channel)
        run = run_of(self._core, interaction, session, own, note, model, self._slots)
        self._runs[interaction.id] = self._by_session[interaction.session_id] = run
        if self._core.handing_over:
            # Its claim was under way when the hand-over began: the next daemon makes the call.
            run.stop("hand_over")
        self._own(self._run(run), f"run {interaction.id}")
        self.on_work()

    def enqueue(self, interaction: Interaction) -> None:
        """Put an accepted, queued turn at the end of its session's line."""
        self._waiting.setdefault(interaction.session_id, deque()).append(interaction.id)
        self._core.hub.open(interaction.id).status(interaction)
        self.on_work()

    def arrange(self, session_id: str, order: Sequence[str]) -> None:
        """Put the session's line into this order; who is not in it stays at the end."""
        if line := self._waiting.get(session_id):
            place = {id: at for at, id in enumerate(order)}
            self._waiting[session_id] = deque(sorted(line, key=lambda id: place.get(id, len(place))))

    def forget(self, interaction_id: str) -> None:
        """Let go of a waiting turn that was settled elsewhere."""
        for session_id, line in list(self._waiting.items()):
            if interaction_id in line:
                line.remove(interaction_id)
                if not line:
                    del self._waiting[session_id]
        if channel := self._core.hub.get(interaction_id):
            self._core.hub.close(channel)

    def drop(self, interaction: Interaction) -> None:
        """Take a turn out of its session's line, if it is in it."""
        line = self._waiting.get(interaction.session_id)
        if line and interaction.id in line:
            line.remove(interaction.id)
            if not line:
                del self._waiting[interaction.session_id]

    def advance_soon(self, session_id: str) -> None:
        """Start the session's next turn when nothing is in its way; returns at once."""
        if session_id in self._waiting:
            self._own(self._advance(session_id), f"advance {session_id}")

    async def settled(self, timeout_s: float) -> bool:
        """Wait until no task is left; True when none is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        return not self._tasks

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, run: Run) -> None:
        interaction = run.interaction
        try:
            await run.go()
        finally:
            if self._runs.get(interaction.id) is run:
                del self._runs[interaction.id]
            if self._by_session.get(interaction.session_id) is run:
                del self._by_session[interaction.session_id]
            self._core.hub.close(run.channel)
            self.advance_soon(interaction.session_id)

    async def _advance(self, session_id: str) -> None:
        core = self._core
        try:
            async with core.session_lock(session_id):
                while (line := self._waiting.get(session_id)) and not core.handing_over:
                    active = await core.store.active(session_id)
                    if any(one.status != "queued" for one in active) or core.handing_over:
                        return
                    if active and active[0].id not in line and core.others.holds(active[0].runner):
                        # It is another daemon's turn to start one; we see when it has ended.
                        return
                    first = line[0]
                    claimed = await core.store.claim(first, from_status=("queued",), now=core.clock())
                    if claimed is None:
                        # Settled by somebody else meanwhile: its place in the line is all that is left of it.
                        self._leave(session_id, first)
                        continue
                    session = await core.store.get_session(session_id)
                    own = await core.store.get_steps(first)
                    note = Note.read(await core.store.pending(first))
                    self._leave(session_id, first)
                    self.launch(claimed, session, own, note)
                    return
        except InteractdError as error:
            # The turns stay queued in the store; the sweeper looks at the line again.
            log.warning("cannot start the next turn of %s: %s", session_id, error)

    def _leave(self, session_id: str, interaction_id: str) -> None:
        line = self._waiting.get(session_id)
        if line and line[0] == interaction_id:
            line.popleft()
            if not line:
                del self._waiting[session_id]

    def waiting_sessions(self) -> list[str]:
        """Sessions in which turns wait."""
        return list(self._waiting)


def _nothing() -> None:
    return None
