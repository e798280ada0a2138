"""The order in which tickets go. Pure: no loop, no store; the clock is given.

Each session has a line of its own, and only its first ticket competes. Those that compete are taken by priority, then
foreground before background, then in the order in which they began to compete: a session that was served stands at the
end again, so that one with a thousand tickets does not keep another's first waiting.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from interactd.engine.dispatch.port import Ticket

_Key = tuple[int, bool, int]


@dataclass(slots=True)
class Due:
    """What `Line.due` found."""

    start: list[Ticket] = field(default_factory=list[Ticket])
    """They hold a slot now."""
    late: list[Ticket] = field(default_factory=list[Ticket])
    """They were not begun in time, and are out of the line."""


class Line:
    """All that waits, and who has a slot.

    Args:
        most: slots over all.
        caps: slots of a provider, where it has fewer.
        clock: `boottime`.
    """

    def __init__(self, most: int, caps: Mapping[str, int], clock: Callable[[], float]) -> None:
        self.most = most
        self.caps = dict(caps)
        self._clock = clock
        self._waiting: dict[str, Ticket] = {}
        self._lines: dict[str, deque[Ticket]] = {}
        self._slots: dict[str, Ticket] = {}
        self._of_provider: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        """Tickets of a session that are claimed or have a slot."""
        self.parked: dict[str, str] = {}
        """Sessions that something else is in the way of, and what."""
        self._ready: dict[str, list[tuple[_Key, Ticket]]] = {}
        self._competing: dict[str, _Key] = {}
        self._timers: list[tuple[float, int, Ticket]] = []
        self._count = 0
        self.queued = 0
        """How many wait and are not claimed."""

    # -- what comes and goes ---------------------------------------------------------------------------------
    def add(self, ticket: Ticket, *, first: bool = False) -> None:
        """Let it wait; a ticket that waits or has a slot already is left as it is."""
        if ticket.id in self._waiting or ticket.id in self._slots:
            return
        self._waiting[ticket.id] = ticket
        if ticket.claimed:
            self._busy[ticket.session_id] += 1
            self._compete(ticket)
            return
        self.queued += 1
        line = self._lines.setdefault(ticket.session_id, deque())
        if first:
            if line:
                self._competing.pop(line[0].id, None)
            line.appendleft(ticket)
        else:
            line.append(ticket)
        if ticket.until is not None:
            self._time(ticket.until, ticket)
        self._consider(ticket.session_id)

    def admit(self, ticket: Ticket) -> bool:
        """Give it a slot at once, if nothing is in its way."""
        session = ticket.session_id
        if self._busy[session] or session in self._lines or ticket.at > self._clock() or not self._room(ticket):
            return False
        self._take(ticket)
        self._busy[session] += 1
        return True

    def holds(self, id: str) -> bool:
        return id in self._slots

    def remove(self, id: str) -> None:
        """Let it wait no more."""
        ticket = self._waiting.pop(id, None)
        if ticket is None:
            return
        self._competing.pop(id, None)
        if ticket.claimed:
            self._leave(ticket.session_id)
            return
        self.queued -= 1
        line = self._lines[ticket.session_id]
        line.remove(ticket)
        if not line:
            del self._lines[ticket.session_id]
        self._consider(ticket.session_id)

    def free(self, id: str) -> None:
        """It needs its slot no more."""
        ticket = self._slots.pop(id, None)
        if ticket is not None:
            self._of_provider[ticket.provider] -= 1
            self._leave(ticket.session_id)

    def back(self, ticket: Ticket) -> None:
        """It gives its slot back and waits again, before anything else of its session."""
        held = self._slots.pop(ticket.id, None)
        if held is not None:
            self._of_provider[held.provider] -= 1
            self._busy[held.session_id] -= 1
            if self._busy[held.session_id] <= 0:
                del self._busy[held.session_id]
        self.add(ticket, first=True)
        self._consider(ticket.session_id)

    def park(self, session_id: str, why: str) -> None:
        self.parked[session_id] = why

    def unpark(self, session_id: str) -> None:
        self.parked.pop(session_id, None)
        self._consider(session_id)

    def arrange(self, session_id: str, order: list[str]) -> None:
        """Put the session's line into this order; who is not in it stays at the end."""
        line = self._lines.get(session_id)
        if line:
            place = {id: at for at, id in enumerate(order)}
            self._competing.pop(line[0].id, None)
            self._lines[session_id] = deque(sorted(line, key=lambda one: place.get(one.id, len(place))))
            self._consider(session_id)

    # -- who goes --------------------------------------------------------------------------------------------
    def due(self) -> Due:
        """Take whoever may go now, and give them slots."""
        found, now = Due(), self._clock()
        while self._timers and self._timers[0][0] <= now:
            ticket = heapq.heappop(self._timers)[2]
            if self._waiting.get(ticket.id) is not ticket:
                continue
            if ticket.until is not None and ticket.until <= now:
                self.remove(ticket.id)
                found.late.append(ticket)
            else:
                self._consider(ticket.session_id)
        while (ticket := self._next()) is not None:
            del self._waiting[ticket.id]
            if not ticket.claimed:
                self.queued -= 1
                line = self._lines[ticket.session_id]
                line.popleft()
                if not line:
                    del self._lines[ticket.session_id]
                self._busy[ticket.session_id] += 1
            self._take(ticket)
            found.start.append(ticket)
        return found

    def next_in(self) -> float | None:
        """Seconds until a clock decides who may go; `None` when none does."""
        while self._timers and self._waiting.get(self._timers[0][2].id) is not self._timers[0][2]:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._clock()) if self._timers else None

    # -- looking ---------------------------------------------------------------------------------------------
    def get(self, id: str) -> Ticket | None:
        """The ticket, while it waits."""
        return self._waiting.get(id)

    def of_session(self, session_id: str) -> list[str]:
        return [ticket.id for ticket in self._lines.get(session_id, ())]

    @property
    def sessions(self) -> list[str]:
        return list(self._lines)

    @property
    def waiting(self) -> list[str]:
        return [id for id, ticket in self._waiting.items() if not ticket.claimed]

    @property
    def providers(self) -> list[str]:
        """Those of whom something runs."""
        return [name for name, count in self._of_provider.items() if count]

    def busy(self, session_id: str) -> bool:
        return self._busy[session_id] > 0

    def running(self, provider: str | None = None) -> int:
        return len(self._slots) if provider is None else self._of_provider[provider]

    def competing(self, id: str) -> bool:
        """Whether only a slot is missing."""
        return id in self._competing

    def full(self, provider: str) -> bool:
        """Whether the provider's own cap is what is in the way."""
        return provider in self.caps and self._of_provider[provider] >= self.caps[provider]

    def counts(self) -> tuple[Counter[str], int]:
        """How many wait for each provider, and how many of all wait for a time."""
        now = self._clock()
        tickets = self._waiting.values()
        return Counter(one.provider for one in tickets), sum(one.at > now for one in tickets)

    # -- inside ----------------------------------------------------------------------------------------------
    def _consider(self, session_id: str) -> None:
        """Let the session's first ticket compete, if it may."""
        line = self._lines.get(session_id)
        if not line or self._busy[session_id] or session_id in self.parked:
            return
        first = line[0]
        if first.id in self._competing:
            return
        if first.at > self._clock():
            self._time(first.at, first)
        else:
            self._compete(first)

    def _compete(self, ticket: Ticket) -> None:
        self._count += 1
        key = (-ticket.priority, ticket.background, self._count)
        self._competing[ticket.id] = key
        heapq.heappush(self._ready.setdefault(ticket.provider, []), (key, ticket))

    def _time(self, when: float, ticket: Ticket) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, ticket))

    def _next(self) -> Ticket | None:
        if len(self._slots) >= self.most:
            return None
        best: list[tuple[_Key, Ticket]] | None = None
        for provider, heap in list(self._ready.items()):
            while heap and self._competing.get(heap[0][1].id) != heap[0][0]:
                heapq.heappop(heap)
            if not heap:
                del self._ready[provider]
            elif not self.full(provider) and (best is None or heap[0][0] < best[0][0]):
                best = heap
        if best is None:
            return None
        ticket = heapq.heappop(best)[1]
        del self._competing[ticket.id]
        return ticket

    def _room(self, ticket: Ticket) -> bool:
        return len(self._slots) < self.most and not self.full(ticket.provider)

    def _take(self, ticket: Ticket) -> None:
        self._slots[ticket.id] = ticket
        self._of_provider[ticket.provider] += 1

    def _leave(self, session_id: str) -> None:
        self._busy[session_id] -= 1
        if self._busy[session_id] <= 0:
            del self._busy[session_id]
        self._consider(session_id)
