"""Sandbox figures: cold start and warm command beside bare exec and bare bubblewrap, in one interleaved run.

    python tests/bench/sandbox.py [--rounds 30] [--many 50]

Each round takes one sample of every kind, so that other load on the machine falls on all of them alike. Prints minimum,
median and 95th percentile in milliseconds, the ratios that the targets speak of, and what many at once need.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from interactd.paths import find
from interactd.sandbox.launchers.bubblewrap import Bubblewrap
from interactd.sandbox.port import Exit, Limits, Sandbox, Spec

READY, THEN = "cold: sandbox ready, its python running", "cold: and a second python run in it"
PYTHON = ["/usr/bin/python3", "-c", "pass"]
BARE_BWRAP = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin"]
_LINKS = ["/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
_REST = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]


async def spawned(argv: list[str]) -> None:
    await asyncio.to_thread(subprocess.run, argv, check=True)


async def ran(sandbox: Sandbox, argv: list[str]) -> Exit:
    last: Exit | None = None
    async for event in sandbox.exec(argv):
        last = event if isinstance(event, Exit) else last
    assert last is not None
    assert last.code == 0, last
    return last


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - began)


def line(name: str, samples: list[float]) -> str:
    ordered = sorted(samples)
    late = ordered[int(0.95 * (len(ordered) - 1))]
    return f"{name:<44} {ordered[0]:7.1f} {statistics.median(ordered):7.1f} {late:7.1f}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--many", type=int, default=50)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="interactd-bench-"))
    launcher = Bubblewrap(find({"INTERACTD_HOME": str(folder / "interactd")}))
    try:
        await measure(launcher, folder, asked.rounds, asked.many)
    finally:
        await launcher.aclose()
        shutil.rmtree(folder)


async def measure(launcher: Bubblewrap, folder: Path, rounds: int, many: int) -> None:
    def spec(name: str) -> Spec:
        folders = [folder / name / part for part in ("ws", "home")]
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
        return Spec(name, *folders, limits=Limits(memory_mb=256, pids=64))

    found = await launcher.probe()
    print(found.isolation.label if found.isolation else found.why)
    warm = await launcher.start(spec("warm"))
    samples: dict[str, list[float]] = {}

    async def cold() -> None:
        began = time.perf_counter()
        sandbox = await launcher.start(spec("cold"))
        samples.setdefault(READY, []).append(1000 * (time.perf_counter() - began))
        await ran(sandbox, PYTHON)
        closing.append(sandbox)

    closing: list[Sandbox] = []
    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "bare exec: true": lambda: spawned(["/bin/true"]),
        "bare exec: python": lambda: spawned(PYTHON),
        "bare bubblewrap: python": lambda: spawned([*BARE_BWRAP, *_LINKS, *_REST, *PYTHON]),
        THEN: cold,
        "warm: true in a running sandbox": lambda: ran(warm, ["/bin/true"]),
        "warm: python in a running sandbox": lambda: ran(warm, PYTHON),
    }
    if podman := shutil.which("podman"):
        kinds["podman info only (no image is assumed)"] = lambda: spawned([podman, "--version"])
    for _round in range(rounds):
        for name, work in kinds.items():
            samples.setdefault(name, []).append(await timed(work))
            while closing:
                samples.setdefault("end of a sandbox", []).append(await timed(closing.pop().aclose))
    print(f"{'milliseconds':<44} {'min':>7} {'median':>7} {'p95':>7}")
    for name, values in samples.items():
        print(line(name, values))
    middle = {name: statistics.median(values) for name, values in samples.items()}
    least = {name: min(values) for name, values in samples.items()}
    bare = "bare bubblewrap: python"
    for name in (READY, THEN):
        ratios = [facts[name] / facts[bare] for facts in (middle, least)]
        print(f"{name} / {bare}: {ratios[0]:.2f} at the median, {ratios[1]:.2f} at the minimum")
    print("target of the first: 1.5")
    print(f"warm command p50: {middle['warm: true in a running sandbox']:.2f} ms (target 5)")
    await warm.aclose()

    began = time.perf_counter()
    sandboxes = await asyncio.gather(*(launcher.start(spec(f"many-{number}")) for number in range(many)))
    await asyncio.gather(*(ran(sandbox, PYTHON) for sandbox in sandboxes))
    up = time.perf_counter() - began
    memory = sum(share(pid) for pid in firsts())
    await asyncio.gather(*(sandbox.aclose() for sandbox in sandboxes))
    print(f"{many} sandboxes at once, python in each: {up:.2f} s, {many / up:.0f}/s", end="; ")
    print(f"{memory / many / 1024:.1f} MB each when idle (PSS); ended in {time.perf_counter() - began - up:.2f} s")


def firsts() -> list[int]:
    """Every process with our supervisor or bubblewrap in its command line."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"supervisor.py" in text and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def share(pid: int) -> int:
    """Proportional memory of a process in KiB."""
    try:
        for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if text.startswith("Pss:"):
                return int(text.split()[1])
    except OSError:
        return 0
    return 0


asyncio.run(main())
