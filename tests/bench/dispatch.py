"""Dispatch: this one beside DBOS Transact, and what a background run costs above its model's time.

    python tests/bench/dispatch.py [--runs 500] [--idle 8] [--polls 0.5 0.2] [--engines local dbos run]

Each engine is measured in a process of its own, one after the other: milliseconds from submit to the start of an
attempt that does nothing, such attempts a second when many are submitted at once, CPU while nothing happens, and
memory. DBOS gets what suits it best here: a SQLite engine in WAL mode with NORMAL, a fixed executor, a pinned version,
no cap below the number of runs. It is left out where it cannot be imported (`pip install dbos`). `run` is the whole
engine on a real store with a model that answers at once: background turns one by one, many sessions at once, a
thousand queued.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SEQUENTIAL = 60
Figures = dict[str, float]


def rss_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)


async def idle_cpu(seconds: float) -> float:
    """Percent of a core that this process uses while it does nothing."""
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - used) / (time.monotonic() - began)


class Watch:
    """What the attempts do: say that they were begun."""

    def __init__(self) -> None:
        self.begun: dict[str, asyncio.Future[float]] = {}

    def expect(self, id: str) -> asyncio.Future[float]:
        self.begun[id] = asyncio.get_running_loop().create_future()
        return self.begun[id]

    def begin(self, id: str) -> None:
        if not self.begun[id].done():
            self.begun[id].set_result(time.perf_counter())


async def measure(submit: Callable[[str], Awaitable[None]], watch: Watch, runs: int, idle_s: float) -> Figures:
    waited: list[float] = []
    for n in range(SEQUENTIAL):
        begun = watch.expect(f"one{n}")
        since = time.perf_counter()
        await submit(f"one{n}")
        waited.append((await begun - since) * 1000)
    all_begun = [watch.expect(f"many{n}") for n in range(runs)]
    since = time.perf_counter()
    for n in range(runs):
        await submit(f"many{n}")
    await asyncio.gather(*all_begun)
    took = time.perf_counter() - since
    await asyncio.sleep(1.0)
    return {
        "submit_to_start_ms_p50": statistics.median(waited),
        "submit_to_start_ms_max": max(waited),
        "runs_per_s": runs / took,
        "idle_cpu_percent": await idle_cpu(idle_s),
        "rss_mb": rss_mb(),
    }


async def local(runs: int, idle_s: float) -> Figures:
    before = rss_mb()
    began = time.perf_counter()
    from interactd.engine.dispatch.local.dispatcher import LocalDispatcher
    from interactd.engine.dispatch.port import After, Ticket

    imported = (time.perf_counter() - began) * 1000
    watch = Watch()

    async def attempt(id: str) -> After:
        watch.begin(id)
        return After()

    async def give_up(id: str) -> None:
        raise AssertionError(id)

    dispatcher = LocalDispatcher(256, {})
    dispatcher.serve(attempt, give_up)

    async def submit(id: str) -> None:
        dispatcher.submit(Ticket(id, f"ses_{id}", "p"))

    return {"import_ms": imported, "rss_before_mb": before, **await measure(submit, watch, runs, idle_s)}


async def dbos(runs: int, idle_s: float, poll_s: float) -> Figures:
    before = rss_mb()
    began = time.perf_counter()
    # Not a dependency of ours.
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    DBOS: Any = importlib.import_module("dbos").DBOS

    imported = (time.perf_counter() - began) * 1000
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        engine = sqlalchemy.create_engine(
            f"sqlite:///{folder}/dbos.db", connect_args={"timeout": 30, "isolation_level": "IMMEDIATE"}
        )

        def pragmas(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

        sqlalchemy.event.listen(engine, "connect", pragmas)
        DBOS(
            config={
                "name": "bench",
                "system_database_url": f"sqlite:///{folder}/dbos.db",
                "system_database_engine": engine,
                "executor_id": "bench",
                "application_version": "1",
                "log_level": "ERROR",
            }
        )

        @DBOS.workflow()
        async def run(id: str) -> None:
            watch.begin(id)

        DBOS.launch()
        await DBOS.register_queue_async("runs", worker_concurrency=max(256, runs), polling_interval_sec=poll_s)

        async def submit(id: str) -> None:
            await DBOS.enqueue_workflow_async("runs", run, id)

        figures = await measure(submit, watch, runs, idle_s)
        DBOS.destroy()
    return {"import_ms": imported, "rss_before_mb": before, **figures}


async def run(runs: int, idle_s: float) -> Figures:
    from engine.kit import ScriptedModel, rig

    with tempfile.TemporaryDirectory() as folder:
        async with rig(Path(folder) / "interactd.db", model=ScriptedModel(), max_queued=1000) as it:
            session = await it.engine.create_session(ttl_s=0)
            alone: list[float] = []
            for n in range(SEQUENTIAL):
                since = time.perf_counter()
                sent = await it.engine.send_turn(session.id, f"t{n}", background=True)
                await it.ended(sent.interaction.id)
                alone.append((time.perf_counter() - since) * 1000)
            sessions = [await it.engine.create_session(ttl_s=0) for _ in range(runs)]
            since = time.perf_counter()
            started = await asyncio.gather(*(it.engine.send_turn(one.id, "x", background=True) for one in sessions))
            for one in started:
                await it.ended(one.interaction.id)
            at_once = runs / (time.perf_counter() - since)
            since = time.perf_counter()
            for n in range(1000):
                last = await it.engine.send_turn(sessions[n % 50].id, "q", background=True, if_busy="queue")
            queued = (time.perf_counter() - since) * 1000 / 1000
            await it.ended(last.interaction.id)  # pyright: ignore[reportPossiblyUnboundVariable]
            for one in sessions[:50]:
                head = (await it.engine.get_session(one.id)).head
                assert head is not None
                await it.ended(head)
            drained = 1000 / (time.perf_counter() - since)
            await asyncio.sleep(1.5)
            return {
                "background_run_ms_p50": statistics.median(alone),
                "runs_per_s": at_once,
                "accept_of_1000_queued_ms_each": queued,
                "queued_runs_per_s": drained,
                "idle_cpu_percent": await idle_cpu(idle_s),
                "rss_mb": rss_mb(),
            }


def child(name: str, arguments: argparse.Namespace, poll_s: float) -> Figures:
    command = [sys.executable, __file__, "--child", name, "--runs", str(arguments.runs), "--idle", str(arguments.idle)]
    done = subprocess.run([*command, "--polls", str(poll_s)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--idle", type=float, default=8.0)
    parser.add_argument("--polls", type=float, nargs="*", default=[0.5, 0.2])
    parser.add_argument("--engines", nargs="*", default=["local", "dbos", "run"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work = {"local": local, "run": run}.get(arguments.child)
        figures = asyncio.run(
            work(arguments.runs, arguments.idle)
            if work is not None
            else dbos(arguments.runs, arguments.idle, arguments.polls[0])
        )
        print(json.dumps(figures))
        return
    found: dict[str, Figures] = {}
    if "local" in arguments.engines:
        found["local"] = child("local", arguments, 0)
    if "dbos" in arguments.engines and importlib.util.find_spec("dbos") is not None:
        for poll_s in arguments.polls:
            found[f"dbos, poll {poll_s:g} s"] = child("dbos", arguments, poll_s)
    if "run" in arguments.engines:
        found["run"] = child("run", arguments, 0)
    for name, figures in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.3g}" for key, value in figures.items()))
    for name, figures in found.items():
        if name.startswith("dbos") and "local" in found:
            ours = found["local"]
            ratios = {
                key: figures[key] / max(ours[key], 1e-3)
                for key in ("submit_to_start_ms_p50", "runs_per_s", "idle_cpu_percent", "import_ms")
            }
            added = (figures["rss_mb"] - figures["rss_before_mb"]) - (ours["rss_mb"] - ours["rss_before_mb"])
            print(f"{name} / local: {', '.join(f'{k} {v:,.3g}x' for k, v in ratios.items())}, {added:+.0f} MB")


if __name__ == "__main__":
    main()
