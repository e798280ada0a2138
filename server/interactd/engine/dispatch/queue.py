"""The runs of this daemon: claimed when the dispatcher says so, each a task of its own, and what their callers see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from interactd.boottime import boottime
from interactd.engine.agents.run import run_of
from interactd.engine.core import Core
from interactd.engine.dispatch.local.dispatcher import LocalDispatcher
from interactd.engine.dispatch.port import After, Dispatcher, Ticket
from interactd.engine.run.note import Note
from interactd.engine.run.runner import Run
from interactd.models.port import Model
from interactd.nouns import Interaction, Json, Session, Step

log = logging.getLogger(__name__)


class Queue:
    """Owns every run's task."""

    def __init__(self, core: Core, dispatcher: Dispatcher | None = None) -> None:
        self._core = core
        settings = core.settings
        self.dispatcher = dispatcher or LocalDispatcher(settings.max_running, settings.provider_slots)
        self._runs: dict[str, Run] = {}
        self._by_session: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_work: Callable[[], None] = _nothing
        """Called when something runs or waits that did not before."""
        self.dispatcher.serve(self._attempt, self._give_up)

    # -- looking ---------------------------------------------------------------------------------------------
    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def queued(self) -> int:
        return self.dispatcher.queued

    @property
    def runs(self) -> list[Run]:
        return list(self._runs.values())

    @property
    def waiting(self) -> list[str]:
        """Every interaction that waits in some session's line."""
        return self.dispatcher.waiting

    def run_of(self, interaction_id: str) -> Run | None:
        return self._runs.get(interaction_id)

    def run_in(self, session_id: str) -> Run | None:
        """The session's run, unless it is writing its outcome already."""
        run = self._by_session.get(session_id)
        return None if run is None or run.settling else run

    def knows(self, interaction: Interaction) -> bool:
        """Whether the interaction runs or waits here."""
        return interaction.id in self._runs or self.position(interaction) is not None

    def next_in(self, session_id: str) -> str | None:
        """The first of the session's waiting turns."""
        return next(iter(self.dispatcher.line(session_id)), None)

    def waiting_in(self, session_id: str) -> int:
        return len(self.dispatcher.line(session_id))

    def position(self, interaction: Interaction) -> int | None:
        """How many of the session's waiting turns go first, plus one; `None` when it does not wait."""
        return self.dispatcher.position(interaction.id)

    def reason(self, interaction: Interaction) -> str | None:
        """Why it does not run yet; `None` when it does not wait."""
        return self.dispatcher.reason(interaction.id, self._core.clock()) or None

    # -- what comes ------------------------------------------------------------------------------------------
    def admit(self, interaction: Interaction) -> bool:
        """Take a slot for a turn that is about to be accepted, if it could begin this moment. Then `launch` or
        `dismiss` it."""
        return not self._core.handing_over and self.dispatcher.admit(self._ticket(interaction, Note()))

    def dismiss(self, interaction_id: str) -> None:
        """It was not accepted."""
        self.dispatcher.cancel(interaction_id)

    def launch(
        self, interaction: Interaction, session: Session, own: Sequence[Step], note: Note, model: Model | None = None
    ) -> None:
        """Run a claimed interaction as a task of our own, whoever asked for it, when there is a slot for it."""
        self._start(interaction, session, own, note, model)
        self.dispatcher.submit(self._ticket(interaction, note, claimed=True))

    def enqueue(self, interaction: Interaction, note: Note) -> None:
        """Put an accepted, queued turn at the end of its session's line."""
        self._core.hub.open(interaction.id).status(interaction)
        self.dispatcher.submit(self._ticket(interaction, note))
        self.on_work()

    def drop(self, interaction: Interaction) -> None:
        """Take a turn out of its session's line, if it is in it."""
        self.dispatcher.cancel(interaction.id)

    def forget(self, interaction_id: str) -> None:
        """Let go of a waiting turn that was settled elsewhere."""
        self.dispatcher.cancel(interaction_id)
        if channel := self._core.hub.get(interaction_id):
            self._core.hub.close(channel)

    def arrange(self, session_id: str, order: Sequence[str]) -> None:
        """Put the session's line into this order."""
        self.dispatcher.arrange(session_id, list(order))

    def advance_soon(self, session_id: str) -> None:
        """Start the session's next turn when nothing is in its way; returns at once."""
        self.dispatcher.nudge(session_id)

    def waiting_sessions(self) -> list[str]:
        """Sessions in which turns wait."""
        return self.dispatcher.sessions

    async def settled(self, timeout_s: float) -> bool:
        """Wait until no task is left; True when none is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        return await self.dispatcher.settled(max(0.0, end - loop.time())) and not self._tasks

    # -- running ---------------------------------------------------------------------------------------------
    async def _attempt(self, interaction_id: str) -> After:
        """See `port.Attempt`."""
        run = self._runs.get(interaction_id)
        if run is None:
            claimed = await self._claim(interaction_id)
            if isinstance(claimed, After):
                return claimed
            run = claimed
        run.slot.set()
        await run.over.wait()
        if run.again is None:
            return After()
        return After(again=self._ticket(run.interaction, run.again))

    async def _claim(self, interaction_id: str) -> Run | After:
        """Claim a queued turn, unless another of its session is in the way."""
        core = self._core
        session_id = (await core.store.get_interaction(interaction_id)).session_id
        async with core.session_lock(session_id):
            active = await core.store.active(session_id)
            if core.handing_over:
                return After(blocked="the next daemon takes it up")
            ahead = next((one for one in active if one.status != "queued"), None)
            if ahead is not None:
                what = "waits for an answer" if ahead.status == "requires_action" else "still runs"
                return After(blocked=f"{ahead.id} {what}")
            if active and active[0].id != interaction_id and core.others.holds(active[0].runner):
                # It is another daemon's turn to start one; we see when it has ended.
                return After(blocked=f"{active[0].id} goes first")
            note = Note.read(await core.store.pending(interaction_id))
            claimed = await core.store.claim(interaction_id, from_status=("queued",), now=core.clock())
            if claimed is None:
                # Settled by somebody else meanwhile: its place in the line is all that is left of it.
                self.forget(interaction_id)
                return After()
            session = await core.store.get_session(session_id)
            own = await core.store.get_steps(interaction_id)
            return self._start(claimed, session, own, note)

    def _start(
        self, interaction: Interaction, session: Session, own: Sequence[Step], note: Note, model: Model | None = None
    ) -> Run:
        if before := self._runs.get(interaction.id):
            # It has settled, or we could not have claimed; its channel must not be taken for the new run's.
            self._core.hub.close(before.channel)
        run = run_of(self._core, interaction, session, own, note, model)
        self._runs[interaction.id] = self._by_session[interaction.session_id] = run
        if self._core.handing_over:
            # Its claim was under way when the hand-over began: the next daemon makes the call.
            run.stop("hand_over")
        self._own(self._run(run), f"run {interaction.id}")
        self.on_work()
        return run

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
                if not run.slot.is_set():
                    self.dispatcher.cancel(interaction.id)
            if self._by_session.get(interaction.session_id) is run:
                del self._by_session[interaction.session_id]
            if run.again is None:
                self._core.hub.close(run.channel)
            run.over.set()
            self.dispatcher.nudge(interaction.session_id)

    async def _give_up(self, interaction_id: str) -> None:
        """See `port.GiveUp`."""
        core = self._core
        row = await core.store.get_interaction(interaction_id)
        async with core.session_lock(row.session_id):
            row = await core.store.get_interaction(interaction_id)
            if row.status != "queued":
                return
            limit = core.settings.terms_of(row).get("start_timeout_s")
            error: Json = {
                "code": "start_timeout",
                "message": f"It was not started within {limit:g} s (start_timeout_s); nothing was called and nothing "
                "is to be paid.",
                "repair": "Send it again when there is less to do, or with more time or a higher priority.",
            }
            settled = await core.store.settle(row.id, row.epoch, "failed", error=error, now=core.clock())
            if channel := core.hub.get(settled.id):
                channel.status(settled)
                core.hub.close(channel)
        self.advance_soon(row.session_id)

    # -- tickets ---------------------------------------------------------------------------------------------
    def _ticket(self, interaction: Interaction, note: Note, *, claimed: bool = False) -> Ticket:
        """What the dispatcher has to know. Times of day become spans, cut to what was asked for: a clock that was set
        meanwhile must not make anybody wait for a day."""
        terms, now, here = self._core.settings.terms_of(interaction), self._core.clock(), boottime()
        wait = 0.0
        if note.not_before is not None:
            wait = min(max(0.0, note.not_before - now), note.wait_s)
        until = None
        if (limit := terms.get("start_timeout_s")) and interaction.started_at is None:
            allowed = limit + (terms.get("delay_s") or 0.0)
            until = here + min(max(0.0, interaction.created_at + allowed - now), allowed)
        return Ticket(
            interaction.id,
            interaction.session_id,
            provider=(interaction.model or "").partition("/")[0],
            priority=int(terms.get("priority") or 0),
            background=interaction.background,
            at=here + wait if wait else 0.0,
            until=until,
            not_before=note.not_before or 0.0,
            why=note.why,
            claimed=claimed,
        )


def _nothing() -> None:
    return None
