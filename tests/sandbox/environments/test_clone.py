"""Repositories as sources: cloned in a sandbox, through the proxy, from a host that was named."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from interactd.errors import InvalidArgument
from interactd.sandbox.egress.ways import NetworkWays
from sandbox.egress.parts import TestAuthority
from sandbox.environments.kit import world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not (shutil.which("git") and shutil.which("bwrap")), reason="needs git and bubblewrap"),
]
HOOK = "#!/bin/sh\necho ran > /workspace/hook-ran\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A served folder with one bare repository: a file, a tag, a later change, and hooks that must not run."""
    work = tmp_path / "work"

    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *identity, *words], cwd=work, check=True, capture_output=True)

    work.mkdir()
    git("init")
    (work / "a.txt").write_text("first")
    (work / ".gitattributes").write_text("* filter=evil\n")
    git("add", ".")
    git("commit", "-m", "one")
    git("tag", "v1")
    (work / "a.txt").write_text("second")
    git("commit", "-am", "two")
    served = tmp_path / "served"
    served.mkdir()
    git("clone", "--bare", ".", str(served / "repo.git"))
    subprocess.run(["git", "update-server-info"], cwd=served / "repo.git", check=True)
    hook = served / "repo.git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    return served


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority.make(tmp_path)


@pytest.fixture
def port(repository: Path, authority: TestAuthority) -> Iterator[int]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(repository)))
    server.socket = authority.server("git.test").wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def resolver(_host: str) -> list[str]:
    return ["127.0.0.1"]


async def test_a_repository_is_cloned_at_the_ref_that_was_asked_for(
    tmp_path: Path, port: int, authority: TestAuthority
) -> None:
    ways = NetworkWays(None, resolver=resolver, upstream=authority.trusting())
    # The address is loopback, so that it has to be listed; the header makes the proxy show its own certificate.
    rules = [{"domain": f"git.test:{port}", "transform": {"X-Test": "1"}}, f"127.0.0.1:{port}"]
    async with world(tmp_path / "home", ways=ways) as w:
        url = f"https://git.test:{port}/repo.git"
        made = await w.environments.create(
            {
                "sources": [
                    {"type": "repository", "source": url, "ref": "v1"},
                    {"type": "repository", "source": url, "target": "deep/er"},
                ],
                "network": {"allowlist": rules},
            }
        )
        async with w.environments.lease(made.id, await w.interaction()) as space:
            assert await space.read("repo/a.txt") == b"first"
            assert await space.read("deep/er/a.txt") == b"second"
            log = await space.run_bash("cd repo && git status --short && git log --oneline | wc -l; ls /workspace")
            assert log.output.split() == ["1", "deep", "repo"]
            assert await space.capture(await w.interaction()) == []
        missing = {"type": "repository", "source": url.replace("repo.git", "none.git")}
        for source in (missing, {"type": "repository", "source": url, "ref": "nope"}):
            with pytest.raises(InvalidArgument, match="could not be cloned"):
                await w.environments.create({"sources": [source], "network": {"allowlist": rules}})
        assert len(await w.environments.list()) == 1


async def test_a_repository_on_an_address_that_is_not_public_is_refused(tmp_path: Path, port: int) -> None:
    async with world(tmp_path / "home", ways=NetworkWays(None, resolver=resolver)) as w:
        with pytest.raises(InvalidArgument, match="could not be cloned"):
            await w.environments.create(
                {"sources": [{"type": "repository", "source": f"https://git.test:{port}/repo.git"}]}
            )
        assert list((w.paths.data / "environments").iterdir()) == []
