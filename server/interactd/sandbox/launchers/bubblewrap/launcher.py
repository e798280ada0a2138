"""Starts sandboxes with bubblewrap: once per lease, a supervisor as their first process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interactd.errors import InteractdError, SandboxFailed, SandboxUnavailable
from interactd.paths import Paths
from interactd.sandbox.launchers import boot, install
from interactd.sandbox.launchers.bubblewrap import base, cgroups, owner, probing, recipe, seccomp, stillness
from interactd.sandbox.launchers.bubblewrap.watch import Observer, size
from interactd.sandbox.launchers.settings import CA_INSIDE, PROXY_HOST, PROXY_PORT, Settings, environment
from interactd.sandbox.launchers.spawner import Spawner
from interactd.sandbox.launchers.supervised import Supervised
from interactd.sandbox.port import WATCHED, Capability, Exit, Isolation, Limits, Output, Sandbox, Spec

_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class _Tools:
    """What was found on this machine, once."""

    bwrap: recipe.Bwrap
    python: base.Python
    base: Path
    supervisor: str
    groups: cgroups.Found
    filter: bytes | None


class Bubblewrap:
    """See `Launcher`. Works as root (each environment then has its own uid) and as an ordinary user."""

    name = "bubblewrap"

    def __init__(self, paths: Paths, settings: Settings | None = None) -> None:
        self._cache = paths.data / "sandbox"
        self._settings = settings or Settings()
        self._spawner = Spawner(paths.data / "environments")
        self._tools: _Tools | None = None
        self._finding = asyncio.Lock()
        self._running: set[Supervised] = set()

    async def probe(self) -> Capability:
        """See `Launcher.probe`: starts a sandbox over an empty folder and runs a command in it."""
        if not sys.platform.startswith("linux"):
            return Capability(self.name, False, None, "bubblewrap exists on Linux only", elsewhere=True)
        try:
            folder = await asyncio.to_thread(probing.folder, self._cache)
        except OSError as error:
            return Capability(self.name, False, None, f"{self._cache} cannot be written: {error}")
        try:
            spec = Spec("probe", folder / "ws", folder / "home", limits=Limits(wall_s=20, pids=64))
            for path in (spec.workspace, spec.home):
                path.mkdir()
            sandbox = await self.start(spec)
            try:
                said = b""
                ended: Exit | None = None
                async for event in sandbox.exec(["/bin/sh", "-c", "echo inside > /workspace/x && cat /workspace/x"]):
                    if isinstance(event, Output):
                        said += event.data
                    else:
                        ended = event
            finally:
                await sandbox.aclose()
            if ended is None or ended.code != 0 or said != b"inside\n":
                raise SandboxFailed(f"a command in it did not work: {said[:300].decode(errors='replace')!r}, {ended}")
            return Capability(self.name, True, sandbox.isolation, f"{self._version()} works")
        except InteractdError as error:
            return Capability(self.name, False, None, error.message, error.repair)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def start(self, spec: Spec) -> Sandbox:
        """See `Launcher.start`."""
        tools = await self._find()
        recipe.check_mounts(spec)
        try:
            return await boot.starting(lambda pipes, undo: self._start(tools, spec, pipes, undo))
        except _NoGroup as error:
            # As if none could be made here: then other limits are set from the beginning.
            note = f"no control group ({error}): memory and cpu are watched, not enforced"
            weaker = replace(tools, groups=cgroups.Found(0, notes=(note,)))
            return await boot.starting(lambda pipes, undo: self._start(weaker, spec, pipes, undo))

    def attend(self) -> None:
        """Start the helper, on the running loop, if it is not there; it unmounts what a killed daemon left mounted."""
        self._spawner.attend()

    async def reap(self) -> int:
        """See `Launcher.reap`. Processes and mounts died with their daemon; control groups and files do not."""
        return await asyncio.to_thread(lambda: cgroups.reap(cgroups.find()) + probing.reap(self._cache))

    async def aclose(self) -> None:
        """See `Launcher.aclose`."""
        await asyncio.gather(*(sandbox.aclose() for sandbox in list(self._running)))
        await self._spawner.aclose()

    # -- what is here ------------------------------------------------------------------------------------------------

    def _version(self) -> str:
        return self._tools.bwrap.version if self._tools else self.name

    async def _find(self) -> _Tools:
        async with self._finding:
            if self._tools is None or not self._tools.base.is_dir():
                self._tools = await asyncio.to_thread(self._look)
            return self._tools

    def _look(self) -> _Tools:
        path = shutil.which("bwrap", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin:/bin")
        bwrap = recipe.inspect(path) if path else None
        if bwrap is None or "--as-pid-1" not in bwrap.flags:
            raise SandboxUnavailable("bubblewrap is not installed", repair=install.sentence())
        code = seccomp.program()
        python = base.find_python(self._settings.python)
        try:
            folder = base.build(self._cache, python)
        except OSError as error:
            raise SandboxUnavailable(f"{self._cache} cannot be written: {error}") from error
        found = cgroups.find() if self._settings.cgroups else cgroups.Found(0, notes=("control groups are off",))
        return _Tools(bwrap, python, folder, base.supervisor_inside(folder), found, code)

    # -- one start ---------------------------------------------------------------------------------------------------

    async def _start(self, tools: _Tools, spec: Spec, pipes: boot.Pipes, undo: boot.Undo) -> Supervised:
        uid = owner.uid_for(spec.environment_id) if os.getuid() == 0 else None
        group, used = await asyncio.to_thread(self._prepare, tools, spec, uid)
        if group is not None:
            undo.append(lambda: boot.in_thread(group.remove))
        plan = self._plan(tools, spec, uid, group)
        info, info_write = pipes.pipe()
        code = pipes.keep(seccomp.descriptor(tools.filter or b""))
        booted = await boot.boot(self._spawner, plan, [code, info_write], pipes, undo)
        child = _child_pid(await boot.read_pipe(info, 4096))
        if child is None:
            raise _failure(await booted.said())
        # While it mounts and its Python starts: nothing but the supervisor runs in it before the first command.
        joining = asyncio.ensure_future(asyncio.to_thread(_join, group, booted.pid, child))
        undo.append(lambda: _settled(joining))

        observer = Observer(spec.limits, group, (spec.workspace, spec.home), used=used, quota=spec.quota, own_tmp=True)
        observer.pid = child
        ca = spec.egress is not None and spec.egress.ca_file is not None
        certificates = _BUNDLE if (tools.base / _BUNDLE.lstrip("/")).exists() else None
        kill = boot.Killer(child, booted.kill)
        made = Supervised(
            booted.control,
            isolation=self._isolation(tools, quota=spec.quota is not None),
            limits=spec.limits,
            env=environment(spec, home=base.HOME, certificates=certificates, ca_inside=CA_INSIDE if ca else None),
            kill=kill,
            watch=observer,
            still=lambda on: stillness.hold(child) if on else stillness.release(child) is None,
        )
        undo[:] = [made.aclose, lambda: _settled(joining)]
        made.cleanup(self._after(made, kill, booted, group))
        booted.at_end.append(made.died)
        if booted.ended.is_set():
            made.died()
        if not await boot.either(made.ready, made.gone):
            raise _failure(await booted.said())
        if not await joining:
            raise SandboxFailed("the sandbox is not in its control group, so it would have no limits; it was ended")
        if spec.egress is not None:
            listener = await self._spawner.listen(child, PROXY_HOST, PROXY_PORT)
            made.cleanup(boot.closer(listener))
            made.own(spec.egress.serve(listener))
        made.own(observer.run(made.over))
        self._running.add(made)
        return made

    def _plan(self, tools: _Tools, spec: Spec, uid: int | None, group: cgroups.Group | None) -> dict[str, Any]:
        has = tools.groups.has
        stage = recipe.Stage(uid is not None)
        argv = recipe.arguments(
            tools.bwrap, spec, tools.base, tools.python, tools.supervisor, stage=stage, has_filter=bool(tools.filter)
        )
        return {
            "argv": argv,
            "env": {"PATH": "/usr/bin:/bin"},  # never ours: /proc/1/environ shows it inside
            "cwd": "/",
            "join": group.files if group is not None else [],
            "stage": {"root": recipe.STAGE, "sources": stage.sources} if stage.on else None,
            "rlimits": recipe.rlimits(spec.limits, memory_group="memory" in has),
            "nice": 0 if "cpu" in has else 10,
            "uid": uid,
        }

    def _prepare(self, tools: _Tools, spec: Spec, uid: int | None) -> tuple[cgroups.Group | None, int]:
        if uid is not None:
            for folder in (spec.workspace, spec.home):
                if folder.stat().st_uid != uid:  # else everything in it is theirs too, and may be very much
                    owner.give(folder, uid)
        recipe.check_targets(spec)
        used = 0 if spec.quota is not None else size(spec.workspace) + size(spec.home)
        if not tools.groups.folders:
            return None, used
        try:
            return cgroups.Group(tools.groups, spec.limits), used
        except OSError as error:
            raise _NoGroup(error.strerror or str(error)) from error

    def _isolation(self, tools: _Tools, *, quota: bool) -> Isolation:
        has = tools.groups.has
        notes = tools.groups.notes if quota else (*tools.groups.notes, WATCHED)
        return Isolation(
            self.name,
            filesystem="enforced",
            network="enforced",
            pids="enforced",
            memory="enforced" if "memory" in has else "best_effort",
            cpu="enforced" if "cpu" in has else "best_effort",
            disk="enforced" if quota else "best_effort",
            syscalls="enforced" if tools.filter else "absent",
            notes=notes,
        )

    def _after(
        self, sandbox: Supervised, kill: boot.Killer, booted: boot.Booted, group: cgroups.Group | None
    ) -> Callable[[], Awaitable[None]]:
        async def after() -> None:
            self._running.discard(sandbox)
            kill.close()
            booted.kill()
            if group is not None:
                await asyncio.to_thread(group.remove)

        return after


class _NoGroup(Exception):
    """A control group cannot be made although it looked so; says why."""


def _failure(said: str) -> SandboxFailed | SandboxUnavailable:
    said = said or "bubblewrap ended without a word"
    if fix := install.explain(said):
        return SandboxUnavailable(said, repair=fix)
    return SandboxFailed(said)


def _join(group: cgroups.Group | None, outside: int, child: int) -> bool:
    """Put the sandbox's first process into its group and see that it is there. Blocking."""
    if group is None:
        return True
    if cgroups.parent_of(child) != outside:  # it ended, and the number may be another's
        return False
    if not group.files:
        group.join(child)
    return group.holds(child)


async def _settled(joining: asyncio.Future[bool]) -> None:
    await asyncio.gather(joining, return_exceptions=True)


def _child_pid(info: bytes) -> int | None:
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError, TypeError):
        return None
