"""Sandbox figures: cold start and warm command beside bare exec and bare bubblewrap, in one interleaved run; disks,
requests through the proxy, and many at once.

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
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from interactd.paths import find
from interactd.sandbox.disks import Disks
from interactd.sandbox.egress.ways import NetworkWays
from interactd.sandbox.environments.kernel.talk import Kernel
from interactd.sandbox.launchers.bubblewrap import Bubblewrap
from interactd.sandbox.port import Exit, Limits, Sandbox, Spec
from support import container_image

READY, THEN = "cold: sandbox ready, its python running", "cold: and a second python run in it"
AHEAD = "first code_execution, started while the model thought"
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
    return f"{name:<54} {ordered[0]:7.1f} {statistics.median(ordered):7.1f} {late:7.1f}"


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

    await disks(folder, max(5, rounds // 3))
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

    async def first_code() -> None:
        sandbox = await launcher.start(spec("code"))
        kernel = Kernel(sandbox)
        await kernel.alive()
        began = time.perf_counter()
        assert (await kernel.run("1 + 1", wall_s=10, output_bytes=1000)).output == "2\n"
        samples.setdefault(AHEAD, []).append(1000 * (time.perf_counter() - began))
        closing.append(sandbox)

    closing: list[Sandbox] = []
    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "bare exec: true": lambda: spawned(["/bin/true"]),
        "bare exec: python": lambda: spawned(PYTHON),
        "bare bubblewrap: python": lambda: spawned([*BARE_BWRAP, *_LINKS, *_REST, *PYTHON]),
        THEN: cold,
        "cold: first code_execution, nothing ahead": first_code,
        "warm: true in a running sandbox": lambda: ran(warm, ["/bin/true"]),
        "warm: python in a running sandbox": lambda: ran(warm, PYTHON),
    }
    if (podman := shutil.which("podman")) and container_image.present(podman):
        engine = [podman, *(["--runtime", found] if (found := shutil.which("runc")) else []), "run", "--rm"]
        engine += ["--network", "none", "--ulimit", "nofile=1024", "--ulimit", "nproc=32768"]
        kinds["podman: python"] = lambda: spawned([*engine, container_image.NAME, "python3", "-c", "pass"])
    for _round in range(rounds):
        for name, work in kinds.items():
            samples.setdefault(name, []).append(await timed(work))
            while closing:
                samples.setdefault("end of a sandbox", []).append(await timed(closing.pop().aclose))
    print(f"{'milliseconds':<54} {'min':>7} {'median':>7} {'p95':>7}")
    for name, values in samples.items():
        print(line(name, values))
    middle = {name: statistics.median(values) for name, values in samples.items()}
    bare = "bare bubblewrap: python"
    for name in (READY, THEN):
        own = statistics.median(a / b for a, b in zip(samples[name], samples[bare], strict=True))
        print(
            f"{name} / {bare}: {middle[name] / middle[bare]:.2f} of the medians, {own:.2f} median of the rounds", end=""
        )
        print(f", {min(samples[name]) / min(samples[bare]):.2f} of the minima")
    print("target: 1.5. The second runs Python twice, one after the other: the sandbox's own and the command's.")
    print(f"warm command p50: {middle['warm: true in a running sandbox']:.2f} ms (target 5)")
    await warm.aclose()
    await requests(launcher, spec("egress"), folder)

    began = time.perf_counter()
    sandboxes = await asyncio.gather(*(launcher.start(spec(f"many-{number}")) for number in range(many)))
    await asyncio.gather(*(ran(sandbox, PYTHON) for sandbox in sandboxes))
    up = time.perf_counter() - began
    memory = sum(share(pid) for pid in firsts())
    await asyncio.gather(*(sandbox.aclose() for sandbox in sandboxes))
    weakest = {sandbox.isolation.label for sandbox in sandboxes}
    print(f"{many} sandboxes at once ({', '.join(weakest)}), python in each: {up:.2f} s, {many / up:.0f}/s", end="; ")
    print(f"{memory / many / 1024:.1f} MB each when idle (PSS); ended in {time.perf_counter() - began - up:.2f} s")


async def disks(folder: Path, rounds: int) -> None:
    """What a file system of its own costs an environment, beside plain folders."""
    root = folder / "disks"
    root.mkdir()
    made = Disks(root)
    if (why := await made.why_not()) is not None:
        print(f"no disks of environments' own here: {why}")
        return
    samples: dict[str, list[float]] = {}
    for number in range(rounds):
        id = f"env_{number}"
        (root / id).mkdir()

        async def make(id: str = id) -> None:
            await made.make(id, root / id, 2048)

        async def again(id: str = id) -> None:
            async with made.open(id, 2048):
                return

        steps = {"made and mounted (2 GB)": make, "unmounted": lambda id=id: made.close(id), "mounted again": again}
        for name, step in steps.items():
            samples.setdefault(f"disk: {name}", []).append(await timed(step))
    for name, values in samples.items():
        print(line(name, values))
    taken = sum(path.stat().st_blocks * 512 for path in root.glob("*/disk.img")) / rounds / 1024
    print(f"an empty one takes {taken:.0f} KB on the host's disk")
    await made.aclose()


ASK = """
import socket, sys, time
host, port, target, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
took = []
for _ in range(count):
    began = time.perf_counter()
    with socket.create_connection((host, port)) as s:
        s.sendall(f"GET {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
        while s.recv(65536):
            continue
    took.append(1000 * (time.perf_counter() - began))
took.sort()
print(f"{took[0]:.2f} {took[len(took) // 2]:.2f}")
"""


async def requests(launcher: Bubblewrap, wanted: Spec, folder: Path) -> None:
    """A request on a connection of its own, from a sandbox through its proxy, and straight from this machine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    way = await NetworkWays(None).open({"allowlist": [f"127.0.0.1:{port}"]}, {}, folder)
    sandbox = await launcher.start(replace(wanted, egress=way.egress, env=way.env))
    there = [ASK, "127.0.0.1", "3128", f"http://127.0.0.1:{port}/", "200"]
    straight = [PYTHON[0], "-c", ASK, "127.0.0.1", str(port), "/", "200"]
    said = b""
    async for event in sandbox.exec([PYTHON[0], "-c", *there]):
        said += b"" if isinstance(event, Exit) else event.data
    done = await asyncio.create_subprocess_exec(*straight, stdout=asyncio.subprocess.PIPE)
    direct, _ = await done.communicate()
    print(f"a request on a new connection, min / median ms: {said.decode().strip()} through the proxy", end="; ")
    print(f"{direct.decode().strip()} straight")
    await sandbox.aclose()
    await way.aclose()
    server.close()
    await server.wait_closed()


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
