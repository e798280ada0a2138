"""What code leaves behind so that it goes on when its run is over."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

import pytest

from sandbox.environments.kit import World

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap is for Linux")]

# The kernel's own objects are in reach of the code that it runs: it answers that it is quiet, and is not.
LIE = """
import sys, threading, time, os
frame = sys._getframe()
while not hasattr(frame.f_locals.get("self"), "settle"):
    frame = frame.f_back
kernel = frame.f_locals["self"]
type(kernel).settle = lambda self, nonce: self.done(nonce, {"threads": 2, "children": 0})
def go_on():
    while True:
        with open("/workspace/alive", "a") as file:
            file.write(".")
        time.sleep(0.01)
kept = 42
"""
THREAD = "threading.Thread(target=go_on, daemon=True).start()"
CHILD = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0:\n    os.setsid()\n    go_on()"
# A process whose first thread has ended, which looks like one that is dead.
HEADLESS = (
    "import ctypes\nif os.fork() == 0:\n    threading.Thread(target=go_on).start()\n"
    "    ctypes.CDLL(None).pthread_exit(None)"
)
BEGUN = "\nwhile not os.path.exists('/workspace/alive'):\n    time.sleep(0.01)\n"


@pytest.mark.parametrize("how", [THREAD, CHILD, HEADLESS], ids=["thread", "child", "headless"])
async def test_a_kernel_that_lies_about_being_quiet_is_held_still(w: World, how: str) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python(LIE + how + BEGUN)
        assert ran.exit.code == 0, ran
    alive = w.folder(environment.id) / "alive"
    before = await _size(alive)
    await asyncio.sleep(0.3)
    assert await _size(alive) == before
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_python("kept")).output in ("42\n", "42\n.")


async def _size(path: Path) -> int:
    return (await asyncio.to_thread(path.stat)).st_size
