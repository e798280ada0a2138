"""What lies beside the turns comes along: what they cost, what they asked of the network, and triggers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable.kit import rig as with_schedules
from engine.archive.kit import MANIFEST, exported, fill, home, imported, lines, members, rewritten
from engine.archive.test_hostile import OTHER, edit, put
from engine.kit import Clock, Rig
from interactd.errors import InvalidArgument, NotFound, StorageError
from interactd.nouns import Json
from interactd.store.archive_port import FIRST_KINDS
from interactd.store.sqlite.queries import arrival

pytestmark = pytest.mark.anyio

ASKED: list[Json] = [
    {"at": 1.5, "method": "GET", "host": "example.org", "port": 443, "verdict": "allowed", "reason": "", "bytes": 12}
    | {"bytes_up": 2, "bytes_down": 10, "ms": 3.5, "status": 200},
    {"at": 2.5, "method": "CONNECT", "host": "other.org", "port": 443, "verdict": "denied", "reason": "no", "ms": None},
]


async def spending(it: Rig, *sessions: str) -> Json:
    """Everything that somebody can learn of what was spent."""
    reports = {by: (await it.engine.usage(by=by))["lines"] for by in ("day", "model", "session")}
    return {**reports, "costs": await it.engine.costs(session_ids=sessions)}


async def test_what_turns_cost_and_asked_for_comes_back_byte_for_byte(tmp_path: Path) -> None:
    clock = Clock()
    async with home(tmp_path / "a", clock=clock) as it:
        ids = await fill(it)
        await it.engine.set_budget(ids["plain"], {"tokens": 1_000_000})
        turn = (await it.engine.transcript(ids["plain"]))[1][0].interaction.id
        for entries in (ASKED[:1], ASKED[1:]):
            await it.store.add_requests(turn, entries)
        before = await spending(it, *ids.values())
        first = await exported(it, tmp_path / "first.zip")
    assert first.counts["requests"] == 2
    assert first.counts["ledger"] >= 2 * 6, "a call and an attempt for each turn"
    async with home(tmp_path / "b", clock=clock) as it:
        await imported(it, first.path)
        assert await it.engine.requests(turn) == ASKED
        assert await spending(it, *ids.values()) == before
        assert members((await exported(it, tmp_path / "second.zip")).path) == members(first.path)
        spent = (await it.engine.costs(session_ids=[ids["plain"]]))[ids["plain"]]["tokens"]
        it.model.script("more")
        await it.turn(ids["plain"], "go on")
        assert (await it.engine.costs(session_ids=[ids["plain"]]))[ids["plain"]]["tokens"] > spent > 0


async def test_what_is_restored_is_not_counted_twice(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        before = await spending(it)
        file = (await exported(it, tmp_path / "x.zip")).path
        await it.engine.delete_session(ids["waiting"])
        assert (await spending(it))["day"] == before["day"], "what it cost stays counted"
        await imported(it, file, restore=True)
        assert await spending(it) == before


async def test_copies_under_new_ids_cost_nothing(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        turn = (await it.engine.transcript(ids["plain"]))[1][0].interaction.id
        await it.store.add_requests(turn, ASKED)
        before = await spending(it)
        done = await imported(it, (await exported(it, tmp_path / "x.zip")).path, as_new=True)
        assert await spending(it) == before
        copy = (await it.engine.transcript(done.mapping[ids["plain"]]))[1][0].interaction.id
        assert await it.engine.requests(copy) == ASKED


async def rows_of(it: Rig, table: str) -> int:
    def count(db: sqlite3.Connection) -> int:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return await it.store._read(count)  # pyright: ignore[reportPrivateUsage]


async def test_an_import_that_fails_at_its_end_leaves_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        turn = (await it.engine.transcript(ids["plain"]))[1][0].interaction.id
        await it.store.add_requests(turn, ASKED)
        file = (await exported(it, tmp_path / "x.zip")).path

    def breaks(*_: object) -> None:
        raise StorageError("the disk went away")

    async with home(tmp_path / "b") as it:
        with monkeypatch.context() as broken:
            broken.setattr(arrival, "finish", breaks)
            with pytest.raises(StorageError):
                await imported(it, file)
        for table in ("ledger", "spent", "requests", "interactions"):
            assert await rows_of(it, table) == 0, table
        assert (await imported(it, file)).counts["sessions"] == 4


async def test_an_archive_of_version_1_still_comes_in(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        file = (await exported(it, tmp_path / "x.zip")).path

    def older(found: dict[str, bytes]) -> None:
        for name in [
            name for name in found if name.removesuffix(".jsonl") in ("requests", "ledger", "spent", "triggers")
        ]:
            del found[name]
        manifest = json.loads(found[MANIFEST])
        manifest["version"] = 1
        manifest["counts"] = {name: manifest["counts"][name] for name in FIRST_KINDS}
        found[MANIFEST] = json.dumps(manifest).encode()

    async with home(tmp_path / "b") as it:
        assert (await imported(it, rewritten(file, older))).sessions == sorted(ids.values())
        it.model.script("more")
        assert (await it.turn(ids["plain"], "go on")).interaction.status == "completed"


async def test_what_was_set_aside_for_a_turn_under_way_counts_as_spent(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        session = await it.engine.create_session(budget={"tokens": 1_000_000})
        it.model.gate = asyncio.Event()
        sent = await it.engine.send_turn(session.id, "go", background=True)
        await it.model.asked(1)
        file = (await exported(it, tmp_path / "x.zip")).path
        it.model.gate.set()
        await it.ended(sent.interaction.id)
    held = lines(file, "spent.jsonl")[0]["held_tokens"]
    assert held > 0
    async with home(tmp_path / "b") as it:
        await imported(it, file)
        assert (await it.engine.costs(session_ids=[session.id]))[session.id]["tokens"] == held
        assert {one["state"] for one in lines((await exported(it, tmp_path / "y.zip")).path, "ledger.jsonl")} == {
            "settled",
            "unknown",
        }


async def test_triggers_come_along_with_everything_and_arrive_paused(tmp_path: Path) -> None:
    async with with_schedules(tmp_path / "a") as r:
        session = await r.engine.create_session(model="m1")
        active = await r.trigger("0 9 * * *", display_name="Morning", work={"session": session.id})
        paused = await r.trigger("every 2h", paused=True)
        await r.schedules.create_webhook(uri="https://example.org/hook?token=hush", name="Told")
        everything = await r.engine.export_data(path=str(tmp_path / "all.zip"))
        some = await r.engine.export_data([session.id], path=str(tmp_path / "some.zip"))
    assert everything is not None
    assert some is not None
    assert (everything.counts["triggers"], some.counts["triggers"]) == (2, 0)
    manifest = json.loads(members(everything.path)[MANIFEST])
    assert [(one["kind"], one["name"]) for one in manifest["left_out"]["webhooks"]] == [("http", "Told")]
    assert "left_out" not in json.loads(members(some.path)[MANIFEST])
    assert any("1 webhooks are not in it" in note for note in everything.notes)
    assert not any(word in data for data in members(everything.path).values() for word in (b"hush", b"whsec_"))
    async with with_schedules(tmp_path / "b") as r:
        done = await r.engine.import_data(str(everything.path))
        assert done is not None
        assert done.counts["triggers"] == 2
        assert any("come in paused" in note for note in done.notes)
        found = {one.id: one for one in (await r.schedules.list_triggers()).items}
        assert {one.status for one in found.values()} == {"paused"}
        assert found[active.id].next_run_at is None
        assert (found[active.id].work, found[active.id].display_name) == (active.work, "Morning")
        await r.schedules.update_trigger(active.id, {"status": "active"})
        again = await r.engine.import_data(str(everything.path))
        assert again is not None
        assert again.counts["triggers"] == 0, "those that are here stay as they are"
        assert (await r.schedules.get_trigger(active.id)).status == "active"
        await r.schedules.run_trigger(active.id)
        (ran,) = await r.ran(active.id, 1)
        assert (ran.status, ran.session_id) == ("completed", session.id)
        copies = await r.engine.import_data(str(everything.path), as_new=True)
        assert copies is not None
        new = {one.id: one for one in (await r.schedules.list_triggers()).items if one.id not in found}
        assert {one.work["session"] for one in new.values()} == {"new", copies.mapping[session.id]}
        await r.schedules.delete_trigger(paused.id)
        with pytest.raises(NotFound):
            await r.schedules.get_trigger(paused.id)


async def test_values_in_the_environment_of_a_trigger_stay_here(tmp_path: Path) -> None:
    async with with_schedules(tmp_path / "a") as r:
        made = await r.trigger()
        made.work["environment"] = {"env": {"TOKEN": "hush-hush"}}
        assert await r.store.schedules.put_trigger(made, made.revision)
        done = await r.engine.export_data(path=str(tmp_path / "all.zip"))
    assert done is not None
    assert lines(done.path, "triggers.jsonl")[0]["work"]["environment"] == {"env": {}, "withheld": {"env": ["TOKEN"]}}
    assert any("TOKEN" in note for note in done.notes)
    async with with_schedules(tmp_path / "b") as r:
        there = await r.engine.import_data(str(done.path), dry_run=True)
        assert there is not None
        assert any("TOKEN" in note for note in there.notes)


def work(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["work"].update(fields)


HOSTILE: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a total of something else": ("spent.jsonl", put(scope="day", key="2026-12-01"), "scope: expected interaction or"),
    "a total of a turn that is not there": (
        "spent.jsonl",
        put(scope="interaction", key=OTHER),
        "is not in the archive",
    ),
    "a total below nothing": ("spent.jsonl", put(tokens=-1), "tokens: -1 is out of range"),
    "a total beyond all": ("spent.jsonl", put(nano=1 << 61), "is out of range"),
    "a line of no turn": ("ledger.jsonl", put(interaction_id=OTHER), "is not in the archive"),
    "a line of another session": ("ledger.jsonl", put(session_id="ses_" + "0" * 26), "its turn is one of session"),
    "a line in a state": ("ledger.jsonl", put(state="paid"), "state: expected reserved or"),
    "a line of no day": ("ledger.jsonl", put(day="today"), "expected an id, and a day"),
    "usage that is text": ("ledger.jsonl", put(usage={"total_input_tokens": "9"}), "usage: total_input_tokens"),
    "a request of no turn": ("requests.jsonl", put(interaction_id=OTHER), "is not in the archive"),
    "a request that is text": ("requests.jsonl", put(entries=["GET"]), "entries: expected objects, got text"),
    "a request with more": ("requests.jsonl", put(entries=[{"secret": 1}]), "unknown field 'secret'"),
    "a request with text for bytes": ("requests.jsonl", put(entries=[{"bytes": "9"}]), "entries: bytes: got text"),
    "a trigger with an id of another": ("triggers.jsonl", put(id=OTHER), "id: expected an id"),
    "a trigger in a state": ("triggers.jsonl", put(status="running"), "status: expected active or"),
    "a trigger that asks for nothing": ("triggers.jsonl", work(input="x"), "work.input: expected a list of objects"),
    "a trigger without a session": ("triggers.jsonl", work(session=None), "work.session: expected text, got null"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_record_that_would_lie_is_refused_with_its_place(tmp_path: Path, what: str) -> None:
    name, change, says = HOSTILE[what]
    async with with_schedules(tmp_path / "a") as r:
        turn = await r.turn()
        await r.store.add_requests(turn, ASKED)
        await r.trigger()
        done = await r.engine.export_data(path=str(tmp_path / "x.zip"))
        assert done is not None
    bad = rewritten(done.path, edit(name, 1, change))
    async with with_schedules(tmp_path / "b") as r:
        with pytest.raises(InvalidArgument) as caught:
            await r.engine.import_data(str(bad))
        assert says in caught.value.message
        assert name in caught.value.message
        assert (await r.schedules.list_triggers()).items == []
