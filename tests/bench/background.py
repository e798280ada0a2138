"""Background runs: what one costs above its model's time, a thousand in the line, a killed daemon, an idle one.

    python tests/bench/background.py [--only overhead rate line resume cancel idle] [--idle-s 60] [--json]

The floor of `overhead` and `rate` is bare asyncio with bare sqlite3 in WAL mode: a task for each run that inserts the
same rows in two transactions. Both are measured in turns within one run, so that a busy machine hurts both alike.
The rest is the real daemon in a home of its own, with a provider on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from chaos.runs.kit.world import World, alive, until
from engine.kit import Rig, ScriptedModel, rig
from interactd.ids import new_id
from support.hosts import Home
from support.provider import FakeProvider, Hang, Reply

Json = dict[str, Any]
BLOCK = 20


class Floor:
    """The same rows with nothing around them."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, status TEXT, note TEXT) STRICT")
        self._db.execute("CREATE TABLE steps (run TEXT, seq INTEGER, body TEXT, PRIMARY KEY (run, seq)) STRICT")

    async def run(self) -> None:
        await asyncio.create_task(self._run(new_id("interaction")))

    async def _run(self, id: str) -> None:
        with self._transaction():
            self._db.execute("INSERT INTO runs VALUES (?, 'in_progress', '{}')", (id,))
            self._db.execute("INSERT INTO steps VALUES (?, 0, ?)", (id, json.dumps({"content": "hello"})))
        await asyncio.sleep(0)
        with self._transaction():
            self._db.execute("INSERT INTO steps VALUES (?, 1, ?)", (id, json.dumps({"content": "ok"})))
            self._db.execute("UPDATE runs SET status = 'completed', note = NULL WHERE id = ?", (id,))

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._db.execute("BEGIN IMMEDIATE")
        yield
        self._db.execute("COMMIT")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def one(it: Rig, session: str) -> None:
    sent = await it.engine.send_turn(session, "hello", background=True)
    done = await it.engine.wait(sent.interaction.id, 60)
    assert done.interaction.status == "completed", done.interaction


async def overhead(folder: Path, rounds: int) -> Json:
    """Send to finished, one after the other, with a model that answers at once."""
    floor = Floor(folder / "floor.db")
    ours: list[float] = []
    bare: list[float] = []
    async with rig(folder / "db") as it:
        session = (await it.engine.create_session()).id
        await one(it, session)
        for _ in range(rounds // BLOCK):
            ours += [await timed(lambda: one(it, session)) for _ in range(BLOCK)]
            bare += [await timed(floor.run) for _ in range(BLOCK)]
    p50, least = statistics.median(ours), statistics.median(bare)
    return {"run_ms_p50": p50 * 1e3, "floor_ms_p50": least * 1e3, "ratio": p50 / least, "ms_above": (p50 - least) * 1e3}


async def rate(folder: Path, sessions: int, each: int) -> Json:
    """Runs a second, all sessions at once."""
    floor = Floor(folder / "floor.db")

    async def many(work: Callable[[], Awaitable[None]]) -> None:
        for _ in range(each):
            await work()

    async with rig(folder / "db") as it:
        ids = [(await it.engine.create_session()).id for _ in range(sessions)]

        async def ours() -> None:
            await asyncio.gather(*(many(lambda id=id: one(it, id)) for id in ids))

        async def bare() -> None:
            await asyncio.gather(*(many(floor.run) for _ in ids))

        took, least = await timed(ours), await timed(bare)
    count = sessions * each
    return {"runs_per_s": count / took, "floor_per_s": count / least, "ratio": took / least}


def rss_mb(pid: int | None = None) -> float:
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def line(folder: Path, count: int, sessions: int, at_once: int) -> Json:
    """A thousand runs wait: how fast they are taken, what they weigh, how fast and how fairly they are done."""
    model = ScriptedModel()
    model.gate = asyncio.Event()
    order: list[str] = []
    async with rig(folder / "db", model=model, max_running=at_once, max_queued=count) as it:
        ids = [(await it.engine.create_session()).id for _ in range(sessions)]
        before = rss_mb()
        began = time.perf_counter()
        sent: list[tuple[str, str]] = []
        for n in range(count):
            session = ids[n % sessions]
            run = await it.engine.send_turn(session, f"run {n}", background=True, if_busy="queue")
            sent.append((run.interaction.id, session))
        accepted = time.perf_counter() - began
        weight = rss_mb() - before

        async def finished(id: str, session: str) -> None:
            await it.engine.wait(id, 600)
            order.append(session)

        waiting = [asyncio.create_task(finished(*one)) for one in sent]
        await asyncio.sleep(0)
        began = time.perf_counter()
        model.gate.set()
        await asyncio.gather(*waiting)
        drained = time.perf_counter() - began
    half = Counter(order[: count // 2])
    shares = [half[id] for id in ids]
    jain = sum(shares) ** 2 / (sessions * sum(share * share for share in shares))
    return {
        "accepted_per_s": count / accepted,
        "drained_per_s": count / drained,
        "kb_per_waiting_run": weight * 1024 / count,
        "fairness_at_half (1 is even)": jain,
        "most_and_least_done_at_half": [max(shares), min(shares)],
    }


@asynccontextmanager
async def daemon(root: Path, provider: FakeProvider) -> AsyncGenerator[World]:
    """The product's own daemon; `start` is what a shim would do after a death."""
    home = Home(root)
    home.paths.make()
    home.paths.config_file.write_text(
        f'[defaults]\nmodel = "fake/fake-model-1"\n[providers.fake]\nkind = "openai-chat"\n'
        f'base_url = "{provider.base_url}"\nmodels = ["fake-model-1"]\nallow_http = true\n'
    )
    nobody: Any = None
    world = World(home, provider, nobody, nobody)
    try:
        await begin(world)
        yield world
    finally:
        await asyncio.to_thread(home.close)


async def begin(world: World) -> None:
    command = [sys.executable, "-P", "-m", "interactd", "daemon"]
    process = await asyncio.create_subprocess_exec(
        *command, env=world.home.env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await process.wait()
    world.seat.pid = (await world.call("status"))["pid"]


async def a_run(world: World) -> str:
    session = (await world.call("create_session"))["id"]
    return await world.send(session, "hello")


async def resume(folder: Path, rounds: int) -> Json:
    """kill -9 while the model is asked, and the next daemon at once: until it asks again, and until it is done."""
    asked: list[float] = []
    done: list[float] = []
    async with FakeProvider(default=Reply("ok")) as provider, daemon(folder / "home", provider) as world:
        for _ in range(rounds):
            provider.script([Hang()])
            before = len(provider.requests)
            id = await a_run(world)
            await provider.received(before + 1, 60)
            world.kill()
            began = time.perf_counter()
            starting = asyncio.create_task(begin(world))
            await provider.received(before + 2, 60)
            asked.append(time.perf_counter() - began)
            await starting
            await world.ended(id)
            done.append(time.perf_counter() - began)
    return {"to_the_model_s_p50": statistics.median(asked), "to_the_end_s_p50": statistics.median(done)}


async def cancel(folder: Path, rounds: int) -> Json:
    """A model call that hangs: from the call to the terminal status, and to the provider's connection being closed."""
    took: list[float] = []
    closed: list[float] = []
    async with FakeProvider(default=lambda _: Hang()) as provider, daemon(folder / "home", provider) as world:
        for n in range(rounds):
            id = await a_run(world)
            request = (await provider.received(n + 1, 60))[n]
            began = time.perf_counter()
            await world.call("cancel", interaction_id=id)
            took.append(time.perf_counter() - began)
            await request.disconnected.wait()
            closed.append(time.perf_counter() - began)
    return {"cancelled_ms_p50": statistics.median(took) * 1e3, "closed_ms_p50": statistics.median(closed) * 1e3}


def cpu_s(pid: int) -> float:
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


async def idle(folder: Path, seconds: float) -> Json:
    """CPU of a daemon that did some work and has nothing to do, and what it weighs."""
    async with FakeProvider(default=Reply("ok")) as provider, daemon(folder / "home", provider) as world:
        await world.ended(await a_run(world))
        await asyncio.sleep(5)
        before = cpu_s(world.pid)
        await asyncio.sleep(seconds)
        spent = cpu_s(world.pid) - before
        smaps = Path(f"/proc/{world.pid}/smaps_rollup").read_text()
        pss = int(next(line for line in smaps.splitlines() if line.startswith("Pss:")).split()[1]) / 1024
        weight = rss_mb(world.pid)
        world.kill(signal.SIGTERM)
        await until(lambda: not alive(world.pid))
    return {"cpu_percent_of_a_core": spent / seconds * 100, "target": 0.5, "rss_mb": weight, "pss_mb": pss}


async def measure(only: list[str], idle_s: float) -> Json:
    parts: dict[str, Callable[[Path], Awaitable[Json]]] = {
        "overhead": lambda folder: overhead(folder, 200),
        "rate": lambda folder: rate(folder, 16, 25),
        "line": lambda folder: line(folder, 1_000, 20, 8),
        "resume": lambda folder: resume(folder, 5),
        "cancel": lambda folder: cancel(folder, 7),
        "idle": lambda folder: idle(folder, idle_s),
    }
    found: Json = {}
    for name in only or parts:
        with tempfile.TemporaryDirectory(prefix="interactd-bench-") as folder:
            found[name] = await parts[name](Path(folder))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--idle-s", type=float, default=60)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = asyncio.run(measure(args.only, args.idle_s))
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, figures in found.items():
        print(name)
        for what, value in figures.items():
            print(f"  {what:32} {value if isinstance(value, list) else f'{value:,.3g}'}")


if __name__ == "__main__":
    main()
