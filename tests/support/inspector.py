"""The official MCP Inspector as a command, installed once into the user's cache.

It needs Node >= 22. Where the machine's is older, npm's own `node` package brings one: nothing is installed outside
`~/.cache/interactd-tests` (about 250 MB), and nothing at all when npm or its registry is out of reach.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

INSPECTOR = "2.12.0"
NODE = "22.23.3"
INSTALL_S = 300
RUN_S = 90
# Read before any test gives itself another HOME: the 390 MB are fetched once, not once a test.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interactd-tests" / f"inspector-{INSPECTOR}"


def _own_node() -> str | None:
    """The machine's node, if it is new enough."""
    node = shutil.which("node")
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    major = version.strip().removeprefix("v").partition(".")[0]
    return node if major.isdecimal() and int(major) >= 22 else None


def command() -> list[str]:
    """Return the command line of the Inspector, installing it when it is not there. Skips the test where it cannot."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = _CACHE
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        # Two test runs at once must not install over each other.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _install(npm, folder)
    node = _own_node() or str(folder / "node_modules" / "node" / "bin" / "node")
    package = folder / "node_modules" / "@modelcontextprotocol" / "inspector"
    described: Any = json.loads((package / "package.json").read_text())
    return [node, str(package / described["bin"]["mcp-inspector"]), "--cli"]


def _install(npm: str, folder: Path) -> None:
    wanted = [f"@modelcontextprotocol/inspector@{INSPECTOR}", *([] if _own_node() else [f"node@{NODE}"])]
    (folder / "package.json").write_text("{}")
    try:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *wanted],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_S,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {' '.join(wanted)} within {INSTALL_S} s")
    if done.returncode:
        pytest.skip(f"npm could not install {' '.join(wanted)}: {done.stderr.strip()[-300:]}")
    (folder / "done").touch()


@dataclass(slots=True)
class Answer:
    """What one run of the Inspector said."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The result it printed."""
        assert self.out.strip(), f"exit code {self.code}: {self.err[-2000:]}"
        found: Any = json.loads(self.out)
        return found["result"]


async def inspect(*arguments: str, env: dict[str, str] | None = None) -> Answer:
    """Run the Inspector with these arguments (a server, `--method` ...)."""
    line = [*await asyncio.to_thread(command), *arguments, "--format", "json"]
    process = await asyncio.create_subprocess_exec(
        *line,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Answer(process.returncode or 0, out.decode(), err.decode(errors="replace"))
