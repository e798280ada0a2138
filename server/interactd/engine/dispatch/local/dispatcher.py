"""The default dispatcher: a line in memory, a timer when one is needed, and a task for each attempt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from interactd.boottime import boottime
from interactd.engine.dispatch.local.line import Line
from interactd.engine.dispatch.local.reasons import reason_of
from interactd.engine.dispatch.port import After, Attempt, GiveUp, Ticket
from interactd.errors import InteractdError
from interactd.nouns import Json

log = logging.getLogger(__name__)

LONGEST_SLEEP_S: Final = 30.0
"""A timer of the loop stands still while the machine sleeps; what waits for a time looks this often."""


class LocalDispatcher:
    """See `interactd.engine.dispatch.port.Dispatcher`."""

    def __init__(self, most: int, caps: Mapping[str, int]) -> None:
        self._line = Line(most, caps, boottime)
        self._attempt: Attempt | None = None
        self._give_up: GiveUp | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._admitted: set[str] = set()
        """They have a slot and were not submitted yet."""

    def serve(self, attempt: Attempt, give_up: GiveUp) -> None:
        self._attempt, self._give_up = attempt, give_up
        self._pump()

    def submit(self, ticket: Ticket) -> None:
        if ticket.id in self._admitted:
            self._admitted.discard(ticket.id)
            self._begin(ticket)
            return
        self._line.add(ticket)
        self._pump()

    def admit(self, ticket: Ticket) -> bool:
        if self._paused or not self._line.admit(ticket):
            return False
        self._admitted.add(ticket.id)
        return True

    def cancel(self, interaction_id: str) -> None:
        if interaction_id in self._admitted:
            self._admitted.discard(interaction_id)
            self._line.free(interaction_id)
        else:
            self._line.remove(interaction_id)
        self._pump()

    def nudge(self, session_id: str) -> None:
        self._line.unpark(session_id)
        self._pump()

    def arrange(self, session_id: str, order: list[str]) -> None:
        self._line.arrange(session_id, order)
        self._pump()

    def line(self, session_id: str) -> list[str]:
        return self._line.of_session(session_id)

    def position(self, interaction_id: str) -> int | None:
        ticket = self._line.get(interaction_id)
        if ticket is None or ticket.claimed:
            return None
        return self._line.of_session(ticket.session_id).index(interaction_id) + 1

    def reason(self, interaction_id: str, now: float) -> str:
        ticket = self._line.get(interaction_id)
        if ticket is None:
            return ""
        if self._paused:
            return "the next daemon takes it up"
        return reason_of(self._line, ticket, self.position(interaction_id), boottime(), now)

    @property
    def queued(self) -> int:
        return self._line.queued

    @property
    def waiting(self) -> list[str]:
        return self._line.waiting

    @property
    def sessions(self) -> list[str]:
        return self._line.sessions

    def pause(self) -> None:
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def settled(self, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        return not self._tasks

    def health(self) -> Json:
        line = self._line
        waiting, delayed = line.counts()
        providers: Json = {}
        for name in sorted({*waiting, *line.caps, *line.providers}):
            figures: Json = {"running": line.running(name), "waiting": waiting[name]}
            providers[name] = {**figures, **({"max_running": line.caps[name]} if name in line.caps else {})}
        return {
            "running": line.running(),
            "max_running": line.most,
            "waiting": waiting.total(),
            "delayed": delayed,
            "providers": providers,
        }

    # -- inside ----------------------------------------------------------------------------------------------
    def _pump(self) -> None:
        """Begin whatever may begin, and set the clock for what may later."""
        if self._paused or self._attempt is None:
            return
        due = self._line.due()
        for ticket in due.start:
            self._begin(ticket)
        for ticket in due.late:
            self._own(self._late(ticket), f"give up {ticket.id}")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = self._line.next_in()
        if left is not None:
            self._timer = asyncio.get_running_loop().call_later(min(left, LONGEST_SLEEP_S), self._pump)

    def _begin(self, ticket: Ticket) -> None:
        self._own(self._run(ticket), f"attempt {ticket.id}")

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, ticket: Ticket) -> None:
        assert self._attempt is not None
        after = After()
        try:
            after = await self._attempt(ticket.id)
        except InteractdError as error:
            # It stays as it is in the store; the sweeper looks at it again.
            log.warning("cannot attempt %s: %s", ticket.id, error)
        except Exception:
            log.exception("attempting %s failed", ticket.id)
        finally:
            if after.blocked:
                # First, so that the next of its session does not slip in.
                self._line.park(ticket.session_id, after.blocked)
                ticket.claimed = False
                self._line.back(ticket)
            elif after.again is not None:
                self._line.back(after.again)
            else:
                self._line.free(ticket.id)
            self._pump()

    async def _late(self, ticket: Ticket) -> None:
        assert self._give_up is not None
        try:
            await self._give_up(ticket.id)
        except InteractdError as error:
            log.warning("cannot end %s, which was not begun in time: %s", ticket.id, error)
