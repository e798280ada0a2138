"""Getting this machine a sandbox: what `interactd setup` and the demo do before an agent can run code."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from dataclasses import replace

from rich.console import Console

from interactd import paths
from interactd.sandbox.disks import cannot
from interactd.sandbox.launchers import all_launchers, install_command
from interactd.sandbox.port import Capability

INSTALL_S = 300
_UPDATE = {"apt-get": ["apt-get", "update", "-q"]}


def capabilities() -> list[Capability]:
    """Return what each launcher of this operating system can do here, from a run of its real recipe."""

    async def probe() -> list[Capability]:
        where = paths.find().make()
        launchers = all_launchers(where)
        try:
            quota = await asyncio.to_thread(cannot, where.data / "sandbox") is None
            found = await launchers.capabilities()
            own = [each for each in found if not each.elsewhere]
            return [replace(each, isolation=each.isolation_with(quota=quota)) for each in own]
        finally:
            await launchers.aclose()

    return asyncio.run(probe())


def best(found: list[Capability]) -> Capability | None:
    """Return the usable launcher that is preferred; plain processes do not count, they isolate nothing."""
    return next((each for each in found if each.usable and each.launcher != "process"), None)


def ensure_sandbox(console: Console) -> bool:
    """Make sure that agents can run code here, installing bubblewrap where we may; say what is missing otherwise."""
    if best(capabilities()) is not None:
        return True
    command = install_command()
    if command is not None and shutil.which("bwrap") is None and _may_run(command):
        console.print(f"Installing the sandbox: [bold]{' '.join(command)}[/]")
        if not _installed(command):
            console.print("[yellow]That did not work.[/]")
    found = capabilities()
    if best(found) is not None:
        return True
    for each in found:
        if each.launcher != "process":
            console.print(f"[yellow]{each.launcher}[/] {each.why} {each.fix or ''}".rstrip(), soft_wrap=True)
    return False


def _may_run(command: list[str]) -> bool:
    """Root may; others where sudo asks nothing, or where somebody sits who can answer it."""
    if command[0] != "sudo":
        return True
    if shutil.which("sudo") is None:
        return False
    return (
        sys.stdin.isatty() or subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


def _installed(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=False)
        bare = command[1:] if command[0] == "sudo" else command
        update = _UPDATE.get(bare[0])
        if done.returncode and update:
            # A machine that never asked its mirrors has no list to install from.
            prefix = command[:1] if command[0] == "sudo" else []
            subprocess.run([*prefix, *update], capture_output=True, timeout=INSTALL_S, check=False)
            done = subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
