"""Disks of environments, with real images, loop devices and mounts: what root enforces, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.instants.points import DIE, TRACE
from interactd.errors import InvalidArgument, SandboxUnavailable, StorageFull
from interactd.sandbox.disks import Disks, image, loops
from interactd.sandbox.launchers.bubblewrap import owner
from sandbox.environments.kit import DAY, World, disks_below, world

MB = 1 << 20
FILL = """
import errno
done = 0
try:
    with open('full', 'wb', buffering=0) as f:
        while True:
            done += f.write(b'x' * 65536)
except OSError as e:
    print(errno.errorcode[e.errno], done)
"""


def _can_mount() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and image.tool("mke2fs") is not None


pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not _can_mount(), reason="needs root, loop devices and e2fsprogs"),
]


async def test_bytes_are_held_exactly_and_the_label_says_so(w: World) -> None:
    made = await w.environments.create({"limits": {"disk_mb": 40, "file_mb": 1000}})
    async with w.environments.lease(made.id, await w.interaction(), requires={"disk": "enforced"}) as space:
        assert space.isolation.disk == "enforced"
        ran = await space.run_python(FILL)
        error, done = ran.output.split()
        assert error == "ENOSPC"
        assert 39 * MB <= int(done) <= 41 * MB
        assert space.isolation.disk == "enforced"
        assert "disk" not in space.isolation.label
        # A program that ends because of it is told apart from one that failed otherwise.
        assert (await space.run_bash("dd if=/dev/zero of=more bs=1M count=5 2>&1")).exit.why == "disk"
        with pytest.raises(InvalidArgument, match="full"):
            await space.write("from-outside", b"y" * MB)
        # The home folder is on the same disk, and what is deleted can be used again.
        assert (await space.run_bash("head -c 1000000 /dev/zero > ~/more")).exit.why == "disk"
        await space.delete("full")
        assert (await space.run_bash("echo x > ~/home.txt && cat ~/home.txt")).output == "x\n"
        await space.write("from-outside", b"y" * MB)


async def test_files_are_counted_too(w: World) -> None:
    made = await w.environments.create({"limits": {"disk_mb": 64}})
    async with w.environments.lease(made.id, await w.interaction()) as space:
        ran = await space.run_python(
            "import os, errno\nn = 0\ntry:\n  while n < 40000:\n    os.mknod(f'{n}'); n += 1\n"
            "except OSError as e: print(errno.errorcode[e.errno], n)"
        )
        error, made_files = ran.output.split()
        assert (error, int(made_files) > 16_000) == ("ENOSPC", True)


async def test_what_a_sandbox_sees_of_its_disk_is_nosuid_nodev_and_only_its_own(w: World) -> None:
    made = await w.environments.create({})
    async with w.environments.lease(made.id, await w.interaction()) as space:
        ran = await space.run_bash("cat /proc/self/mountinfo; ls -a /workspace /home/agent; df -m /workspace | tail -1")
        lines = [line.split() for line in ran.output.splitlines()]
        disks = [line for line in lines if len(line) > 5 and line[4] in ("/workspace", "/home/agent")]
        assert {line[3] for line in disks} == {"/ws", "/home"}
        assert all({"nosuid", "nodev"} <= set(line[5].split(",")) for line in disks)
        # The daemon's own folders are not to be learnt from it any more, and no other mount is there.
        assert (
            str(w.paths.data) not in ran.output.replace("/etc", "").replace("base-", "") or "disk.img" not in ran.output
        )
        assert "lost+found" not in ran.output
        assert (await space.run_bash("ls /dev/loop* /dev/loop-control")).exit.code != 0


async def test_an_idle_disk_is_unmounted_and_gives_its_room_back(w: World) -> None:
    made = await w.environments.create({})
    async with w.environments.lease(made.id, await w.interaction()) as space:
        await space.run_bash("dd if=/dev/urandom of=big bs=1M count=60 2>/dev/null; sync; rm big; echo kept > small")
    file = w.paths.data / "environments" / made.id / "disk.img"
    w.clock.pass_s(3600)
    await w.environments.tick()
    assert loops.mounts_below(file.parent) == []
    assert file.stat().st_blocks * 512 < 30 * MB
    # Asking for it mounts it again, and that is undone in time too.
    found = await w.environments.get(made.id)
    assert found.file_count == 1
    assert [one["path"] for one in await w.environments.files(made.id)] == ["small"]
    assert len(loops.mounts_below(file.parent)) == 1
    w.clock.pass_s(3600)
    await w.environments.tick()
    assert loops.mounts_below(file.parent) == []


async def test_a_delete_and_an_expiry_leave_no_image_mount_or_device(w: World) -> None:
    deleted, expired = [(await w.environments.create({})).id for _ in range(2)]
    async with w.environments.lease(deleted, await w.interaction()) as space:
        await space.write("a", b"x" * MB)
        await space.run_python("1")
    receipt = await w.environments.delete(deleted)
    assert receipt["removed"]["files"] == 1
    assert receipt["removed"]["bytes"] >= MB
    w.clock.pass_s(8 * DAY)
    await w.environments.tick()
    folders = w.paths.data / "environments"
    assert list(folders.iterdir()) == []
    assert [one for one in loops.mounts_below(folders) if one.target != folders] == []
    del expired


async def test_forks_hold_all_files_and_belong_to_their_own_user(w: World) -> None:
    base = await w.environments.create({"limits": {"disk_mb": 64}})
    async with w.environments.lease(base.id, await w.interaction()) as space:
        await space.run_bash("echo one > a; ln a b; mkdir -p d; mkfifo d/f; echo home > ~/h; truncate -s 30M holes")
        await space.run_python("x = 5")
        same = None
    fork = await w.environments.create({"from_environment": base.id})
    larger = await w.environments.create({"from_environment": base.id, "limits": {"disk_mb": 200}})
    smaller = await w.environments.create({"from_environment": base.id, "limits": {"disk_mb": 8}})
    for one, size in ((fork, 64), (larger, 200), (smaller, 8)):
        async with w.environments.lease(one.id, await w.interaction()) as space:
            ran = await space.run_bash(
                "cat a ~/h; echo more >> b && rm -f d/f; stat -c %U a d ~/h; df -m --output=avail . | tail -1"
            )
            words = ran.output.split()
            assert words[:2] == ["one", "home"], (size, ran.output)
            assert set(words[2:-1]) == {"agent"}, (size, ran.output)
            assert size - 3 <= int(words[-1]) <= size + 3
            assert space.isolation.disk == "enforced"
    # The base was held still for a moment, no more: its Python knows its names.
    async with w.environments.lease(base.id, await w.interaction()) as space:
        assert (await space.run_python("x")).output == "5\n"
        assert (await space.run_bash("cat a")).output == "one\n"
        same = w.folder(base.id)
    assert (same / "a").stat().st_uid == owner.uid_for(base.id)
    assert (w.folder(fork.id) / "a").stat().st_uid == owner.uid_for(fork.id)


async def test_a_fork_that_cannot_fit_is_refused_and_leaves_nothing(w: World) -> None:
    base = await w.environments.create({"limits": {"disk_mb": 64}})
    async with w.environments.lease(base.id, await w.interaction()) as space:
        await space.run_bash("dd if=/dev/urandom of=big bs=1M count=30 2>/dev/null")
    with pytest.raises(InvalidArgument, match="bytes"):
        await w.environments.create({"from_environment": base.id, "limits": {"disk_mb": 10}})
    assert [path.name for path in (w.paths.data / "environments").iterdir()] == [base.id]


async def test_sources_that_do_not_fit_are_refused(w: World, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / str(number)).write_bytes(b"x")
    with pytest.raises(InvalidArgument, match="not fit"):
        await w.environments.create(
            {"sources": [{"type": "local", "source": str(tmp_path / "many")}], "limits": {"disk_mb": 2}}
        )
    assert list((w.paths.data / "environments").iterdir()) == []


async def test_an_image_grows_when_its_limit_is_raised(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    folder = tmp_path / "env_1"
    folder.mkdir()
    try:
        rooms = await disks.make("env_1", folder, 32)
        (rooms.workspace / "kept").write_bytes(b"k" * MB)
        await disks.close("env_1")
        async with disks.open("env_1", 300) as rooms:
            assert (rooms.workspace / "kept").read_bytes() == b"k" * MB
            found = os.statvfs(rooms.workspace)
            assert found.f_bavail * found.f_frsize >= 299 * MB
        await disks.close("env_1")
        # A lower limit later takes nothing away.
        async with disks.open("env_1", 32) as rooms:
            assert (rooms.workspace / "kept").exists()
    finally:
        await disks.aclose()
    assert disks_below(tmp_path) == []


async def test_a_damaged_image_is_repaired_before_it_is_used(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    folder = tmp_path / "env_1"
    folder.mkdir()
    try:
        rooms = await disks.make("env_1", folder, 32)
        (rooms.workspace / "kept").write_text("kept")
        await disks.close("env_1")
        assert disks_below(folder) == []
        # The mark that the kernel leaves when it found an error.
        debugfs = image.tool("debugfs") or "debugfs"
        subprocess.run([debugfs, "-w", "-R", "ssv state 3", str(folder / "disk.img")], check=True, capture_output=True)  # noqa: ASYNC221
        assert image.damaged(folder / "disk.img")
        async with disks.open("env_1", 32) as rooms:
            assert (rooms.workspace / "kept").read_text() == "kept"
        await disks.close("env_1")
        assert not image.damaged(folder / "disk.img")
    finally:
        await disks.aclose()


async def test_an_image_is_never_mounted_twice_over(tmp_path: Path) -> None:
    """Two devices over one file would destroy what is in it."""
    disks, again = Disks(tmp_path), Disks(tmp_path)
    folder = tmp_path / "env_1"
    folder.mkdir()
    try:
        rooms = await disks.make("env_1", folder, 32)
        (rooms.workspace / "a").write_text("a")
        inside = os.open(rooms.workspace, os.O_RDONLY)
        try:
            # A lazy unmount: somebody still holds the file system, and its device with it.
            loops.unmount(folder / "disk", 0)
            async with again.open("env_1", 32) as other:
                assert (other.workspace / "a").read_text() == "a"
                info = (folder / "disk.img").stat()
                assert len(loops.devices_over(info.st_dev, info.st_ino)) == 1
                os.close(os.open("b", os.O_CREAT | os.O_WRONLY, dir_fd=inside))
                assert (other.workspace / "b").exists()
        finally:
            os.close(inside)
    finally:
        await disks.aclose()
        await again.aclose()


async def test_a_second_daemon_leaves_the_disks_of_a_living_one_alone(tmp_path: Path) -> None:
    disks, other = Disks(tmp_path), Disks(tmp_path)
    folder = tmp_path / "env_1"
    folder.mkdir()
    try:
        rooms = await disks.make("env_1", folder, 32)
        (rooms.workspace / "a").write_text("a")
        assert other.reap() == 0
        assert (rooms.workspace / "a").exists()
        async with other.open("env_1", 32) as theirs:
            assert (theirs.workspace / "a").exists()
        await other.aclose()
        assert (rooms.workspace / "a").exists()
    finally:
        await disks.aclose()
    assert disks_below(tmp_path) == []


async def test_plain_folders_of_an_earlier_version_keep_working(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, images=False) as w:
        old = await w.environments.create({"sources": [{"type": "inline", "target": "a", "content": "old"}]})
        assert not (w.paths.data / "environments" / old.id / "disk.img").exists()
        async with w.environments.lease(old.id, await w.interaction()) as space:
            assert space.isolation.disk == "best_effort"
    async with world(home, numbers_from=100) as w:
        async with w.environments.lease(old.id, await w.interaction()) as space:
            assert (await space.run_bash("cat a; echo new >> a")).output == "old"
            assert space.isolation.disk == "best_effort"
            assert "disk best_effort" in space.isolation.label
        fork = await w.environments.create({"from_environment": old.id})
        async with w.environments.lease(fork.id, await w.interaction(), requires={"disk": "enforced"}) as space:
            assert (await space.run_bash("cat a")).output == "oldnew\n"
        with pytest.raises(SandboxUnavailable):
            async with w.environments.lease(old.id, await w.interaction(), requires={"disk": "enforced"}):
                pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 220 MB for everything of a daemon's."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_beneath_ends_the_run_with_its_reason_and_loses_nothing(small_disk: Path) -> None:
    async with world(small_disk / "home") as w:
        made = await w.environments.create({"limits": {"disk_mb": 1000, "file_mb": 900}})
        await _run(w, made.id, "echo precious > kept; sync kept")
        with pytest.raises(StorageFull, match="disk that holds interactd's data is full"):
            await _run(
                w, made.id, "while dd if=/dev/urandom of=big bs=1M oflag=append conv=notrunc count=4; do :; done"
            )
        # Nothing of it goes on, and nothing more is begun while there is no room.
        with pytest.raises(StorageFull):
            await _run(w, made.id, "echo x > y")
        async with w.environments.lease(made.id, await w.interaction()) as space:
            assert await space.read("kept") == b"precious\n"
            await space.delete("big")
        await w.environments._disks.close(made.id)  # pyright: ignore[reportPrivateUsage] - what an hour of idling does
        async with w.environments.lease(made.id, await w.interaction()) as space:
            assert (await space.run_bash("cat kept; echo on > y; cat y")).output == "precious\non\n"


async def _run(w: World, environment: str, code: str) -> None:
    async with w.environments.lease(environment, await w.interaction()) as space:
        await space.run_bash(code)


VICTIM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from chaos.instants.points import arm
from sandbox.environments.kit import World

async def main():
    w = World(Path(sys.argv[2]))
    await w.store.open()
    await w.environments.start()
    made = await w.environments.create({})
    async with w.environments.lease(made.id, await w.interaction()) as space:
        await space.run_bash("echo synced > kept; sync")
        print(made.id, flush=True)
        if sys.argv[3] == "busy":
            await space.run_bash("while true; do dd if=/dev/zero of=busy bs=1M count=20 2>/dev/null; done")
    arm()
    await w.environments.create({"from_environment": made.id})

asyncio.run(main())
"""


def words(home: Path, what: str) -> list[str]:
    """The command of a daemon that is killed while its environment is busy, or is forked."""
    return [sys.executable, "-c", VICTIM, str(Path(__file__).parents[2]), str(home), what]


async def unmounted(folders: Path) -> None:
    """What a killed daemon had, its helper unmounts, by itself and at once; else the next start does."""
    async with asyncio.timeout(20):
        while loops.mounts_below(folders):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_after_a_kill_the_next_start_unmounts_recovers_and_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    victim = subprocess.Popen(words(home, "busy"), stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert victim.stdout is not None
    try:
        environment = victim.stdout.readline().strip()
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        victim.stdout.close()
    folders = home / "data" / "environments"
    await unmounted(folders)
    async with world(home, numbers_from=100) as w:
        assert [one for one in loops.mounts_below(folders) if one.target != folders] == []
        async with w.environments.lease(environment, await w.interaction()) as space:
            assert (await space.run_bash("cat kept; echo on")).output == "synced\non\n"


async def test_an_environment_can_be_used_and_forked_after_a_kill_in_the_middle_of_its_being_forked(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    victim = await asyncio.create_subprocess_exec(
        *words(home, "forked"),
        stdout=subprocess.PIPE,
        env={**os.environ, TRACE: str(tmp_path / "trace"), DIE: "open:image.copy#1"},
    )
    said, _ = await asyncio.wait_for(victim.communicate(), 60)
    assert victim.returncode == -signal.SIGKILL
    # Its helper unmounts what was held still, and a file system that is unmounted frozen is frozen for good.
    environment = said.decode().strip()
    await unmounted(home / "data" / "environments")
    async with world(home, numbers_from=100) as w, asyncio.timeout(60):
        fork = await w.environments.create({"from_environment": environment})
        for one in (environment, fork.id):
            async with w.environments.lease(one, await w.interaction()) as space:
                assert (await space.run_bash("cat kept; echo on > on; cat on")).output == "synced\non\n"


async def test_an_image_that_was_frozen_when_the_daemon_was_killed_is_thawed(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    folder = tmp_path / "env_1"
    folder.mkdir()
    rooms = await disks.make("env_1", folder, 32)
    (rooms.workspace / "a").write_text("a")
    os.close(disks._disks["env_1"].held)  # pyright: ignore[reportPrivateUsage] - what the kernel does at a kill
    with loops.frozen(folder / "disk"):
        killed = Disks(tmp_path)
        assert killed.reap(whole=True) >= 1
    assert disks_below(tmp_path) == []


async def test_where_it_cannot_be_mounted_the_files_are_left_alone_and_that_is_said(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        made = await w.environments.create({"sources": [{"type": "inline", "target": "a", "content": "x"}]})
    async with world(tmp_path / "home") as w:
        w.environments._disks._why, w.environments._disks._tried = "only root may mount", True  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(SandboxUnavailable, match="only root may mount"):
            async with w.environments.lease(made.id, await w.interaction()):
                pass
        assert (w.paths.data / "environments" / made.id / "disk.img").exists()
