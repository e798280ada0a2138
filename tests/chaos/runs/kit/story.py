"""Background runs while daemons die, what was promised about them, and what must be true in the end."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.runs.kit.follower import Follower
from chaos.runs.kit.plans import Plans, kind_of, round_of
from chaos.runs.kit.world import Failed, Gone, Json, World, alive, until

TERMINAL = ("completed", "failed", "cancelled", "incomplete", "budget_exceeded")
UNKNOWN = "Outcome unknown"


@dataclass
class Run:
    """A background turn. The call that starts it is made again until it is answered."""

    number: int
    session: str
    id: str | None = None
    follower: Follower | None = None
    status: str | None = None
    """Its terminal status once somebody saw it."""
    journalled: int = 0
    """Answers of the model that were in the journal when a daemon died."""
    finished: set[str] = field(default_factory=set[str])
    """Calls that had a result when a daemon died."""
    in_flight: Counter[str] = field(default_factory=Counter[str])
    """How often a daemon died during a call."""
    denied: set[str] = field(default_factory=set[str])
    """Calls that the user, asked whether to repeat them, saw to have taken effect."""


class Story:
    """Starts runs, kills daemons, answers questions as a user would who looks at the counter first."""

    def __init__(self, world: World, plans: Plans, chance: random.Random, *, sessions: int = 4, follow: bool = True):
        self.world = world
        self.plans = plans
        self.chance = chance
        self.runs: list[Run] = []
        self.questions = 0
        self.unknown = 0
        self._follow = follow
        self._sessions: list[str] = []
        self._most = sessions
        self._asked_by_then: dict[int, int] = {}
        self._logs: Counter[str] = Counter()

    async def begin(self, count: int) -> list[Run]:
        """Start some runs."""
        fresh: list[Run] = []
        for _ in range(count):
            if len(self._sessions) < self._most:
                self._sessions.append(await self.world.session(key=f"s{len(self._sessions)}"))
            run = Run(len(self.runs), self.chance.choice(self._sessions))
            self.runs.append(run)
            fresh.append(run)
        await asyncio.gather(*(self._send(run) for run in fresh))
        return fresh

    async def _send(self, run: Run) -> None:
        try:
            id = await self.world.send(run.session, f"run {run.number}", key=f"k{run.number}")
        except Gone:
            return
        assert run.id in (None, id), "the same key is the same interaction"
        run.id = id
        if run.follower is None and self._follow:
            run.follower = Follower(self.world, id)

    @property
    def open(self) -> list[Run]:
        return [run for run in self.runs if run.status is None]

    async def look(self) -> None:
        """Send again what was not answered, answer what is asked, note what has ended."""
        for run in self.open:
            if run.id is None:
                await self._send(run)
            if run.id is None:
                continue
            seen = await self.world.call("get_interaction", interaction_id=run.id)
            status = seen["interaction"]["status"]
            if status == "requires_action":
                await self._answer(run, seen)
            elif status in TERMINAL:
                run.status = status

    async def _answer(self, run: Run, seen: Json) -> None:
        results: list[Json] = []
        for asked in seen["waiting_for"]:
            assert asked["kind"] == "replay", asked
            call = next(s for s in seen["steps"] if s.get("id") == asked["id"])["arguments"]["call_id"]
            assert kind_of(call) == "ask", "only those are asked about"
            took_effect = self.world.marks.seen[call] > 0
            if took_effect:
                run.denied.add(call)
            results.append({"call_id": asked["id"], "result": "deny" if took_effect else "allow"})
            self.questions += 1
        key = f"a{run.number}-{len(seen['steps'])}"
        try:
            await self.world.call("respond", interaction_id=run.id, results=results, idempotency_key=key)
        except Failed as error:
            # The daemon that took the answer died before it said so.
            if error.code != "conflict":
                raise

    def died(self, pid: int) -> None:
        """Note what the journal holds, right after the death of the daemon `pid` (0: nobody died)."""
        # The answer with a run's id may have died with the daemon: its input is known.
        inputs = "SELECT interaction_id, body FROM steps WHERE type = 'user_input'"
        numbers = {id: int(text(json.loads(body)).split()[1]) for id, body in self.world.rows(inputs)}
        open_ = {id: self.runs[number] for id, number in numbers.items() if self.runs[number].status is None}
        steps = self.world.rows("SELECT interaction_id, type, body FROM steps ORDER BY interaction_id, seq")
        for id, type, body in steps:
            run = open_.get(id)
            if run is None:
                continue
            read = json.loads(body)
            if type.endswith("_call") and read["id"].startswith("r"):
                run.journalled = max(run.journalled, round_of(read["id"]) + 1)
            elif type.endswith("_result") and read["call_id"].startswith("r"):
                run.finished.add(read["call_id"])
        # One whose row is gone is dead too: a daemon that died in its turn had seen to it.
        living = {id for (id,) in self.world.rows("SELECT id FROM runners WHERE pid <> ?", pid)}
        for id, status, note, runner in self.world.rows("SELECT id, status, pending, runner FROM interactions"):
            run = self.runs[numbers[id]]
            if run.status is not None:
                assert status == run.status, "a terminal status is for good"
            pending: Json = json.loads(note) if note else {}
            for call in pending.get("flight", ()) if runner not in living else ():
                run.in_flight[call] += call not in run.finished
        self._check_nothing_again()
        self._asked_by_then = {run: len(asked) for run, asked in self.plans.asked.items()}

    def _check_nothing_again(self) -> None:
        for run in self.runs:
            since = self.plans.asked[run.number][self._asked_by_then.get(run.number, 0) :]
            assert all(at >= self._journalled_then.get(run.number, 0) for at in since), (run, since)
        self._journalled_then = {run.number: run.journalled for run in self.runs}

    _journalled_then: dict[int, int] = {}  # noqa: RUF012 - replaced, never changed

    async def kill(self, after_s: float) -> None:
        """Let it run for so long, kill the daemon, start the next."""
        await asyncio.sleep(after_s)
        self.world.kill()
        # Its last commit may still be on the way.
        await until(lambda: not alive(self.world.pid))
        self.died(self.world.pid)
        await self.world.start()

    async def finish(self) -> None:
        """No more deaths: everything ends. A last turn in each session shows what its files have become."""
        await self.all_end()
        last = [Run(len(self.runs) + n, session) for n, session in enumerate(self._sessions)]
        for run in last:
            self.plans.note(run.number)
        self.runs += last
        await self.all_end()
        for run in last:
            for kept in await self.world.call("artifacts", interaction_id=run.id):
                if kept["name"] == "log":
                    self._logs.update(Path(kept["path"]).read_text().split())
        self.died(0)
        async with asyncio.timeout(30):
            await asyncio.gather(*(run.follower.task for run in self.runs if run.follower))

    async def all_end(self) -> None:
        """Look after every run until none is open."""
        async with asyncio.timeout(240):
            while self.open:
                await self.look()
                await asyncio.sleep(0.05)

    def judge(self) -> None:
        """What must be true in the end."""
        rows = dict(self.world.rows("SELECT id, status FROM interactions"))
        assert rows == {run.id: run.status for run in self.runs}, "each run is one interaction"
        for run in self.runs:
            steps = [
                (type, json.loads(body))
                for type, body in self.world.rows(
                    "SELECT type, body FROM steps WHERE interaction_id = ? ORDER BY seq", run.id
                )
            ]
            self._judge_run(run, steps)
            if run.follower is not None:
                run.follower.judge([step for step in steps if step[0] != "user_input"])

    def _judge_run(self, run: Run, steps: list[tuple[str, Json]]) -> None:
        crashed = run.status == "failed"
        if crashed:
            (error,) = self.world.rows("SELECT error FROM interactions WHERE id = ?", run.id)
            assert json.loads(error[0])["code"] == "crashed", error
        else:
            assert run.status == "completed", run
            assert text(steps[-1][1]) == self.plans.end(run.number)
        planned = self.plans.ids(run.number)
        made = [body["id"] for type, body in steps if type.endswith("_call") and body["id"].startswith("r")]
        assert made == (planned[: len(made)] if crashed else planned), "each call once, in order"
        results = [body for type, body in steps if type.endswith("_result") and body["call_id"].startswith("r")]
        answered = [body["call_id"] for body in results]
        assert len(answered) == len(set(answered)), "one result each"
        assert crashed or set(answered) == set(made)
        asked = self.plans.asked[run.number]
        assert asked == sorted(asked), "the model is never asked for an earlier step again"
        for body in results:
            self._judge_call(run, body)

    def _judge_call(self, run: Run, result: Json) -> None:
        id, bad, said = result["call_id"], result.get("is_error"), json.dumps(result["result"])
        kind = kind_of(id)
        effects = self._logs[id] if kind in ("code", "bash") else self.world.marks.seen[id]
        deaths = run.in_flight[id]
        if kind in ("write", "list"):
            assert not bad, result
        elif kind == "safe":
            assert not bad, result
            assert 1 <= effects <= 1 + deaths, (id, effects, deaths)
        elif id in run.denied:
            assert bad, result
            assert effects == 1, (id, effects)
        elif bad:
            assert UNKNOWN in said, result
            assert kind != "ask", "it is asked about, not given up"
            assert deaths, "only a death leaves a call in doubt"
            assert effects <= 1, (id, effects)
            self.unknown += 1
        else:
            assert effects == 1, (id, effects)


def text(body: Any) -> str:
    return "".join(part.get("text", "") for part in body.get("content", ()))
