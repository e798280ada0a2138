"""A clock that jumps deletes nothing at once; what is over goes when the clock is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.archive.world import World, world
from interactd.engine.retention.clock import ClockWatch
from interactd.engine.retention.tending import Tending

pytestmark = pytest.mark.anyio
HOUR, DAY = 3600.0, 86_400.0


class Machine:
    """A machine's clock and uptime, and a store that keeps one note."""

    def __init__(self) -> None:
        self.now, self.up, self.boot = 1_000_000_000.0, 100.0, "one"
        self.note: Any = None

    async def get_setting(self, name: str) -> Any:
        assert name
        return self.note

    async def put_setting(self, name: str, value: Any) -> None:
        assert name
        self.note = value

    def watch(self) -> ClockWatch:
        return ClockWatch(lambda: self.now, lambda: (self.boot, self.up), grace_s=HOUR)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.up += seconds

    def reboots(self, after: float) -> None:
        self.now += after
        self.boot, self.up = self.boot + "+", 30.0


async def test_time_that_passes_is_believed_also_over_restarts_and_sleep() -> None:
    it = Machine()
    watch = it.watch()
    assert not watch.trusted
    assert await watch.look(it)
    for seconds in (60, 8 * HOUR, 3 * DAY):
        it.passes(seconds)
        assert await watch.look(it)
        assert await it.watch().look(it)


async def test_a_jump_waits_and_is_forgotten_when_the_clock_comes_back() -> None:
    it = Machine()
    watch = it.watch()
    await watch.look(it)
    it.now += DAY
    assert not await watch.look(it)
    assert watch.doubted_until == it.up + HOUR
    it.passes(HOUR / 2)
    assert not await watch.look(it)
    # Not even a restart of the daemon makes it hurry.
    watch = it.watch()
    assert not await watch.look(it)
    it.now -= DAY
    assert await watch.look(it)
    it.passes(HOUR)
    assert await watch.look(it)


async def test_a_jump_that_stays_is_believed_after_the_grace() -> None:
    it = Machine()
    watch = it.watch()
    await watch.look(it)
    it.now += DAY
    assert not await watch.look(it)
    it.passes(HOUR + 1)
    assert await watch.look(it)
    it.passes(60)
    assert await watch.look(it)


async def test_a_clock_that_goes_back_deletes_nothing_and_is_no_jump_when_it_returns_slowly() -> None:
    it = Machine()
    watch = it.watch()
    await watch.look(it)
    it.now -= 10 * DAY
    assert await watch.look(it)
    it.passes(60)
    assert await watch.look(it)


async def test_a_machine_that_was_off_waits_out_the_grace() -> None:
    it = Machine()
    await it.watch().look(it)
    it.reboots(after=3 * DAY)
    watch = it.watch()
    assert not await watch.look(it)
    it.passes(HOUR + 1)
    assert await watch.look(it)
    it.reboots(after=60)
    assert await it.watch().look(it)


def tending(it: World) -> Tending:
    return it.engine._tending  # pyright: ignore[reportPrivateUsage]


async def test_notes_exports_and_copies_go_when_their_time_is_over(tmp_path: Path) -> None:
    async with world(tmp_path, tombstones_s=90 * DAY, exports_s=7 * DAY, every_s=3600, artifacts_s=30 * DAY) as it:
        it.agent("helper", "You help.")
        session = await it.engine.create_session(agent="helper", idempotency_key="key")
        gone = await it.engine.create_session(model="scripted/m1")
        await it.engine.delete_session(gone.id)
        export = await it.engine.export_data()
        assert export is not None
        await tending(it).once()
        assert export.path.exists()
        assert (await it.store.retention.sizes())["rows"]["tombstones"] == 1
        it.clock.now += 91 * DAY
        await it.engine.keep_session(session.id, 0)
        await tending(it).once()
        rows = (await it.store.retention.sizes())["rows"]
        assert (rows["tombstones"], rows["idempotency_keys"], rows["sessions"]) == (0, 0, 1)
        assert not export.path.exists()
        assert len(list((it.paths.data / "agents").iterdir())) == 1


async def test_nothing_goes_while_the_clock_is_doubted(tmp_path: Path) -> None:
    async with world(tmp_path, exports_s=7 * DAY, every_s=3600) as it:
        export = await it.engine.export_data()
        assert export is not None
        it.clock.now += 91 * DAY
        core = it.engine._core  # pyright: ignore[reportPrivateUsage]
        machine = Machine()
        core.watch = machine.watch()
        machine.note = {"at": machine.now - DAY, "boot": "one", "up": machine.up}
        core.watch.look = _never(core.watch)  # type: ignore[method-assign]
        await tending(it).once()
        assert export.path.exists()
        core.watch.trusted = True
        await tending(it).once()
        assert not export.path.exists()


def _never(watch: ClockWatch) -> Any:
    async def look(store: object) -> bool:
        del store
        return watch.trusted

    return look
