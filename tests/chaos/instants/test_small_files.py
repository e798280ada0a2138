"""SIGKILL at every instant of writing credentials and tokens: the old or the new, whole, and no copy beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.instants.points import passed
from interactd.faces.http.token import load_or_create, renew
from interactd.paths import Paths, find
from interactd.sandbox.credentials.store import Credentials

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")

OLD, NEW = "ghp_the-old-secret", "ghp_the-new-secret"
NURSERY = """
import os, sys
from chaos.instants.points import arm
from interactd.faces.http.token import renew
from interactd.paths import find
from interactd.sandbox.credentials.store import Credentials

for line in sys.stdin:
    home, trace, die, secret = line.split()
    born = os.fork()
    if not born:
        os.environ |= {"INTERACTD_HOME": home, "INTERACTD_CHAOS_TRACE": trace, "INTERACTD_CHAOS_DIE": die}
        paths = find()
        arm()
        if secret == "-":
            renew(paths)
        else:
            body = {"id": "github", "type": "bearer_token", "token": secret}
            Credentials(paths, keeping="file").add(body, replacing=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(born, 0)[1]), flush=True)
"""


class Writers:
    """Processes that write a credential (or, with `-`, a token) and may die at it."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=60)

    def write(self, paths: Paths, secret: str, die: str = "nowhere#0") -> bool:
        """Let one do it to its end, or until it dies; returns whether it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        home = paths.data.parent
        self._process.stdin.write(f"{home} {home}.trace {die} {secret}\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -9)
        return code == -9

    def deaths(self, folder: Path, secret: str) -> list[str]:
        """The instants of the whole of it."""
        paths = find({"INTERACTD_HOME": str(folder / "record")}).make()
        assert not self.write(paths, secret)
        points = list(dict.fromkeys(passed(folder / "record.trace")))
        return [f"{point}#1" for point in points] + [f"{point}#1!" for point in points if point.startswith("open:")]


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with Writers() as made:
        yield made


def test_a_credential_is_the_old_or_the_new_one_and_nothing_else_holds_either(writers: Writers, tmp_path: Path) -> None:
    deaths = writers.deaths(tmp_path, NEW)
    assert len(deaths) >= 6
    for number, die in enumerate(deaths):
        paths = find({"INTERACTD_HOME": str(tmp_path / f"home{number}")}).make()
        keep = Credentials(paths, keeping="file")
        keep.add({"id": "github", "type": "bearer_token", "token": OLD})
        assert writers.write(paths, NEW, die), die
        assert keep.secret("github").reveal() in (OLD, NEW), die
        # As the daemon does when it starts.
        keep.tidy()
        beside = {path.name for path in paths.data.iterdir()} - {"credentials.json", "credentials.lock"}
        assert beside == set(), f"{die}: a draft with secrets is left"
        keep.remove("github")
        left = [path for path in paths.data.rglob("*") if path.is_file() and b"ghp_" in path.read_bytes()]
        assert left == [], die


def test_a_token_is_the_old_or_the_new_one_and_its_draft_does_not_stay(writers: Writers, tmp_path: Path) -> None:
    deaths = writers.deaths(tmp_path, "-")
    assert len(deaths) >= 4
    for number, die in enumerate(deaths):
        paths = find({"INTERACTD_HOME": str(tmp_path / f"home{number}")}).make()
        old = load_or_create(paths)
        assert writers.write(paths, "-", die), die
        assert len(load_or_create(paths)) == len(old), die
        for draft in paths.token_file.parent.glob(".token.*"):
            # So that it is no draft that somebody is writing.
            os.utime(draft, (0, time.time() - 3600))
        renew(paths)
        assert {path.name for path in paths.token_file.parent.iterdir()} == {"token"}, die
