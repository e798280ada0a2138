"""Starts sandboxes with bubblewrap: once per lease, a supervisor as their first process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interactd.errors import InteractdError, SandboxFailed, SandboxUnavailable
from interactd.paths import Paths
from interactd.sandbox.launchers import install
from interactd.sandbox.launchers.bubblewrap import base, cgroups, owner, recipe, seccomp
from interactd.sandbox.launchers.bubblewrap.watch import Observer
from interactd.sandbox.launchers.settings import CA_INSIDE, PROXY_HOST, PROXY_PORT, Settings, environment
from interactd.sandbox.launchers.spawner import Spawner
from interactd.sandbox.launchers.supervised import Supervised
from interactd.sandbox.port import Capability, Egress, Exit, Isolation, Limits, Output, Sandbox, Spec

_START_S = 20.0
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


@dataclass(slots=True)
class _Pipes:
    """Descriptors of one start; whatever is left is closed at its end."""

    fds: set[int] = field(default_factory=set[int])

    def pipe(self) -> tuple[int, int]:
        pair = os.pipe()
        self.fds.update(pair)
        return pair

    def keep(self, fd: int) -> int:
        self.fds.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        for fd in fds or tuple(self.fds):
            if fd in self.fds:
                self.fds.discard(fd)
                os.close(fd)


class Bubblewrap:
    """See `Launcher`. Works as root (each environment then has its own uid) and as an ordinary user."""

    name = "bubblewrap"

    def __init__(self, paths: Paths, settings: Settings | None = None) -> None:
        self._cache = paths.data / "sandbox"
        self._settings = settings or Settings()
        self._spawner = Spawner()
        self._tools: _Tools | None = None
        self._finding = asyncio.Lock()
        self._running: set[Supervised] = set()

    async def probe(self) -> Capability:
        """See `Launcher.probe`: starts a sandbox over an empty folder and runs a command in it."""
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="interactd-probe-")
        try:
            spec = Spec("probe", Path(folder) / "ws", Path(folder) / "home", limits=Limits(wall_s=20, pids=64))
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
        pipes = _Pipes()
        undo: list[Callable[[], Awaitable[None]]] = []
        try:
            async with asyncio.timeout(_START_S):
                return await self._start(tools, spec, pipes, undo)
        except TimeoutError:
            await _unwind(undo)
            raise SandboxFailed(f"the sandbox did not start within {_START_S:.0f} s") from None
        except OSError as error:
            await _unwind(undo)
            raise SandboxFailed(f"the sandbox did not start: {error}") from error
        except BaseException:
            await asyncio.shield(_unwind(undo))
            raise
        finally:
            pipes.close()

    async def reap(self) -> int:
        """See `Launcher.reap`. Processes and mounts died with their daemon; control groups do not."""
        return await asyncio.to_thread(lambda: cgroups.reap(cgroups.find()))

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

    async def _start(
        self, tools: _Tools, spec: Spec, pipes: _Pipes, undo: list[Callable[[], Awaitable[None]]]
    ) -> Supervised:
        root = os.getuid() == 0
        uid = owner.uid_for(spec.environment_id) if root else None
        group, notes = await asyncio.to_thread(self._prepare, tools, spec, uid)
        if group is not None:
            undo.append(lambda: _in_thread(group.remove))
        stage = recipe.Stage(root)
        argv = recipe.arguments(
            tools.bwrap, spec, tools.base, tools.python, tools.supervisor, stage=stage, has_filter=bool(tools.filter)
        )
        plan: dict[str, Any] = {
            "argv": argv,
            "env": {"PATH": "/usr/bin:/bin"},
            "cwd": "/",
            "cgroups": group.folders if group else [],
            "stage": {"root": recipe.STAGE, "sources": stage.sources} if root else None,
            "rlimits": recipe.rlimits(spec.limits, memory_group=group is not None and "memory" in group.has),
            "nice": 0 if group is not None and "cpu" in group.has else 10,
            "uid": uid,
        }
        observer = Observer(spec.limits, group, (spec.workspace, spec.home), disk=True)
        isolation = self._isolation(tools, group, notes)
        ours, theirs = socket.socketpair()
        undo.append(_closer(ours))
        error, error_write = pipes.pipe()
        stderr, stderr_write = pipes.pipe()
        info, info_write = pipes.pipe()
        code = pipes.keep(seccomp.descriptor(tools.filter or b""))
        ended = asyncio.Event()
        sandbox: Supervised | None = None

        def exited(status: int) -> None:
            ended.set()
            if sandbox is not None:
                sandbox.died(status)

        plan["fds"] = [recipe.STDERR, recipe.CONTROL, recipe.FILTER, recipe.INFO]
        try:
            sent = [error_write, stderr_write, theirs.fileno(), code, info_write]
            pid, kill = await self._spawner.spawn(plan, sent, exited)
        finally:
            theirs.close()
            pipes.close(error_write, stderr_write, info_write, code)

        async def gone() -> None:
            kill()
            async with asyncio.timeout(5):
                await ended.wait()

        undo.append(gone)
        if problem := await _read(error, 4096):
            raise SandboxFailed(f"the sandbox could not be prepared: {problem.decode(errors='replace')}")
        if group is not None and not ended.is_set() and not group.holds(pid):
            raise SandboxFailed("the sandbox is not in its control group, so it would have no limits; it was ended")
        child = _child_pid(await _read(info, 4096))
        if child is None:
            raise _failure((await _read(stderr, 4096)).decode(errors="replace"))

        ca = spec.egress is not None and spec.egress.ca_file is not None
        certificates = _BUNDLE if (tools.base / _BUNDLE.lstrip("/")).exists() else None
        env = environment(spec, home=base.HOME, certificates=certificates, ca_inside=CA_INSIDE if ca else None)
        sandbox = Supervised(
            ours, isolation=isolation, limits=spec.limits, env=env, kill=_killer(child, kill, ended), watch=observer
        )
        made = sandbox
        undo[:] = [made.aclose]
        if group is not None:
            made.cleanup(lambda: _in_thread(group.remove))
        if ended.is_set():
            made.died()
        if not await _either(made.ready, made.gone):
            raise _failure((await _read(stderr, 4096)).decode(errors="replace"))
        observer.pid = child
        if spec.egress is not None:
            listener = await self._spawner.listen(child, PROXY_HOST, PROXY_PORT)
            made.cleanup(_closer(listener))
            made.own(_serve(spec.egress, listener))
        made.own(observer.run())
        self._running.add(made)
        made.cleanup(self._forget(made))
        return made

    def _prepare(self, tools: _Tools, spec: Spec, uid: int | None) -> tuple[cgroups.Group | None, list[str]]:
        if uid is not None:
            for folder in (spec.workspace, spec.home):
                owner.give(folder, uid)
        if not tools.groups.folders:
            return None, list(tools.groups.notes)
        try:
            return cgroups.Group(tools.groups, spec.limits), []
        except OSError as error:
            return None, [f"no control group ({error.strerror}): memory and cpu are watched, not enforced"]

    def _isolation(self, tools: _Tools, group: cgroups.Group | None, notes: list[str]) -> Isolation:
        has: frozenset[str] = group.has if group else frozenset()
        notes = [*notes, "the workspace's size is watched, not limited"]
        return Isolation(
            self.name,
            filesystem="enforced",
            network="enforced",
            pids="enforced",
            memory="enforced" if "memory" in has else "best_effort",
            cpu="enforced" if "cpu" in has else "best_effort",
            disk="best_effort",
            syscalls="enforced" if tools.filter else "absent",
            notes=tuple(notes),
        )

    def _forget(self, sandbox: Supervised) -> Callable[[], Awaitable[None]]:
        async def forget() -> None:
            self._running.discard(sandbox)

        return forget


def _killer(child: int, kill: Callable[[], None], ended: asyncio.Event) -> Callable[[], None]:
    """Kill the first process; bubblewrap outside of it ends when nothing is left of its namespace."""
    # A pidfd cannot hit another process that got the number meanwhile.
    try:
        fd = os.pidfd_open(child)
    except OSError:
        return kill
    state = {"fd": fd}

    def end() -> None:
        if state["fd"] < 0:
            return
        if not ended.is_set():
            try:
                import signal

                signal.pidfd_send_signal(state["fd"], signal.SIGKILL)
            except OSError:
                kill()
        os.close(state["fd"])
        state["fd"] = -1

    return end


def _failure(said: str) -> SandboxFailed | SandboxUnavailable:
    said = said.strip()[-600:] or "bubblewrap ended without a word"
    if fix := install.explain(said):
        return SandboxUnavailable(said, repair=fix)
    return SandboxFailed(said)


def _child_pid(info: bytes) -> int | None:
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError, TypeError):
        return None


async def _read(fd: int, limit: int) -> bytes:
    """Read a pipe of ours until it ends."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    found = b""
    try:
        while len(found) < limit:
            try:
                data = os.read(fd, limit - len(found))
            except BlockingIOError:
                ready.clear()
                await ready.wait()
                continue
            if not data:
                break
            found += data
    finally:
        loop.remove_reader(fd)
    return found


async def _either(good: asyncio.Event, bad: asyncio.Event) -> bool:
    waits = [asyncio.ensure_future(event.wait()) for event in (good, bad)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return good.is_set()


async def _serve(egress: Egress, listener: socket.socket) -> None:
    await egress.serve(listener)


def _closer(sock: socket.socket) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        sock.close()

    return close


async def _in_thread(work: Callable[[], object]) -> None:
    await asyncio.to_thread(work)


async def _unwind(undo: list[Callable[[], Awaitable[None]]]) -> None:
    for action in reversed(undo):
        await action()



