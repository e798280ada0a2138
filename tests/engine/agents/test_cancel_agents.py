"""Cancelling an agent's run: nothing of it goes on, what it had made is kept, and it takes no persuasion."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.agents.kit import Folder, Rig, calls, result_of, rig, runs
from interactd.engine.port import Result
from interactd.sandbox.environments_port import Artifact

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")]

PATIENCE_S = 40.0
STUBBORN = """
import os, signal, subprocess, sys, time
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(one, signal.SIG_IGN)
held = open('held', 'w')
def daemon():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    os.execvp('sleep', ['sleep', '{mark}'])
daemon()
subprocess.Popen(['sh', '-c', 'trap "" TERM INT HUP; sleep {mark} & sleep {mark}; :'], start_new_session=True)
held.write('half'); held.flush()
open('made.txt', 'w').write('made')
print('began', flush=True)
while True:
    try:
        time.sleep(3600)
    except BaseException:
        pass
"""


def alive(mark: str) -> list[int]:
    """Processes of whatever namespace whose command line has these words."""
    found: list[int] = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = one.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if mark.encode() in words and int(one.parent.name) != os.getpid():
            found.append(int(one.parent.name))
    return found


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_S * 50)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


async def begun(it: Rig, interaction_id: str, mark: str) -> None:
    await until(lambda: len(alive(f"sleep {mark}")) >= 2)
    await printed(it, interaction_id)


async def printed(it: Rig, interaction_id: str) -> None:
    """Wait until the code that runs has said that it began."""
    run = it.engine._queue.run_of(interaction_id)  # pyright: ignore[reportPrivateUsage]
    assert run is not None
    await until(lambda: any("began" in str(step.body.get("result")) for step in run.partial()))


@pytest.mark.parametrize("language", ["python", "bash"])
async def test_a_tree_that_will_not_die_is_gone_and_what_it_made_is_kept(tmp_path: Path, language: str) -> None:
    mark = f"4242.{os.getpid()}{len(language)}"
    code = STUBBORN.replace("{mark}", mark)
    async with rig(tmp_path) as it:
        if language == "bash":
            code = f"trap '' TERM INT HUP\npython3 -c {shlex.quote(code)}"
        it.model.script(runs(code, language=language))
        session = await it.session()
        sent = await it.engine.send_turn(session.id, "go")
        await begun(it, sent.interaction.id, mark)
        done = await it.engine.cancel(sent.interaction.id)
        assert done.interaction.status == "cancelled"
        assert alive(f"sleep {mark}") == []
        assert "began" in result_of(done)["result"]
        assert "cancelled" in result_of(done)["result"]
        await until(lambda: it.engine.busy == 0)
        assert await it.files(done) == {"held": b"half", "made.txt": b"made"}
        assert (await it.engine.cancel(sent.interaction.id)).interaction.status == "cancelled"
        it.model.script(calls("view_file", {"path": "made.txt"}), "ok")
        assert "made" in result_of(await it.turn("and now"))["result"]


async def test_files_that_take_long_do_not_keep_the_end_and_are_not_lost(tmp_path: Path) -> None:
    release = asyncio.Event()

    async with rig(tmp_path, capture_cancelled_s=0.05) as it:
        kept = it.environments._kept  # pyright: ignore[reportPrivateUsage]
        capture = kept.capture

        async def slowly(*args: Any) -> tuple[list[Artifact], list[Any]]:
            await release.wait()
            return await capture(*args)

        kept.capture = slowly  # type: ignore[method-assign]
        it.model.script(runs("open('a', 'w').write('x'); print('began', flush=True)\nimport time; time.sleep(3600)"))
        session = await it.session()
        sent = await it.engine.send_turn(session.id, "go")
        waiter = asyncio.create_task(it.engine.wait(sent.interaction.id, PATIENCE_S))
        await printed(it, sent.interaction.id)
        done = await it.engine.cancel(sent.interaction.id)
        assert done.interaction.status == "cancelled"
        assert (await waiter).interaction.status == "cancelled"
        assert await it.files(done) == {}
        it.model.script(calls("list_dir", {}), "ok")
        after = await it.engine.send_turn(session.id, "next")
        release.set()
        assert (await it.ended(after.interaction.id)).interaction.status == "completed"
        assert await it.files(done) == {"a": b"x"}


async def test_a_runner_that_hangs_is_settled_from_outside_with_what_it_had(tmp_path: Path) -> None:
    async with rig(tmp_path, cancel_patience_s=0.2) as it:
        it.model.script(runs("print('began', flush=True)\nimport time; time.sleep(3600)"))
        session = await it.session()
        sent = await it.engine.send_turn(session.id, "go")
        run = it.engine._queue.run_of(sent.interaction.id)  # pyright: ignore[reportPrivateUsage]
        assert run is not None
        await printed(it, sent.interaction.id)
        run.stop = lambda why: None  # type: ignore[method-assign]
        done = await it.engine.cancel(sent.interaction.id)
        assert done.interaction.status == "cancelled"
        assert "began" in result_of(done)["result"]
        type(run).stop(run, "cancel")
        await until(lambda: it.engine.busy == 0)
        again = await it.engine.get_interaction(sent.interaction.id)
        assert len([step for step in again.steps if step.body.get("call_id") == "c1"]) == 1


async def test_what_a_run_started_is_cancelled_with_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.model.gate = asyncio.Event()
        sent: list[Result] = []
        for _ in range(4):
            session = await it.session()
            sent.append(await it.engine.send_turn(session.id, "go"))
        parent, child, grandchild, other = (one.interaction.id for one in sent)
        await adopt(it, child, parent)
        await adopt(it, grandchild, child)
        assert (await it.engine.cancel(parent)).interaction.status == "cancelled"
        states = [(await it.store.get_interaction(one)).status for one in (parent, child, grandchild, other)]
        assert states == ["cancelled", "cancelled", "cancelled", "in_progress"]


async def adopt(it: Rig, child: str, parent: str) -> None:
    """Make one interaction the child of another, as one that an agent starts is."""
    await it.store._write(  # pyright: ignore[reportPrivateUsage]
        lambda db: db.execute("UPDATE interactions SET parent_id = ? WHERE id = ?", (parent, child)) and None
    )


async def test_an_orphan_that_nobody_runs_is_cancelled(tmp_path: Path) -> None:
    agents = Folder(tmp_path / "agents")
    agents.put()
    async with rig(tmp_path, agents=agents) as it:
        it.model.script(runs("print(1)"))
        it.model.gate = asyncio.Event()
        session = await it.session()
        sent = await it.engine.send_turn(session.id, "go")
        await it.model.asked(1)
        await it.engine.drain(0)
    async with rig(tmp_path, agents=agents, start=False) as it:
        await it.store.open()
        await it.environments.start()
        assert (await it.store.get_interaction(sent.interaction.id)).status == "in_progress"
        assert (await it.engine.cancel(sent.interaction.id)).interaction.status == "cancelled"


async def test_everything_that_is_open_can_be_cancelled_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.model.script(runs("print(1)"))
        asked = await it.turn(approvals="always_ask")
        it.model.gate = asyncio.Event()
        running = await it.engine.send_turn((await it.session()).id, "go")
        queued = await it.engine.send_turn(running.session.id, "then", if_busy="queue")
        ids = {one.interaction.id for one in (asked, running, queued)}
        assert set(await it.engine.cancel_all()) == ids
        for one in ids:
            assert (await it.store.get_interaction(one)).status == "cancelled"
        assert await it.engine.cancel_all() == []
