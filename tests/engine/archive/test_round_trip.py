"""What goes out comes back byte for byte, and works as it did."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from engine.archive.kit import Clock, exported, fill, home, imported, lines, members
from interactd.errors import Conflict, Deleted, StorageError

pytestmark = pytest.mark.anyio


async def test_an_export_of_an_import_has_the_same_bytes(tmp_path: Path) -> None:
    clock = Clock()
    async with home(tmp_path / "a", clock=clock) as it:
        ids = await fill(it)
        first = await exported(it, tmp_path / "first.zip")
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert first.counts["sessions"] == 4
    async with home(tmp_path / "b", clock=clock) as it:
        done = await imported(it, first.path)
        assert done.sessions == sorted(ids.values())
        assert done.counts["interactions"] == first.counts["interactions"] == 6
        second = await exported(it, tmp_path / "second.zip")
    assert members(second.path) == members(first.path)
    clock.now += 60
    async with home(tmp_path / "b", clock=clock) as it:
        third = await exported(it, tmp_path / "third.zip")
    assert members(third.path) == members(first.path)


async def test_imported_sessions_are_found_read_gone_on_with_and_forked(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        before = await it.engine.transcript(ids["plain"])
        file = (await exported(it, tmp_path / "x.zip")).path
    async with home(tmp_path / "b") as it:
        await imported(it, file)
        after = await it.engine.transcript(ids["plain"])
        for turn in (*before[1], *after[1]):
            # Whose claim it was says nothing on another machine.
            turn.interaction.runner = None
        assert after == before
        assert [hit.session_id for hit in (await it.engine.search("gamma")).items] == [ids["plain"]]
        assert (await it.engine.search("alpha", session_id=ids["fork"])).items[0].session_id == ids["fork"]
        more = await it.turn(ids["fork"], "one more")
        assert more.interaction.status == "completed"
        shown = [step.text for step in it.model.requests[-1].steps if step.type == "user_input"]
        assert shown == ["alpha question", "beta question \u00e9\u4e2d\u6587", "delta question", "one more"]
        thought = next(step for step in it.model.requests[-1].steps if step.type == "thought")
        assert thought.state is not None
        assert thought.state["half"] == "\ud83d"
        waiting = (await it.engine.transcript(ids["waiting"]))[1][-1].interaction
        it.model.script("looked")
        await it.engine.respond(waiting.id, [{"call_id": "c1", "result": "all is well"}])
        assert (await it.ended(waiting.id)).interaction.status == "completed"
        again = await it.engine.fork_session(ids["plain"], at=before[1][0].interaction.id)
        assert (await it.turn(again.id, "from the beginning")).interaction.depth == 2


async def test_what_is_here_and_equal_is_skipped(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        file = (await exported(it, tmp_path / "x.zip")).path
        done = await imported(it, file)
        assert (done.sessions, done.skipped) == ([], 4)
        await it.engine.delete_session(ids["empty"])
        with pytest.raises(Conflict, match=ids["empty"]):
            await imported(it, file)
        done = await imported(it, file, restore=True)
        assert done.sessions == [ids["empty"]]
        assert (await it.engine.get_session(ids["empty"])).title == "Empty"


async def test_what_is_here_and_differs_is_refused_by_name_or_comes_in_beside_it(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        file = (await exported(it, tmp_path / "x.zip")).path
        await it.turn(ids["plain"], "a turn that the archive does not know")
        with pytest.raises(Conflict, match=ids["plain"]) as caught:
            await imported(it, file)
        assert "as_new" in str(caught.value.repair)
        before = (await it.store.stats())["sessions"]
        done = await imported(it, file, as_new=True)
        assert sorted(done.mapping) == sorted(ids.values())
        assert (await it.store.stats())["sessions"] == before + 4
        copy = done.mapping[ids["plain"]]
        old, new = await it.engine.transcript(ids["plain"]), await it.engine.transcript(copy)
        assert copy != ids["plain"]
        assert new[0].title == old[0].title
        fork = await it.engine.get_session(done.mapping[ids["fork"]])
        assert fork.forked_from == copy
        assert (await it.engine.transcript(fork.id))[1][0].steps[0].text == "alpha question"
        assert (await it.turn(copy, "go on")).interaction.status == "completed"


async def test_a_fork_alone_takes_the_turns_that_it_shares_along(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        everything = (await exported(it, tmp_path / "all.zip")).path
        alone = (await exported(it, tmp_path / "fork.zip", [ids["fork"]])).path
    assert [one["session_id"] for one in lines(alone, "interactions.jsonl")] == [ids["fork"]] * 3
    async with home(tmp_path / "b") as it:
        await imported(it, alone)
        texts = [turn.steps[0].text for turn in (await it.engine.transcript(ids["fork"]))[1]]
        assert texts == ["alpha question", "beta question \u00e9\u4e2d\u6587", "delta question"]
        assert members((await exported(it, tmp_path / "again.zip")).path) == members(alone)
        # The session that it came from follows: its turns are its own again, and nothing is there twice.
        done = await imported(it, everything)
        assert done.skipped == 1
        assert members((await exported(it, tmp_path / "both.zip")).path) == members(everything)
        first = (await it.engine.transcript(ids["plain"]))[1][0].interaction
        again = await it.turn(ids["plain"], "branch", previous_interaction_id=first.id)
        assert again.interaction.depth == 2
        await it.engine.delete_session(ids["plain"])
        assert len((await it.engine.transcript(ids["fork"]))[1]) == 3
        await it.engine.delete_session(ids["fork"])
        assert (await it.store.stats())["interactions"] == 1


async def test_open_turns_come_in_as_cancelled_with_what_they_had(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        session = await it.engine.create_session()
        it.model.gate = asyncio.Event()
        running = await it.engine.send_turn(session.id, "first")
        queued = await it.engine.send_turn(session.id, "second", if_busy="queue")
        await it.model.asked(1)
        done = await exported(it, tmp_path / "x.zip")
        assert "2 turns were not done" in done.notes[0]
        assert {one["status"] for one in lines(done.path, "interactions.jsonl")} == {"in_progress", "queued"}
        it.model.gate.set()
        await it.ended(queued.interaction.id)
    async with home(tmp_path / "b") as it:
        await imported(it, done.path)
        for one in (running, queued):
            found = (await it.engine.get_interaction(one.interaction.id)).interaction
            assert found.status == "cancelled"
            assert found.error is not None
            assert found.error["code"] == "exported_while_open"
        assert (await it.turn(session.id, "third")).interaction.status == "completed"
        assert not await it.store.unfinished()
        assert (await imported(it, done.path, dry_run=True, as_new=True)).counts["sessions"] == 1


async def test_a_session_whose_time_is_over_gets_it_anew(tmp_path: Path) -> None:
    clock = Clock()
    async with home(tmp_path / "a", clock=clock) as it:
        short = await it.engine.create_session(ttl_s=60)
        await it.turn(short.id, "hello")
        file = (await exported(it, tmp_path / "x.zip")).path
    clock.now += 1000
    async with home(tmp_path / "b", clock=clock) as it:
        await imported(it, file)
        session = await it.engine.get_session(short.id)
        assert session.expires_at == pytest.approx(clock.now + 60)  # pyright: ignore[reportUnknownMemberType]
        # The same archive once more is what is here, whatever has become of the time.
        assert (await imported(it, file)).skipped == 1


async def test_a_dry_run_keeps_nothing(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        await fill(it)
        file = (await exported(it, tmp_path / "x.zip")).path
    async with home(tmp_path / "b") as it:
        done = await imported(it, file, dry_run=True)
        assert done.counts["sessions"] == 4
        assert (await it.store.stats())["sessions"] == (await it.store.stats())["steps"] == 0
        assert list((tmp_path / "b" / "imports").iterdir()) == []


async def test_an_export_that_is_stopped_or_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    async with home(tmp_path / "a") as it:
        ids = await fill(it)
        out = tmp_path / "out"
        out.mkdir()
        work = asyncio.create_task(exported(it, out / "x.zip"))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert list(out.iterdir()) == []
        with pytest.raises(StorageError):
            await exported(it, tmp_path / "not" / "there.zip")
        file = (await exported(it, out)).path
        assert file.parent == out
        with pytest.raises(Conflict, match="already"):
            await exported(it, file)
        assert (await exported(it, file, replace=True)).path == file
        assert [path.name for path in out.iterdir()] == [file.name]
        await it.engine.delete_session(ids["empty"])
        with pytest.raises(Deleted):
            await exported(it, out / "gone.zip", [ids["empty"]])


async def test_no_secret_value_is_in_an_export(tmp_path: Path) -> None:
    body = {
        "env": {"TOKEN": "marker-plain-value", "KEY": {"credential": "example"}},
        "network": {"allowlist": [{"domain": "a.example", "transform": {"headers": {"x-key": "marker-header"}}}]},
    }
    async with home(tmp_path / "a") as it:
        session = await it.engine.create_session()
        await it.store.put_environment(
            {
                "id": "env_" + "0" * 26,
                "owner": "local",
                "status": "active",
                "created_at": 1.0,
                "last_used_at": 1.0,
                "expires_at": 1e10,
                "forked_from": None,
                "size_bytes": None,
                "file_count": None,
                "body": {**body, "mounts": [{"source": "/srv/marker-mount"}]},
            }
        )
        kept = await it.store.get_session(session.id)
        kept.id, kept.environment = "ses_" + "1" * 26, body
        await it.store.create_session(kept)
        done = await exported(it, tmp_path / "x.zip")
    whole = b"".join(members(done.path).values())
    assert b"marker" not in whole
    assert b'"credential":"example"' in whole
    assert any("TOKEN" in note and "headers for a.example" in note for note in done.notes)
    assert json.loads(members(done.path)["environments.jsonl"])["body"]["withheld"]["env"] == ["TOKEN"]


async def test_the_memory_that_it_takes_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    import resource

    async with home(tmp_path / "a") as it:
        session = await it.engine.create_session()
        it.model.default = "word " * 100_000
        for _ in range(60):
            await it.turn(session.id, "tell me")
        size = (await it.store.stats())["bytes"]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = await exported(it, tmp_path / "x.zip")
        async with home(tmp_path / "b") as other:
            await imported(other, done.path)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert size > 25_000_000
    assert grown < 100_000_000
