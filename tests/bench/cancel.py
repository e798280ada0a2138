"""How long a cancel takes until the status says so, against killing the same tree of bare processes by hand.

`python tests/bench/cancel.py` prints both for a tree that ignores signals, has forked twice and holds files open.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine.agents.kit import rig, runs
from engine.agents.test_cancel_agents import STUBBORN, alive, begun

ROUNDS = 10


async def ours(language: str) -> list[float]:
    """Seconds from the call to the status, each with every process gone."""
    took: list[float] = []
    for number in range(ROUNDS):
        mark = f"4343.{os.getpid()}{number}{len(language)}"
        code = STUBBORN.replace("{mark}", mark)
        if language == "bash":
            code = f"trap '' TERM INT HUP\npython3 -c {shlex.quote(code)}"
        async with rig(Path(tempfile.mkdtemp())) as it:
            it.model.script(runs(code, language=language))
            session = await it.session()
            sent = await it.engine.send_turn(session.id, "go")
            await begun(it, sent.interaction.id, mark)
            began = time.perf_counter()
            done = await it.engine.cancel(sent.interaction.id)
            took.append(time.perf_counter() - began)
            assert done.interaction.status == "cancelled"
            assert not alive(f"sleep {mark}")
    return took


def bare() -> list[float]:
    """Seconds to kill such a tree by its process ids, found in /proc, until nothing of it is there."""
    took: list[float] = []
    for number in range(ROUNDS):
        mark = f"4444.{os.getpid()}{number}"
        with tempfile.TemporaryDirectory() as folder:
            tree = subprocess.Popen(
                [sys.executable, "-c", STUBBORN.replace("{mark}", mark)], cwd=folder, stdout=subprocess.PIPE
            )
            assert tree.stdout
            tree.stdout.readline()
            began = time.perf_counter()
            tree.kill()
            tree.wait()
            while left := alive(f"sleep {mark}"):
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
            took.append(time.perf_counter() - began)
            tree.stdout.close()
    return took


def main() -> None:
    by_hand = statistics.median(bare())
    print(f"killing the processes by hand: {by_hand * 1000:.0f} ms (median of {ROUNDS})")
    for language in ("python", "bash"):
        took = asyncio.run(ours(language))
        middle, worst = statistics.median(took), max(took)
        print(
            f"cancel of {language}: {middle * 1000:.0f} ms, {middle / by_hand:.1f} times as long;"
            f" the longest {worst * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
