"""A scene is played while its daemon dies at one instant; whoever plays it asks again, as a host would."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.instants.points import DIE, TRACE, passed
from chaos.runs.kit.plans import Kind, Plans
from chaos.runs.kit.world import PATIENCE_S, Failed, Gone, Json, Seat, World, alive, until

Scene = Callable[["Stage"], Awaitable[None]]


@dataclass
class Stage:
    """One performance. `do` is a call that is made again until it is answered; `tag` is nobody else's."""

    world: World
    plans: Plans
    number: int
    trace: Path
    died: list[str] = field(default_factory=list[str])
    """The points at which daemons died, in order."""
    more: list[str] = field(default_factory=list[str])
    """Where the coming daemons are to die."""
    again: Counter[str] = field(default_factory=Counter[str])
    """Methods that were called again after a death."""
    company: Seat | None = None
    """Where another daemon works on the same data, which takes over when the first one dies."""
    _runs: int = 0

    @property
    def tag(self) -> str:
        return f"t{self.number}"

    @property
    def folder(self) -> Path:
        """A place for files of this performance, outside of the home."""
        place = self.world.home.root.parent / "stage"
        place.mkdir(exist_ok=True)
        return place

    def run(self) -> int:
        """The number of a run that nobody had."""
        self._runs += 1
        return self.number * 100 + self._runs

    def plan(self, *rounds: tuple[Kind, ...]) -> int:
        """A run that makes these calls, round by round; returns its number."""
        number = self.run()
        self.plans.let(number, rounds)
        return number

    async def do(self, method: str, *, done: tuple[str, ...] = (), **params: Any) -> Any:
        """Call it, again after every death.

        Args:
            done: codes with which a second call says that the first one was carried out; they return None.
        """
        tried = 0
        while True:
            try:
                return await self.world.call(method, **params)
            except Gone:
                tried += 1
                self.again[method] += 1
                await self.revive()
            except Failed as error:
                if (tried or self.full) and error.code in done:
                    return None
                if not (self.full and error.code in ("storage_full", "storage_error") and tried < 40):
                    raise
                tried += 1
                await asyncio.sleep(0.1)

    async def ended(self, id: str) -> Json:
        """Wait until a run rests."""
        while True:
            try:
                # What found no room before it began is taken up by the sweeper, within a minute.
                return await self.world.ended(id, within_s=150)
            except Gone:
                await self.revive()
            except Failed as error:
                if not self.full or error.code != "storage_full":
                    raise
                await asyncio.sleep(0.1)

    async def send(self, session: str, run: int, key: str | None = None, **more: Any) -> str:
        given: Json = {"background": True, "if_busy": "queue", "content": f"run {run}", **more}
        sent = await self.do("send_turn", session_id=session, idempotency_key=key or f"{self.tag}-run{run}", **given)
        return sent["interaction"]["id"]

    async def session(self, name: str, **more: Any) -> str:
        given: Json = {"agent": "helper", "model": "fake/fake-model-1", **more}
        return (await self.do("create_session", idempotency_key=f"{self.tag}-{name}", **given))["id"]

    async def start(self, die: str = "") -> None:
        """Start a daemon, and others until one lives."""
        while not await self._start(die):
            self._fell()
            die = self.more.pop(0) if self.more else ""

    async def leave(self) -> None:
        """The last one leaves in order, and nothing is left of any."""
        if self.company is not None:
            await self.world.leave(*self.world.seats)
            return
        while True:
            # It may have to die while it leaves.
            self.world.kill(signal.SIGTERM)
            await until(lambda: not alive(self.world.pid))
            if not self.fell:
                break
            await self.revive()
        await self.world.leave()

    async def revive(self) -> None:
        """Wait for the end of the one that died, and start the next."""
        await until(lambda: not alive(self.world.pid))
        self._fell()
        if self.company is not None and self.world.seat is not self.company:
            self.world.seat = self.company
            return
        await self.start(self.more.pop(0) if self.more else "")

    @property
    def full(self) -> bool:
        """Whether the disk was full for a while."""
        return any(line.endswith(" FULL") for line in passed(self.trace))

    @property
    def fell(self) -> bool:
        """Whether a daemon died at a point since the last one was started."""
        return len([line for line in passed(self.trace) if line.endswith(" DIED")]) > len(self.died)

    def _fell(self) -> None:
        fell = [line for line in passed(self.trace) if line.endswith(" DIED")]
        assert len(fell) == len(self.died) + 1, (
            f"a daemon died by itself; see {self.world.seat.paths.log_file}: {self.died}"
        )
        self.died = fell
        self.world.deaths += 1

    async def _start(self, die: str) -> bool:
        seat, before = self.world.seat, self.world.seat.pid
        usual = seat.env
        seat.env = {**usual, TRACE: str(self.trace), DIE: die or "nowhere#0"}
        try:
            async with asyncio.timeout(PATIENCE_S):
                starting = asyncio.ensure_future(self.world.start(seat))
                await until(lambda: seat.pid != before or starting.done())
                while not starting.done():
                    if not alive(seat.pid):
                        starting.cancel()
                        await asyncio.wait([starting])
                        return False
                    await asyncio.wait([starting], timeout=0.01)
                starting.result()
        finally:
            seat.env = usual
        return True

    # -- what must be true, whatever died ----------------------------------------------------------------------------
    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.world.rows(query, *values)

    def judge(self) -> None:
        """Nobody paid twice, nothing was made twice, nothing is held."""
        held = (
            "SELECT scope, key FROM spent WHERE held_nano <> 0 OR held_tokens <> 0 OR held_steps <> 0 OR held_ms <> 0"
        )
        open_ = {id for (id,) in self.rows("SELECT id FROM interactions WHERE status = 'requires_action'")}
        assert [one for one in self.rows(held) if one[1] not in open_] == [], "reserved money comes free"
        assert not self.rows("SELECT id FROM ledger WHERE state = 'reserved'")
        totals = dict(self.rows("SELECT 'interaction', sum(steps) FROM spent WHERE scope = 'interaction'"))
        lines = self.rows("SELECT count(*) FROM ledger WHERE kind = 'call' AND state IN ('settled', 'unknown')")[0][0]
        assert (totals["interaction"] or 0) == lines, (totals, lines)
        sums = "SELECT (SELECT sum(cost_nano) FROM ledger), (SELECT sum(cost_nano) FROM ledger_folded)"
        spent = "SELECT sum(nano) FROM spent WHERE scope = 'day'"
        assert sum(one or 0 for one in self.rows(sums)[0]) == (self.rows(spent)[0][0] or 0)
        for run, asked in self.plans.asked.items():
            if run // 100 != self.number:
                continue
            twice = [at for at, count in Counter(asked).items() if count > 1]
            assert len(twice) <= len(self.died), (run, asked)
        for call, count in self.world.marks.seen.items():
            if int(call[1:].split("-")[0]) // 100 != self.number:
                continue
            most = 1 + len(self.died) if call.endswith("-safe") else 1
            assert count <= most, f"{call} took effect {count} times"

    def judge_run(self, seen: Json, run: int) -> None:
        """Every step once and in order; every answer that the provider gave is in the books."""
        id = seen["interaction"]["id"]
        assert seen["interaction"]["status"] == "completed", seen["interaction"]
        planned = self.plans.ids(run)
        made = [s["id"] for s in seen["steps"] if s["type"].endswith("_call") and s["id"].startswith("r")]
        assert made == planned, (made, planned)
        results = [s["call_id"] for s in seen["steps"] if s["type"].endswith("_result")]
        assert sorted(one for one in results if one.startswith("r")) == sorted(planned)
        for step in seen["steps"]:
            if step["type"].endswith("_result") and step.get("is_error"):
                assert self.died or self.full, step
                assert self.full or "Outcome unknown" in json.dumps(step["result"]), step
        states = Counter(
            state for (state,) in self.rows("SELECT state FROM ledger WHERE kind = 'call' AND interaction_id = ?", id)
        )
        answers = len(self.plans.of(run)) + 1
        assert states["settled"] == answers, (states, answers)
        asked = self.plans.asked[run]
        assert states["settled"] + states["unknown"] >= len(asked), (states, asked)
        assert states["unknown"] <= len(self.died), states


@asynccontextmanager
async def performance(world: World, plans: Plans, number: int, die: str = "", *more: str) -> AsyncGenerator[Stage]:
    """A stage whose first daemon dies at `die`, the next ones at `more`; in the end nothing may be left of any."""
    trace = world.home.root.parent / f"trace-{number}"
    stage = Stage(world, plans, number, trace, more=list(more))
    if world.seats:
        world.seat, stage.company = world.seats
        await world.start(stage.company)
    await stage.start(die)
    yield stage
    try:
        await world.call("status")
    except Gone:
        await stage.revive()
    stage.judge()
    await stage.leave()
