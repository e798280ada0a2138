from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interactd.errors import Conflict, Overloaded, StorageError, StorageFull
from interactd.nouns import user_input
from interactd.store.sqlite import SqliteStore, connect
from interactd.store.sqlite import writer as writer_module
from interactd.store.sqlite.writer import Writer
from store.kit import an_interaction, create, said, start

pytestmark = pytest.mark.anyio


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    file = tmp_path / "w.db"
    connect.make_file(file)
    connection = connect.connect(file, busy_s=0.1)
    connect.use_wal(connection, file)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    writer = Writer(file, connection, [], lambda: None)
    writer.start()
    yield writer
    await writer.aclose()


def held(gate: threading.Event) -> writer_module.Work[None]:
    def hold(_: sqlite3.Connection) -> None:
        assert gate.wait(30)

    return hold


def insert(n: int) -> writer_module.Work[int]:
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (n,)).lastrowid or 0


def count(writer: Writer) -> int:
    db = sqlite3.connect(writer.path)
    try:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]
    finally:
        db.close()


async def test_what_waits_is_committed_together(writer: Writer) -> None:
    gate = threading.Event()
    statements: list[str] = []
    first = asyncio.create_task(writer.submit(held(gate)))
    await asyncio.sleep(0)
    rest = [asyncio.create_task(writer.submit(insert(n))) for n in range(20)]
    trace = asyncio.create_task(writer.submit(lambda db: db.set_trace_callback(statements.append)))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, trace, *rest)
    more = [asyncio.create_task(writer.submit(insert(n))) for n in range(100, 120)]
    await asyncio.gather(*more)
    assert count(writer) == 40
    assert statements.count("COMMIT") < 20


async def test_one_jobs_failure_undoes_that_job_alone(writer: Writer) -> None:
    gate = threading.Event()

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (50)")
        raise Conflict("no")

    def twice(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (51)")
        db.execute("INSERT INTO t VALUES (1)")

    hold = asyncio.create_task(writer.submit(held(gate)))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(writer.submit(work)) for work in (insert(1), half, insert(2), twice, insert(3))]
    await asyncio.sleep(0)
    gate.set()
    results: list[object] = [*(await asyncio.gather(hold, *tasks, return_exceptions=True))]
    assert [type(result) for result in results] == [type(None), int, Conflict, int, StorageError, int]
    assert count(writer) == 3


async def test_a_lost_transaction_is_tried_again_job_by_job(writer: Writer) -> None:
    gate = threading.Event()

    def lose(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("the transaction is gone")

    hold = asyncio.create_task(writer.submit(held(gate)))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(writer.submit(work)) for work in (insert(1), lose, insert(2))]
    await asyncio.sleep(0)
    gate.set()
    results: list[object] = [*(await asyncio.gather(hold, *tasks, return_exceptions=True))]
    assert [type(result) for result in results] == [type(None), int, StorageError, int]
    assert count(writer) == 2
    assert await writer.submit(insert(9)) == 9


async def test_too_much_waiting_work_is_refused_and_nothing_else(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WAITING_JOBS", 10)
    gate = threading.Event()
    hold = asyncio.create_task(writer.submit(held(gate)))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(writer.submit(insert(n), intake=True)) for n in range(1, 30)]
    # What ends a turn that was accepted has more room than what begins one.
    ending = asyncio.create_task(writer.submit(insert(99)))
    await asyncio.sleep(0)
    gate.set()
    results: list[object] = [*(await asyncio.gather(*tasks, return_exceptions=True))]
    await asyncio.gather(hold, ending)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) == 20
    assert count(writer) == 10


async def test_the_bytes_that_wait_are_bounded_too(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "WAITING_BYTES", 1000)
    gate = threading.Event()
    hold = asyncio.create_task(writer.submit(held(gate)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await writer.submit(insert(1), size=2000, intake=True)
    gate.set()
    await hold
    assert await writer.submit(insert(1), size=2000, intake=True) == 1


async def test_closing_carries_out_what_was_submitted(writer: Writer) -> None:
    tasks = [asyncio.create_task(writer.submit(insert(n))) for n in range(1, 200)]
    await asyncio.sleep(0)
    await writer.aclose()
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 200))
    with pytest.raises(StorageError):
        await writer.submit(insert(1000))


async def test_ten_thousand_turns_at_once_all_get_an_answer(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    session = await create(store)
    results = await asyncio.gather(
        *(start(store, session.id, status="queued", epoch=0) for _ in range(10_000)), return_exceptions=True
    )
    done = [result for result in results if isinstance(result, str)]
    assert all(isinstance(result, (str, Overloaded)) for result in results)
    assert (await store.stats())["steps"] == len(done) > 1000
    reads = await asyncio.gather(*(store.get_interaction(id) for id in done[:10_000]))
    assert len(reads) == len(done)
    await store.aclose()


LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE"); db.execute("UPDATE sessions SET title = title")
print("locked", flush=True); sys.stdin.readline(); db.execute("COMMIT")
"""


async def test_another_programs_lock_delays_a_write_and_never_fails_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    session = await create(store)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCKER, str(store.file), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), 30) == b"locked\n"
    write = asyncio.create_task(start(store, session.id))
    # Longer than one wait for the lock (1 s), so that the second is seen to follow.
    done, _ = await asyncio.wait({write}, timeout=1.5)
    assert not done
    assert (await store.get_session(session.id)).head is None
    await asyncio.wait_for(child.communicate(b"\n"), 30)
    id = await asyncio.wait_for(write, 30)
    assert (await store.get_session(session.id)).head == id
    await store.aclose()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs root on Linux")
async def test_a_full_disk_refuses_work_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs: {mounted.stderr.decode(errors='replace').strip()}")
    store = SqliteStore(folder / "interactd.db")
    try:
        await store.open()
        session = await create(store)
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * (1 << 20))
        kept: list[str] = []
        refused = 0
        for _ in range(100):
            one = an_interaction(session.id, kept[-1] if kept else None)
            try:
                await store.accept(one, [user_input("word " * 10_000)], expires_at=None)
                kept.append(one.id)
                await store.settle(one.id, 1, "completed", steps=[said("small")], now=time.time())
            except StorageFull:
                refused += 1
                if refused == 3:
                    break
        assert refused == 3
        with pytest.raises(StorageFull):
            await store.check()
        for id in kept:
            assert (await store.get_interaction(id)).id == id
            assert len(await store.get_steps(id)) >= 1
        ballast.unlink()
        await store.check()
        for id in [one.id for one in await store.unfinished()]:
            await store.settle(id, 1, "failed", now=1.0)
        again = await start(store, session.id, "back again", previous=kept[-1])
        assert len(await store.get_steps(again)) == 1
    finally:
        await store.aclose()
        await asyncio.to_thread(subprocess.run, ["umount", folder], check=True)
