"""Runs the product's own launcher as some user, told by JSON lines: `driver.py SOURCES HOME UID`.

A process of its own because one process is one user, and because a driver can be killed. With a UID it becomes that
user once everything is imported, as a daemon of that user would be.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from interactd.errors import InteractdError
from interactd.paths import find
from interactd.sandbox.launchers import Settings, all_launchers
from interactd.sandbox.port import Exit, Limits, Mount, Output, Sandbox, Spec


class Driver:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.launchers = all_launchers(find({"INTERACTD_HOME": str(home / "interactd")}), Settings())
        self.kept: dict[str, Sandbox] = {}
        self.going: list[asyncio.Task[None]] = []

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do one job: `exec` in a sandbox (new, or kept under a name), `close` a kept one, `control` without any."""
        match job["do"]:
            case "exec":
                return await self.exec(job)
            case "close":
                await self.kept.pop(job["keep"]).aclose()
                return {}
            case "begin":
                # A command that goes on until its sandbox is closed.
                self.kept[job["keep"]] = sandbox = await self.launchers[0].start(self.spec(job))
                self.going.append(asyncio.create_task(self.follow(sandbox, job["argv"])))
                return {}
            case "rest":
                return {"still": await self.kept[job["keep"]].rest()}
            case "wake":
                await self.kept[job["keep"]].wake()
                return {}
            case "reap":
                return {"reaped": await self.launchers.reap()}
            case "probe":
                return {"usable": (await self.launchers.capability(self.launchers[0])).usable}
            case "control":
                return await asyncio.to_thread(self.control, job)
            case _:
                raise ValueError(job["do"])

    async def follow(self, sandbox: Sandbox, argv: list[str]) -> None:
        async for _event in sandbox.exec(argv):
            continue

    def spec(self, job: dict[str, Any]) -> Spec:
        name = job.get("environment", "env")
        folders = [self.home / name / part for part in ("ws", "home")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(**job.get("limits", {}))
        mounts = tuple(Mount(Path(source), target) for source, target in job.get("mounts", []))
        return Spec(name, folders[0], folders[1], limits=limits, mounts=mounts, env=job.get("env", {}))

    async def exec(self, job: dict[str, Any]) -> dict[str, Any]:
        launcher = await self.launchers.choose(job.get("launcher", "bubblewrap"))
        sandbox = self.kept.get(job.get("keep", ""))
        if sandbox is None:
            sandbox = await launcher.start(self.spec(job))
        if "keep" in job:
            self.kept[job["keep"]] = sandbox
        said, ended = b"", None
        try:
            events = sandbox.exec(job["argv"], stdin=job.get("stdin", "").encode(), wall_s=job.get("wall_s"))
            async for event in events:
                if isinstance(event, Output):
                    said += event.data
                else:
                    ended = event
        finally:
            if "keep" not in job:
                await sandbox.aclose()
        assert isinstance(ended, Exit)
        facts = {name: getattr(ended, name) for name in ("code", "signal", "why", "wall_s", "cpu_s")}
        text = said[-200_000:].decode(errors="replace")
        return {"said": text, "size": len(said), **facts, "isolation": sandbox.isolation.as_dict()}

    def control(self, job: dict[str, Any]) -> dict[str, Any]:
        folder = self.home / "control"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(job["argv"], capture_output=True, cwd=folder, timeout=20, check=False)
        return {"said": (done.stdout + done.stderr).decode(errors="replace"), "code": done.returncode}


async def main() -> None:
    home = Path(sys.argv[2])
    if int(sys.argv[3]) != os.getuid():
        os.setgroups([])
        os.setresgid(*[int(sys.argv[3])] * 3)
        os.setresuid(*[int(sys.argv[3])] * 3)
    driver = Driver(home)
    print(json.dumps({"pid": os.getpid()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = await driver.run(json.loads(line))
        except InteractdError as error:
            answer = {"error": error.as_dict()}
        print(json.dumps(answer), flush=True)
    await driver.launchers.aclose()


asyncio.run(main())
