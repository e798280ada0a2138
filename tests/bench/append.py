"""Append of a turn at 10, 1,000 and 100,000 turns of history: this store beside bare sqlite3 and other people's.

    python tests/bench/append.py [--turns 300] [--histories 10 1000 100000] [--peer-histories 10 1000]

A turn is four steps, about 3.5 kB, in two transactions (accepted, settled). Bare sqlite3 does the same inserts and
updates on the same tables, in the calling thread, with the same durability; both are measured in turns of 25 within
one run, so that a busy machine hurts both alike. Peers are measured when they can be imported.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import append_peers

from interactd.ids import new_id
from interactd.nouns import Interaction, Session, Step, Usage, text_content, user_input
from interactd.store.sqlite import SqliteStore
from interactd.store.sqlite.connect import connect
from interactd.store.sqlite.queries import rows, sessions, turns

TARGET_RATIO = 3.0
BLOCK = 25
QUESTION = "What did the gauge at the old lock read before the rain came, and who wrote it down? " * 9
THOUGHT = "The journal is in the second folder; look for the week of the flood first. " * 11
ANSWER = "It read two metres and forty; the keeper's daughter wrote it down on the Tuesday. " * 11


def steps_of_a_turn() -> tuple[Step, list[Step]]:
    call = {"id": "call_1", "name": "read_journal", "arguments": {"volume": 2, "page": "412", "note": "x" * 500}}
    return user_input(QUESTION), [
        Step("thought", {"summary": [text_content(THOUGHT)]}),
        Step("function_call", call),
        Step("model_output", {"content": [text_content(ANSWER)]}),
    ]


def interaction(session_id: str, previous: str | None) -> Interaction:
    return Interaction(
        new_id("interaction"),
        session_id,
        "in_progress",
        time.time(),
        previous_interaction_id=previous,
        model="embedded/small",
        epoch=1,
        attempt=1,
    )


def fill(file: Path, history: int) -> tuple[str, str | None]:
    """Write a session of that many turns straight into the tables; returns its id and head."""
    connection = connect(file, busy_s=10)
    now = time.time()
    session = Session(new_id("session"), now, now, title="bench", ttl_s=86_400.0, expires_at=now + 86_400)
    first, rest = steps_of_a_turn()
    first_values, rest_values = rows.step_values([first], now)[0], rows.step_values(rest, now)[0]
    connection.execute("BEGIN")
    sessions.insert(connection, "create_session", rows.session_values(session), None)
    head: str | None = None
    for _ in range(history):
        one = interaction(session.id, head)
        turns.accept(connection, one, turns.tail_values(one, None), first_values, now + 86_400, None)
        turns.settle(connection, one.id, 1, "completed", rest_values, Usage(900, 300), (None, "stop", None), now)
        head = one.id
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM steps").fetchone()[0]
    connection.execute(
        "INSERT OR REPLACE INTO settings (name, value) VALUES ('store.indexed_steps', ?)", (str(newest),)
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return session.id, head


class Ours:
    """The store, through its public methods."""

    def __init__(self, store: SqliteStore, session_id: str, head: str | None) -> None:
        self.store, self.session_id, self.head = store, session_id, head

    async def turn(self) -> None:
        first, rest = steps_of_a_turn()
        one = interaction(self.session_id, self.head)
        await self.store.accept(one, [first], expires_at=one.created_at + 86_400)
        await self.store.settle(
            one.id, 1, "completed", steps=rest, usage=Usage(900, 300), finish_reason="stop", now=time.time()
        )
        self.head = one.id


class Bare:
    """The same inserts by hand: two transactions on the same tables, no checks, no thread."""

    def __init__(self, file: Path, session_id: str, head: str | None, history: int) -> None:
        self.db = sqlite3.connect(file, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.session_id, self.head, self.depth = session_id, head, history

    def turn(self) -> None:
        execute = self.db.execute
        first, rest = steps_of_a_turn()
        one = interaction(self.session_id, self.head)
        self.depth += 1
        execute("BEGIN IMMEDIATE")
        execute(
            "INSERT INTO interactions (id, session_id, previous_interaction_id, crosses, status, created_at,"
            " background, depth, skip_id, skip_depth, epoch, attempt, steps, model)"
            " VALUES (?, ?, ?, 0, ?, ?, 0, ?, ?, 1, 1, 1, 1, ?)",
            (one.id, one.session_id, self.head, "in_progress", one.created_at, self.depth, one.id, one.model),
        )
        self._steps(one.id, 0, [first])
        execute(
            "UPDATE sessions SET head = ?, turns = ?, updated_at = ?, expires_at = ? WHERE id = ?",
            (one.id, self.depth, one.created_at, one.created_at + 86_400, self.session_id),
        )
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        execute(
            "UPDATE interactions SET status = 'completed', usage = ?, finish_reason = 'stop', finished_at = ?,"
            " steps = 4 WHERE id = ?",
            (json.dumps(Usage(900, 300).as_dict()), time.time(), one.id),
        )
        self._steps(one.id, 1, rest)
        execute("COMMIT")
        self.head = one.id

    def _steps(self, id: str, first: int, steps: list[Step]) -> None:
        self.db.executemany(
            "INSERT INTO steps (interaction_id, seq, type, created_at, body) VALUES (?, ?, ?, ?, ?)",
            [(id, first + n, step.type, time.time(), json.dumps(step.body)) for n, step in enumerate(steps)],
        )


async def measure(folder: Path, history: int, count: int) -> tuple[list[float], list[float]]:
    """Return the microseconds of each turn, ours and bare."""
    ours_file, bare_file = folder / f"ours-{history}.db", folder / f"bare-{history}.db"
    for file in (ours_file, bare_file):
        store = SqliteStore(file)
        await store.open()
        await store.aclose()
    ours_ids, bare_ids = fill(ours_file, history), fill(bare_file, history)
    store = SqliteStore(ours_file)
    await store.open()
    ours, bare = Ours(store, *ours_ids), Bare(bare_file, *bare_ids, history)
    times: tuple[list[float], list[float]] = ([], [])
    for block in range(-1, count // BLOCK):
        for _ in range(BLOCK):
            began = time.perf_counter()
            await ours.turn()
            if block >= 0:
                times[0].append((time.perf_counter() - began) * 1e6)
        # Let the store's threads finish, so that its checkpoint is not measured as the other's time.
        await asyncio.sleep(0.05)
        for _ in range(BLOCK):
            began = time.perf_counter()
            bare.turn()
            if block >= 0:
                times[1].append((time.perf_counter() - began) * 1e6)
    await store.aclose()
    bare.db.close()
    for file in (ours_file, bare_file):
        file.unlink()
    return times


def line(name: str, history: int, times: list[float], base: float | None = None) -> float:
    middle = statistics.median(times)
    tail = sorted(times)[len(times) * 95 // 100]
    ratio = "" if base is None else f"{middle / base:8.2f}x"
    print(f"{name:34} {history:>9,} turns   p50 {middle:9.0f} us   p95 {tail:9.0f} us {ratio}", flush=True)
    return middle


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=300, help="turns measured at each length (default 300)")
    parser.add_argument("--histories", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--peer-histories", type=int, nargs="*", default=[10, 1_000])
    return parser.parse_args()


async def compare(folder: Path, options: argparse.Namespace) -> None:
    middles: dict[int, float] = {}
    worst = 0.0
    for history in options.histories:
        ours, bare = await measure(folder, history, options.turns)
        base = line("sqlite3, bare", history, bare)
        middles[history] = line("interactd", history, ours, base)
        worst = max(worst, middles[history] / base)
    print(f"worst ratio to bare sqlite3: {worst:.2f}x (target <= {TARGET_RATIO:.0f}x)")
    if len(middles) > 1:
        print(f"longest against shortest history: {middles[max(middles)] / middles[min(middles)]:.2f}x (flat is 1)")
    texts = [QUESTION, THOUGHT, "x" * 560, ANSWER]
    for name, (_, packages, _) in append_peers.PEERS.items():
        for history in options.peer_histories:
            times = await append_peers.measure(name, folder, history, 20, texts)
            if times is None:
                print(f"{name}: not installed (pip install {packages})")
                break
            line(name, history, times, middles.get(history))
    print("a peer's ratio is to interactd at the same length")


def main() -> None:
    options = parse()
    loops: Callable[[], asyncio.AbstractEventLoop] | None = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        loops = uvloop.new_event_loop
    print(
        f"SQLite {sqlite3.sqlite_version}, {'uvloop' if loops else 'asyncio'};"
        " two commits a turn, WAL, synchronous=NORMAL"
    )
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="interactd-bench-") as folder, asyncio.Runner(loop_factory=loops) as runner:
        runner.run(compare(Path(folder), options))


if __name__ == "__main__":
    main()
