from __future__ import annotations

import random
from collections import Counter

from interactd.engine.dispatch.local.line import Line
from interactd.engine.dispatch.local.reasons import ordinal, reason_of, span
from interactd.engine.dispatch.port import Ticket


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def line(most: int = 1, caps: dict[str, int] | None = None) -> tuple[Line, Time]:
    clock = Time()
    return Line(most, caps or {}, clock), clock


def started(it: Line) -> list[str]:
    return [ticket.id for ticket in it.due().start]


def served(it: Line) -> list[str]:
    """Everything, one after the other."""
    order: list[str] = []
    while ids := started(it):
        for id in ids:
            order.append(id)
            it.free(id)
    return order


def test_a_session_with_a_thousand_waiting_does_not_keep_anothers_first_waiting() -> None:
    it, _ = line()
    for n in range(1000):
        it.add(Ticket(f"greedy{n}", "greedy"))
    for n in range(3):
        it.add(Ticket(f"modest{n}", "modest"))
    order = served(it)
    assert order[:7] == ["greedy0", "modest0", "greedy1", "modest1", "greedy2", "modest2", "greedy3"]
    assert len(order) == 1003


def test_priority_goes_first_then_foreground_then_whoever_waited_longest() -> None:
    it, _ = line()
    it.add(Ticket("low", "a", priority=-1))
    it.add(Ticket("back", "b", background=True))
    it.add(Ticket("fore", "c"))
    it.add(Ticket("fore2", "d"))
    it.add(Ticket("high", "e", priority=5, background=True))
    assert served(it) == ["high", "fore", "fore2", "back", "low"]


def test_the_turns_of_a_session_go_in_order_whatever_their_priority() -> None:
    it, _ = line(9)
    it.add(Ticket("one", "s"))
    it.add(Ticket("two", "s", priority=100))
    assert started(it) == ["one"]
    assert started(it) == []
    it.free("one")
    assert started(it) == ["two"]


def test_a_full_provider_holds_up_nobody_elses_turns() -> None:
    it, _ = line(10, {"small": 1})
    for n in range(3):
        it.add(Ticket(f"small{n}", f"s{n}", "small"))
        it.add(Ticket(f"big{n}", f"b{n}", "big"))
    assert started(it) == ["small0", "big0", "big1", "big2"]
    assert reason_of(it, _of(it, "small1"), 1, 1000, 0) == "waits for one of 1 slot of small"
    it.free("big0")
    assert started(it) == []
    it.free("small0")
    assert started(it) == ["small1"]


def _of(it: Line, id: str) -> Ticket:
    ticket = it.get(id)
    assert ticket is not None
    return ticket


def test_what_is_delayed_holds_up_its_session_and_no_other() -> None:
    it, clock = line(10)
    it.add(Ticket("later", "s", at=1060))
    it.add(Ticket("behind", "s"))
    it.add(Ticket("other", "t"))
    assert started(it) == ["other"]
    assert it.next_in() == 60
    assert not it.admit(Ticket("new", "s"))
    clock.now += 60
    assert started(it) == ["later"]
    it.free("later")
    assert started(it) == ["behind"]
    assert it.next_in() is None


def test_what_is_not_begun_in_time_is_given_up_once() -> None:
    it, clock = line(1)
    it.add(Ticket("running", "a"))
    assert started(it) == ["running"]
    it.add(Ticket("late", "b", until=1005))
    it.add(Ticket("patient", "b"))
    clock.now += 5
    due = it.due()
    assert ([t.id for t in due.late], due.start) == (["late"], [])
    it.free("running")
    clock.now += 5
    assert started(it) == ["patient"]
    assert it.due().late == []


def test_a_claimed_one_waits_for_a_slot_and_its_session_is_its_own() -> None:
    it, _ = line(1)
    it.add(Ticket("running", "a"))
    assert started(it) == ["running"]
    it.add(Ticket("claimed", "b", claimed=True))
    it.add(Ticket("behind", "b"))
    assert (it.queued, it.of_session("b")) == (1, ["behind"])
    it.free("running")
    assert started(it) == ["claimed"]
    it.free("claimed")
    assert started(it) == ["behind"]


def test_one_that_is_tried_again_goes_before_the_rest_of_its_session() -> None:
    it, clock = line(5)
    for n in range(3):
        it.add(Ticket(f"t{n}", "s"))
    assert started(it) == ["t0"]
    it.back(Ticket("t0", "s", at=1002, why="rate_limited"))
    assert started(it) == []
    assert reason_of(it, _of(it, "t0"), 1, 1000, 0) == "tries again in 2 s: rate_limited"
    assert reason_of(it, _of(it, "t2"), 3, 1000, 0) == "3rd in line of its session"
    clock.now += 2
    assert started(it) == ["t0"]


def test_a_parked_session_waits_until_it_is_free_again() -> None:
    it, _ = line(5)
    it.add(Ticket("t0", "s"))
    assert started(it) == ["t0"]
    it.park("s", "int_x waits for an answer")
    it.back(_held("t0"))
    assert started(it) == []
    assert reason_of(it, _of(it, "t0"), 1, 1000, 0) == "1st in line of its session: int_x waits for an answer"
    it.unpark("s")
    assert started(it) == ["t0"]


def _held(id: str) -> Ticket:
    return Ticket(id, "s")


def test_whatever_comes_and_goes_the_caps_hold_and_nothing_is_lost() -> None:
    for seed in range(60):
        chance = random.Random(seed)
        it, clock = line(chance.randint(1, 4), {"p0": 1, "p1": 2})
        running: dict[str, Ticket] = {}
        added: set[str] = set()
        ended: Counter[str] = Counter()
        for n in range(300):
            what = chance.random()
            if what < 0.4:
                ticket = Ticket(
                    f"t{n}",
                    f"s{chance.randrange(6)}",
                    f"p{chance.randrange(3)}",
                    chance.randint(-1, 1),
                    chance.random() < 0.5,
                    at=clock.now + chance.choice([0, 0, 5]),
                    until=clock.now + 20 if chance.random() < 0.2 else None,
                )
                added.add(ticket.id)
                if chance.random() < 0.3 and it.admit(ticket):
                    running[ticket.id] = ticket
                else:
                    it.add(ticket)
            elif what < 0.7 and running:
                id = chance.choice(sorted(running))
                ticket = running.pop(id)
                if chance.random() < 0.2:
                    it.back(Ticket(id, ticket.session_id, ticket.provider, at=clock.now + 3))
                else:
                    it.free(id)
                    ended[id] += 1
            elif what < 0.75 and it.waiting:
                id = chance.choice(it.waiting)
                it.remove(id)
                ended[id] += 1
            else:
                clock.now += chance.random() * 5
            due = it.due()
            for ticket in due.start:
                running[ticket.id] = ticket
            for ticket in due.late:
                ended[ticket.id] += 1
            assert len(running) <= it.most
            assert sum(t.provider == "p0" for t in running.values()) <= 1
            assert sum(t.provider == "p1" for t in running.values()) <= 2
            sessions = Counter(t.session_id for t in running.values())
            assert all(count == 1 for count in sessions.values())
            assert it.queued == len(it.waiting)
        for _ in range(2000):
            due = it.due()
            running |= {ticket.id: ticket for ticket in due.start}
            ended.update(ticket.id for ticket in due.late)
            if not running and not it.waiting:
                break
            for id in list(running):
                it.free(id)
                del running[id]
                ended[id] += 1
            clock.now += 1
        assert added == set(ended)
        assert all(count == 1 for count in ended.values())


def test_words() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "102nd",
    ]
    assert [span(s) for s in (0.2, 12.4, 600, 7200, 5400)] == ["1 s", "12 s", "10 min", "2 h", "1.5 h"]
