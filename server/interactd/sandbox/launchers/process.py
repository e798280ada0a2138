"""No sandbox: a process with resource limits, for people who asked for exactly that by name."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from interactd.errors import SandboxFailed
from interactd.paths import Paths
from interactd.sandbox.launchers import boot
from interactd.sandbox.launchers.bubblewrap.base import SUPERVISOR
from interactd.sandbox.launchers.bubblewrap.recipe import rlimits
from interactd.sandbox.launchers.bubblewrap.watch import Observer, size
from interactd.sandbox.launchers.settings import PROXY_HOST, Settings, environment
from interactd.sandbox.launchers.spawner import Spawner
from interactd.sandbox.launchers.supervised import Supervised
from interactd.sandbox.port import Capability, Isolation, Sandbox, Spec

_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Process:
    """See `Launcher`. Commands see all that the daemon's user sees; `/workspace` is only where they start."""

    name = "process"

    def __init__(self, paths: Paths, settings: Settings | None = None) -> None:
        del paths, settings
        self._spawner = Spawner()
        self._running: set[Supervised] = set()

    def isolation(self) -> Isolation:
        """Return the little it has, for any sandbox of it."""
        return Isolation(
            self.name,
            filesystem="absent",
            network="absent",
            pids="best_effort",
            memory="best_effort",
            cpu="best_effort",
            disk="best_effort",
            syscalls="absent",
            notes=("no sandbox: code runs as your user, sees your files and your network",),
        )

    async def probe(self) -> Capability:
        """See `Launcher.probe`. It can always be used, and is never chosen unless named."""
        return Capability(self.name, sys.platform != "win32", self.isolation(), "resource limits only, no sandbox")

    async def start(self, spec: Spec) -> Sandbox:
        """See `Launcher.start`."""
        return await boot.starting(lambda pipes, undo: self._start(spec, pipes, undo))

    async def reap(self) -> int:
        """See `Launcher.reap`. Nothing is kept outside of the processes, and those end with the helper."""
        return 0

    async def aclose(self) -> None:
        """See `Launcher.aclose`."""
        await asyncio.gather(*(sandbox.aclose() for sandbox in list(self._running)))
        await self._spawner.aclose()

    def wrap(self, spec: Spec, argv: list[str], proxy_port: int | None) -> list[str]:
        """Return the command that runs `argv` as isolated as this launcher can."""
        del spec, proxy_port
        return argv

    async def _start(self, spec: Spec, pipes: boot.Pipes, undo: boot.Undo) -> Supervised:
        listener: socket.socket | None = None
        if spec.egress is not None:
            listener = socket.create_server((PROXY_HOST, 0))
            listener.setblocking(False)
            undo.append(boot.closer(listener))
        port = listener.getsockname()[1] if listener else None
        plan: dict[str, Any] = {
            "argv": self.wrap(spec, [sys.executable, "-I", "-S", str(SUPERVISOR), str(boot.CONTROL), "0"], port),
            "env": {"PATH": "/usr/local/bin:/usr/bin:/bin"},
            "cwd": str(spec.workspace),
            # Not the limits for the whole user, nor of address space: this user has other programs.
            "rlimits": rlimits(spec.limits, memory_group=False)[: 5 if sys.platform.startswith("linux") else 3],
        }
        looked = () if spec.quota is not None else (spec.workspace, spec.home)
        used = await asyncio.to_thread(lambda: sum(size(folder) for folder in looked))
        booted = await boot.boot(self._spawner, plan, [], pipes, undo)
        observer = Observer(spec.limits, None, (spec.workspace, spec.home), used=used, quota=spec.quota)
        observer.pid = booted.pid if Path("/proc/self").exists() else 0
        env = environment(spec, home=str(spec.home), certificates=self._bundle(spec))
        if port is not None:
            env |= {name: value.replace(":3128", f":{port}") for name, value in env.items() if "proxy" in name.lower()}
        made = Supervised(
            booted.control,
            isolation=self.isolation() if spec.quota is None else self.isolation().with_quota(),
            limits=spec.limits,
            env=env | {"TMPDIR": os.environ.get("TMPDIR", "/tmp")} | dict(spec.env),
            kill=_Ending(booted),
            watch=observer,
            translate=lambda path: _translate(path, spec),
        )
        undo[:] = [made.aclose, *([boot.closer(listener)] if listener else [])]
        booted.at_end.append(made.died)
        if booted.ended.is_set():
            made.died()
        if not await boot.either(made.ready, made.gone):
            raise SandboxFailed(f"the process did not start: {await booted.said()}")
        if spec.egress is not None and listener is not None:
            made.cleanup(boot.closer(listener))
            made.own(spec.egress.serve(listener))
        made.own(observer.run(made.over))
        self._running.add(made)
        made.cleanup(self._forgetter(made))
        return made

    def _bundle(self, spec: Spec) -> str | None:
        if spec.egress is not None and spec.egress.ca_file is not None:
            return str(spec.egress.ca_file)
        return next((path for path in _BUNDLES if Path(path).exists()), None)

    def _forgetter(self, sandbox: Supervised) -> Any:
        async def forget() -> None:
            self._running.discard(sandbox)

        return forget


class _Ending:
    """Ends the supervisor by closing its socket, so that it can end what it adopted; by force when that fails."""

    def __init__(self, booted: boot.Booted) -> None:
        self._booted = booted
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> None:
        if self._booted.ended.is_set():
            return
        if self._booted.control.fileno() >= 0:
            try:
                self._booted.control.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._booted.kill()
                return
        self._loop.call_later(1.0, self._booted.kill)


def _translate(path: str, spec: Spec) -> str:
    if path == "/workspace" or path.startswith("/workspace/"):
        return str(spec.workspace) + path[len("/workspace") :]
    return path
