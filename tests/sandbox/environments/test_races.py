"""Code in the sandbox plays with what the daemon, which may be root, is doing in its workspace at that moment."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from interactd.errors import InteractdError
from sandbox.environments.kit import World

pytestmark = pytest.mark.anyio

SWAP = """
import os, sys, time
victim, end = sys.argv[1], time.monotonic() + 4
os.makedirs('real/sub', exist_ok=True)
while time.monotonic() < end and not os.path.exists('stop'):
    for make in (lambda: os.symlink(victim, 'd'), lambda: os.rename('real', 'd')):
        try: make()
        except OSError: pass
        try:
            if os.path.islink('d'): os.unlink('d')
            else: os.rename('d', 'real')
        except OSError: pass
"""


async def _while_it_swaps(w: World, victim: Path) -> tuple[int, int]:
    """Write, list and delete through a name that is a folder and a link in turn; returns how often that worked."""
    environment = await w.environments.create({})
    done = refused = 0
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.write("swap.py", SWAP.encode())

        async def swap() -> None:
            async for _ in space.exec(["python3", "swap.py", str(victim)], wall_s=10):
                pass

        swapping = asyncio.create_task(swap())
        try:
            for number in range(300):
                for act in (
                    space.write(f"d/{number}.txt", b"x"),
                    space.list("d", recursive=True),
                    space.read("d/precious"),
                    space.delete("d/sub"),
                    space.delete(f"d/{number}.txt"),
                ):
                    try:
                        await act
                        done += 1
                    except InteractdError:
                        refused += 1
        finally:
            await space.write("stop", b"")
            await swapping
        await space.capture(await w.interaction())
    return done, refused


async def test_no_swap_of_a_folder_for_a_link_leads_the_daemon_out(w: World, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "precious").write_text("host")
    (victim / "sub" / "kept").write_text("host")
    done, refused = await _while_it_swaps(w, victim)
    assert done > 0
    assert refused > 0
    assert sorted(str(path.relative_to(victim)) for path in victim.rglob("*")) == ["precious", "sub", "sub/kept"]
    assert not any(b"host" in path.read_bytes() for path in w.contents())


async def test_what_is_left_in_a_workspace_hangs_and_harms_nobody(w: World) -> None:
    """Sockets that nobody serves, pipes that nobody writes, odd names, deep links: for every tool, fork and capture."""
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.run_python(
            "import os, socket\n"
            "s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()\n"
            "os.mkfifo('pipe'); os.mkfifo('a\\nb'); open('new\\nline', 'w').write('1')\n"
            "os.symlink('loop', 'loop'); os.symlink('/proc/self/fd/0', 'magic'); os.symlink('/etc', 'etc')\n"
            "open('x', 'w').write('x'); os.link('x', 'y'); os.mkdir('z'); os.link('x', 'z/x')\n"
            "fd = os.open('.', os.O_RDONLY)\n"
            "[os.open(b'\\xff' * 250, os.O_CREAT, dir_fd=fd)]\n"
        )
        async with asyncio.timeout(20):
            for name in ("sock", "pipe", "a\nb", "loop", "magic", "etc/passwd", "x"):
                with pytest.raises(InteractdError):
                    await space.read(name)
            for name in ("sock", "pipe", "loop", "magic", "etc/passwd"):
                with pytest.raises(InteractdError):
                    await space.write(name, b"x")
            assert len(await space.search("1", ".")) == 1
            kept = [file.name for file in await space.capture(id)]
    assert "new\\nline" in kept
    assert not {"x", "y", "z/x", "sock", "pipe"} & set(kept)
    fork = await w.environments.create({"from_environment": environment.id})
    async with w.environments.lease(fork.id, await w.interaction()) as space:
        ran = await space.run_bash("echo changed > x; cat y z/x; stat -c %U x")
        # An image is copied whole, with its links; of a folder each name becomes a file of its own.
        image = (w.paths.data / "environments" / fork.id / "disk.img").exists()
        assert ran.output.split() == (["changed", "changed", "agent"] if image else ["xxagent"])
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_bash("cat x y")).output == "xx"
    for one in (fork, environment):
        await w.environments.delete(one.id)
    assert list((w.paths.data / "environments").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an image needs root")
async def test_a_writer_with_little_memory_fills_its_disk_and_is_not_killed_for_it(w: World) -> None:
    """What is written waits in memory that counts as the sandbox's, for a device in between."""
    environment = await w.environments.create({"limits": {"memory_mb": 64, "disk_mb": 300, "file_mb": 1000}})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_bash("dd if=/dev/zero of=big bs=1M count=1000 2>&1; stat -c %s big")
        assert "No space left" in ran.output, ran
        assert int(ran.output.split()[-1]) > 290 << 20
        assert (await space.run_bash("rm big; echo alive")).output == "alive\n"
