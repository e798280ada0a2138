"""An ordinary user's environments: no root, no control groups, the same promises."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import interactd

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("bwrap") is None, reason="an ordinary user runs the other tests already"
)
UID = 54322

SCRIPT = """
import asyncio, os, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
sys.path.append(sys.argv[4])
from sandbox.environments.kit import processes_over, world

async def main():
    home = Path(sys.argv[3])
    async with world(home) as w:
        made = await w.environments.create({"sources": [{"type": "inline", "target": "in.txt", "content": "in"}]})
        id = await w.interaction()
        async with w.environments.lease(made.id, id) as space:
            ran = await space.run_python("x = open('in.txt').read()\\nopen('out.txt', 'w').write(x * 2)\\nx")
            assert ran.output == "'in'\\n", ran
            assert (await space.run_bash("id -u; echo $HOME")).output == "1000\\n/home/agent\\n"
            await space.write("d/e.txt", b"host")
            assert (await space.run_bash("cat d/e.txt; echo more >> d/e.txt; chmod 000 d")).output == "host"
            stopped = await space.run_python("import time; time.sleep(60)", wall_s=0.3)
            assert stopped.exit.why == "timeout" and (await space.run_python("x")).output == "'in'\\n"
            kept = [file.name for file in await space.capture(id)]
            print(space.isolation.label, kept)
            await space.run_bash("chmod 700 d")
        fork = await w.environments.create({"from_environment": made.id})
        async with w.environments.lease(fork.id, await w.interaction()) as space:
            assert (await space.run_bash("cat d/e.txt")).output == "hostmore\\n"
            await space.run_bash("mkdir -p a/b; touch a/b/c; chmod 000 a/b a")
        for one in (made, fork):
            await w.environments.delete(one.id)
        assert list((w.paths.data / "environments").iterdir()) == []
    assert processes_over(home) == []
    print("done", os.getuid())

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below pytest's own folder, which no other user may enter.
    made = Path(tempfile.mkdtemp(prefix="interactd-user-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_an_ordinary_user_makes_uses_forks_and_deletes_environments(folder: Path) -> None:
    shutil.copytree(Path(interactd.__path__[0]), folder / "sources" / "interactd")
    shutil.copytree(Path(__file__).parents[2] / "sandbox", folder / "tests" / "sandbox")
    (folder / "home").mkdir()
    os.chown(folder / "home", UID, UID)
    packages = sysconfig.get_paths()["purelib"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = shutil.which(version, path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip(f"no {version} that another user may run")
    arguments = [str(folder / "sources"), str(folder / "tests"), str(folder / "home"), packages]
    done = subprocess.run(
        [python, "-B", "-c", SCRIPT, *arguments],
        user=UID,
        group=UID,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "No module named" in done.stderr:
        pytest.skip("that Python may not read this one's packages")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith(f"done {UID}\n"), done.stdout
