"""Two daemons on one store, one of which is killed or stands still, as processes are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals")]
PATIENCE_S = 60.0


class Daemon:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.asked: list[str] = []
        """What its model was asked."""

    async def call(self, name: str, **arguments: Any) -> Any:
        self._write({"call": name, **arguments})
        return (await self._until("result"))["result"]

    async def asks(self, text: str) -> None:
        """Wait until its model is asked this. It may have been, while something else was waited for."""
        while text not in self.asked:
            await self._until("model")

    def say(self, text: str) -> None:
        self._write({"say": text})

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _until(self, key: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := await self._process.stdout.readline():
                said = json.loads(line)
                if "model" in said:
                    self.asked.append(said["model"])
                if key in said:
                    return said
        raise AssertionError("it died")

    async def ended(self, interaction_id: str) -> dict[str, Any]:
        return await self.call("wait", interaction_id=interaction_id, timeout_s=PATIENCE_S)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


@asynccontextmanager
async def a_daemon(path: Path, lease_s: float) -> AsyncGenerator[Daemon]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("daemon.py")), str(path), str(lease_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    daemon = Daemon(process)
    try:
        await daemon._until("ready")  # pyright: ignore[reportPrivateUsage]
        yield daemon
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore


@asynccontextmanager
async def two(path: Path, lease_s: float = 60) -> AsyncGenerator[tuple[Daemon, Daemon]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(a_daemon(path, lease_s))
        second = await stack.enter_async_context(a_daemon(path, lease_s))
        yield first, second


async def test_what_a_killed_daemon_ran_goes_on_at_the_other_long_before_its_lease_is_over(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=3600) as (a, b):
        session = await a.call("create_session")
        sent = [
            await a.call("send_turn", session_id=session, content=f"t{n}", if_busy="queue", background=True)
            for n in range(3)
        ]
        await a.asks("t0")
        a.kill()
        for n in range(3):
            await b.asks(f"t{n}")
            b.say(f"said {n}")
            done = await b.ended(sent[n]["id"])
            assert (done["status"], done["steps"]) == ("completed", [f"user_input: t{n}", f"model_output: said {n}"])


async def test_a_daemon_that_comes_first_takes_over_from_one_that_came_later(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=3600) as (a, b):
        session = await b.call("create_session")
        sent = await b.call("send_turn", session_id=session, content="x", background=True)
        await b.asks("x")
        b.kill()
        await a.asks("x")
        a.say("done")
        assert (await a.ended(sent["id"]))["epoch"] == 2


async def test_a_stopped_daemon_loses_its_run_after_the_lease_and_what_it_says_then_is_not_kept(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "db", lease_s=2) as (a, b):
        session = await a.call("create_session")
        sent = await a.call("send_turn", session_id=session, content="x", background=True)
        await a.asks("x")
        a.kill(signal.SIGSTOP)
        await b.asks("x")
        a.say("of the sleeper")
        a.kill(signal.SIGCONT)
        b.say("of the waker")
        done = await b.ended(sent["id"])
        assert done["steps"] == ["user_input: x", "model_output: of the waker"]
        seen = await a.ended(sent["id"])
        assert (seen["steps"], seen["epoch"]) == (done["steps"], 2)
        # It is a daemon like any other again.
        again = await a.call("send_turn", session_id=session, content="y", background=True)
        await a.asks("y")
        a.say("awake")
        assert (await b.ended(again["id"]))["steps"] == ["user_input: y", "model_output: awake"]


async def test_a_stopped_daemons_run_is_cancelled_from_another(tmp_path: Path) -> None:
    async with two(tmp_path / "db", lease_s=3600) as (a, b):
        session = await a.call("create_session")
        sent = await a.call("send_turn", session_id=session, content="x", background=True)
        await a.asks("x")
        a.kill(signal.SIGSTOP)
        assert (await b.call("cancel", interaction_id=sent["id"]))["status"] == "cancelled"
        a.say("too late")
        a.kill(signal.SIGCONT)
        assert (await a.ended(sent["id"]))["steps"] == ["user_input: x"]
