"""Two daemons on one data folder: an environment is one's at a time, and what a dead one left the other cleans."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from interactd.errors import Conflict, Deleted
from interactd.sandbox.disks import loops
from interactd.sandbox.environments import carrying, claims
from sandbox.environments.kit import World, processes_over
from sandbox.environments.other import Other, another

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(w: World) -> AsyncGenerator[Other]:
    async with another(w.paths.data.parent) as one:
        yield one


def names(w: World) -> set[str]:
    return {path.name for path in (w.paths.data / "environments").iterdir()}


def opened(w: World, environment: str) -> list[str]:
    """What this process has open of an environment's folder."""
    links: list[str] = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(fd.readlink()))
    return sorted(link for link in links if link.startswith(str(w.paths.data / "environments" / environment)))


async def test_a_lease_waits_while_another_daemon_has_it(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    await other.tell("lease", made)
    entered = asyncio.Event()

    async def run() -> None:
        async with w.environments.lease(made, await w.interaction()) as space:
            entered.set()
            assert await space.read("theirs") == b"1"
            await space.run_bash("echo > ours")

    waiting = asyncio.create_task(run())
    await other.tell("python", made, "open('theirs', 'w').write('1')")
    assert not entered.is_set()
    await other.tell("release")
    async with asyncio.timeout(10):
        await waiting
    assert await other.tell("files", made) == ["ours", "theirs"]


async def test_neither_keeps_the_other_out_by_coming_back_at_once(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    done = asyncio.Event()

    async def again_and_again() -> None:
        while not done.is_set():
            async with w.environments.lease(made, interaction):
                await asyncio.sleep(0.005)

    interaction = await w.interaction()
    two = [asyncio.create_task(again_and_again()) for _ in range(2)]
    try:
        assert "error" not in await other.tell("lease", made)
        await other.tell("release")
    finally:
        done.set()
        await asyncio.gather(*two)


async def test_a_waiting_lease_is_cancelled_and_leaves_no_claim(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    await other.tell("lease", made)
    before = opened(w, made)
    for pause in (0.0, 0.001, 0.03, 0.2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(pause), w.environments.lease(made, "int_" + "9" * 26):
                pass
    async with asyncio.timeout(5):
        while opened(w, made) != before:  # noqa: ASYNC110 - a look that was under way ends by itself
            await asyncio.sleep(0.01)
    await other.tell("release")
    assert await other.tell("lease", made)
    await other.tell("release")


async def test_what_another_daemon_uses_is_not_deleted_forked_or_exported_under_it(
    w: World, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await w.environments.create({})).id
    interaction = await other.tell("lease", made)
    with pytest.raises(Conflict) as caught:
        await w.environments.delete(made)
    assert caught.value.fields["interaction_id"] == interaction
    monkeypatch.setattr("interactd.sandbox.environments.environments.FORK_WAIT_S", 0.2)
    with pytest.raises(Conflict) as caught:
        await w.environments.create({"from_environment": made})
    assert caught.value.fields["interaction_id"] == interaction
    assert names(w) == {made}
    monkeypatch.setattr(carrying, "PACK_WAIT_S", 0.2)
    carrier = w.environments.carrier
    carrier.attach(asyncio.get_running_loop())
    with pytest.raises(Conflict):
        await asyncio.to_thread(carrier.pack, made, {}, io.BytesIO(), lambda: None)
    await other.tell("python", made, "open('a', 'w').write('1')")
    await other.tell("release")
    assert await asyncio.to_thread(carrier.pack, made, {}, io.BytesIO(), lambda: None) == 1
    fork = await w.environments.create({"from_environment": made})
    await w.environments.delete(made)
    assert (await other.tell("delete", made))["environment_id"] == made
    assert await other.tell("files", fork.id) == ["a"]


async def test_a_killed_holder_has_it_no_more(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    await other.tell("lease", made)
    await other.tell("python", made, "import time; open('kept', 'w').write('1')")
    entered = asyncio.Event()

    async def run() -> None:
        async with w.environments.lease(made, await w.interaction()) as space:
            entered.set()
            assert (await space.run_bash("cat kept")).output == "1"

    waiting = asyncio.create_task(run())
    await asyncio.sleep(0.1)
    assert not entered.is_set()
    await other.kill()
    async with asyncio.timeout(15):
        await waiting
    await w.environments.delete(made)


async def test_a_run_does_not_wait_for_a_daemon_that_stands_still_with_it_and_others_do(
    w: World, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await w.environments.create({})).id
    run = await other.tell("lease", made)
    monkeypatch.setattr(claims, "PASS_S", 0.3)
    async with another(w.paths.data.parent, 900) as third:
        os.kill(other.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10), w.environments.lease(made, run) as space:
                assert (await space.run_bash("echo on")).output == "on\n"
                os.kill(other.pid, signal.SIGCONT)
                # The sleeper lets go of what it had, and nobody comes between.
                await other.tell("release")
                assert (await third.tell("delete", made))["interaction_id"] == run
                await third.begin("lease", made)
                with pytest.raises(TimeoutError):
                    await third.answer(1)
            # A cancelled read has lost nothing of the line.
            assert "error" not in await third.answer()
            await third.tell("release")
            # Another run waits for one that stands still, however long.
            await other.tell("lease", made)
            os.kill(other.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), w.environments.lease(made, await w.interaction()):
                    pass
        finally:
            os.kill(other.pid, signal.SIGCONT)
        await other.tell("release")


async def test_a_sandbox_that_waits_for_the_next_run_is_given_up_when_another_daemon_had_its_files(
    w: World, other: Other
) -> None:
    made = (await w.environments.create({})).id
    async with w.environments.lease(made, await w.interaction()) as space:
        await space.run_python("x = 1")
    # It keeps nobody out.
    await other.tell("lease", made)
    assert await other.tell("python", made, "y = 2; open('theirs', 'w').write('2'); y") == "2\n"
    assert processes_over(w.paths.data)
    await other.tell("release")
    async with w.environments.lease(made, await w.interaction()) as space:
        ran = await space.run_python("open('theirs').read()")
        assert (ran.output, ran.state_lost) == ("'2'\n", True)
    # The other one's goes by itself, and what is here stays: it was had here last.
    await other.tell("tick")
    async with w.environments.lease(made, await w.interaction()) as space:
        assert not (await space.run_python("1")).state_lost


async def test_a_delete_takes_the_disk_that_another_daemon_keeps_mounted_for_later(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    async with w.environments.lease(made, await w.interaction()) as space:
        await space.run_python("open('a', 'w').write('x' * 1000)")
    receipt = await other.tell("delete", made)
    assert receipt["removed"]["files"] == 1
    assert names(w) == set()
    # One that is made now may get the device that was the other's.
    second = await other.tell("create", {})
    await w.environments.tick()
    assert processes_over(w.paths.data) == []
    assert await other.tell("files", second) == []
    with pytest.raises(Deleted):
        async with w.environments.lease(made, await w.interaction()):
            pass
    assert await w.environments.delete(made) == receipt
    root = w.paths.data / "environments"
    assert all(second in str(one.target) for one in loops.mounts_below(root) if one.target != root)


async def test_what_a_killed_daemon_was_making_is_removed_by_the_one_that_lives(w: World, other: Other) -> None:
    kept = (await w.environments.create({})).id
    await other.begin("create_half", {"sources": [{"type": "inline", "target": "a", "content": "x"}]})
    assert await other.answer() == "half"
    (row,) = await w.store.list_environments(statuses=("creating",))
    # Its maker lives: however often somebody looks, and starts.
    for _ in range(3):
        await w.environments.tick()
    async with another(w.paths.data.parent, 900):
        assert names(w) == {kept, f".new-{row['id']}"}
    assert await w.store.list_environments(statuses=("creating",))
    await other.kill()
    await w.environments.tick()
    assert names(w) == {kept}
    assert await w.store.get_environment(row["id"]) is None
    assert [one.id for one in await w.environments.list()] == [kept]


async def test_what_a_killed_daemon_was_deleting_is_removed_by_the_one_that_lives(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    await other.begin("delete_half", made)
    assert await other.answer() == "half"
    await w.environments.tick()
    assert names(w) == {made}
    with pytest.raises(Deleted):
        await w.environments.get(made)
    await other.kill()
    await w.environments.tick()
    assert names(w) == set()
    row = await w.store.get_environment(made)
    assert row is not None
    assert row["status"] == "deleted"
    assert (await w.environments.delete(made))["environment_id"] == made


async def test_an_import_under_way_is_left_alone_until_it_is_given_up(w: World, other: Other) -> None:
    carrier = w.environments.carrier
    carrier.attach(asyncio.get_running_loop())
    id = "env_" + "0" * 26
    await asyncio.to_thread(carrier.unpack, id, {}, None, most_bytes=0, go=lambda: None)
    await other.tell("tick")
    assert names(w) == {f".new-{id}"}
    await asyncio.to_thread(carrier.settle, id)
    await other.tell("tick")
    assert names(w) == {id}
    # What a crash before its rows would leave: nobody's.
    carrier.release(id)
    await w.environments._disks.close(id)  # pyright: ignore[reportPrivateUsage]
    await other.tell("tick")
    assert names(w) == set()


async def test_both_may_look_at_files_at_once_and_mount_them_once(w: World, other: Other, tmp_path: Path) -> None:
    made = (await w.environments.create({})).id
    image = w.paths.data / "environments" / made / "disk.img"
    if not image.exists():
        pytest.skip("no disk images here")
    began = time.monotonic()
    for _ in range(8):
        await w.environments._disks.close(made)  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(other.tell("files", made), w.environments.files(made))
        info = image.stat()
        assert len(loops.devices_over(info.st_dev, info.st_ino)) == 1
    assert time.monotonic() - began < 60


async def test_a_start_leaves_what_another_daemon_is_keeping_alone(w: World, other: Other) -> None:
    made = (await w.environments.create({})).id
    contents = w.environments._kept.contents  # pyright: ignore[reportPrivateUsage]
    half = contents.tmp / "half"
    half.write_bytes(b"x")
    parts = contents.tmp.parent
    (parts / "dead").mkdir()
    (parts / "dead" / "half").write_bytes(b"x")
    async with w.environments._kept.changing():  # pyright: ignore[reportPrivateUsage]
        # Put there, its row not yet written.
        contents.path("ab" + "0" * 62).parent.mkdir()
        contents.path("ab" + "0" * 62).write_bytes(b"x")
        starting = asyncio.create_task(_start(w))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(starting), 1)
        assert contents.path("ab" + "0" * 62).exists()
    await starting
    # That nobody had come to refer to it is what the next one finds.
    assert not contents.path("ab" + "0" * 62).exists()
    assert half.exists()
    assert not (parts / "dead").exists()
    await other.tell("delete", made)


async def _start(w: World) -> None:
    async with another(w.paths.data.parent, 900):
        pass
