"""A container engine (docker or podman) as launcher: a container per sandbox, `exec` per command.

Pick it where tenants do not trust each other and the engine has a stronger runtime (gVisor, Kata). The container's main
process (`inside/resident.py`) reads a pipe of ours and ends with it, so a killed daemon leaves no container behind. No
container has a network: the one way out is a socket of the proxy's in a folder that is mounted into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path

from interactd.errors import InteractdError, SandboxFailed, SandboxUnavailable
from interactd.paths import Paths
from interactd.sandbox.launchers.bubblewrap import owner
from interactd.sandbox.launchers.bubblewrap.base import HOME, SUPERVISOR
from interactd.sandbox.launchers.settings import CA_INSIDE, PROXY_PORT, Settings, environment
from interactd.sandbox.port import UNLIMITED, Capability, Egress, Exit, Isolation, Limits, Output, Sandbox, Spec, Why

_RUN = "/run/interactd"
_INSIDE, _RESIDENT, _WAY, _SOCKET = f"{_RUN}/supervisor.py", f"{_RUN}/resident.py", f"{_RUN}/way", "proxy"
_LABEL = "interactd.sandbox"
_START_S = 60.0
_NPROC = 32768
_REMOVED_S = 5.0


def run_arguments(
    engine: str, settings: Settings, spec: Spec, name: str, *, uid: int, gid: int, way: Path | None = None
) -> list[str]:
    """Return the argv that starts a sandbox's container.

    Args:
        way: the folder of the proxy's socket, for a sandbox that has a network.
    """
    limits = spec.limits
    tmpfs = f"rw,nosuid,nodev,mode=1777,size={max(1, limits.memory_mb // 2)}m"
    args = [engine, "run", "--rm", "-i", "--init", "--pull", "never", "--name", name, "--label", _LABEL]
    args += ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    args += ["--ipc", "private", "--hostname", "sandbox", "--user", f"{uid}:{gid}"]
    args += ["--memory", f"{limits.memory_mb}m", "--memory-swap", f"{limits.memory_mb}m"]
    args += ["--pids-limit", str(limits.pids), "--cpus", f"{limits.cpu:g}"]
    args += ["--ulimit", f"nofile={limits.open_files}", "--ulimit", "core=0"]
    args += ["--ulimit", f"fsize={limits.file_mb << 20}", "--ulimit", f"cpu={max(1, int(limits.cpu_s))}"]
    # Of the whole user, so it is no limit of the sandbox's; the engine's own default can be more than it may give.
    args += ["--ulimit", f"nproc={_NPROC}:{_NPROC}"]
    args += ["--tmpfs", f"/tmp:{tmpfs}", "--workdir", "/workspace"]
    args += ["--runtime", settings.runtime] if settings.runtime else []
    mounts = [(spec.workspace, "/workspace", False), (spec.home, HOME, False), (SUPERVISOR, _INSIDE, True)]
    mounts.append((SUPERVISOR.with_name("resident.py"), _RESIDENT, True))
    relay: list[str] = []
    if way is not None:
        mounts.append((way, _WAY, True))
        relay = [str(PROXY_PORT), f"{_WAY}/{_SOCKET}"]
    if spec.egress is not None and spec.egress.ca_file is not None:
        mounts.append((spec.egress.ca_file, CA_INSIDE, True))
    mounts += [(mount.source, mount.target, mount.read_only) for mount in spec.mounts]
    for source, target, read_only in mounts:
        args += ["--mount", f"type=bind,source={source},target={target}{',readonly' if read_only else ''}"]
    return [*args, settings.image, "python3", "-I", "-S", _RESIDENT, *relay]


def exec_arguments(
    engine: str, name: str, token: str, argv: Sequence[str], cwd: str, env: Mapping[str, str]
) -> list[str]:
    """Return the argv that runs a command in a container under a guard that ends its whole tree."""
    args = [engine, "exec", "-i", "--workdir", cwd]
    for key, value in env.items():
        args += ["--env", f"{key}={value}"]
    return [*args, name, "python3", "-I", "-S", _INSIDE, "--guard", token, *argv]


class Container:
    """See `Launcher`."""

    name = "container"

    def __init__(self, paths: Paths, settings: Settings | None = None) -> None:
        del paths
        self._settings = settings or Settings()
        self._running: set[_Containered] = set()

    async def probe(self) -> Capability:
        """See `Launcher.probe`: starts a container and runs a command in it."""
        try:
            engine = self._engine()
            await self._look(engine)
        except InteractdError as error:
            return Capability(self.name, False, None, error.message, error.repair)
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="interactd-probe-")
        try:
            spec = Spec("probe", Path(folder) / "ws", Path(folder) / "home", limits=Limits(wall_s=30))
            for path in (spec.workspace, spec.home):
                path.mkdir()
            sandbox = await self.start(spec)
            try:
                said = [event async for event in sandbox.exec(["sh", "-c", "echo x > /workspace/x"])]
            finally:
                await sandbox.aclose()
            last = said[-1] if said else None
            if not isinstance(last, Exit) or last.code != 0:
                raise SandboxFailed(f"a command in a container did not work: {said}"[:500])
            return Capability(self.name, True, sandbox.isolation, f"{engine} works with {self._settings.image}")
        except InteractdError as error:
            return Capability(self.name, False, None, error.message, error.repair)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def start(self, spec: Spec) -> Sandbox:
        """See `Launcher.start`."""
        engine = self._engine()
        name = f"interactd-{os.getpid()}-{secrets.token_hex(6)}"
        uid, gid = os.getuid(), os.getgid()
        if uid == 0:
            # Nobody else's on this machine, as with bubblewrap.
            uid = gid = owner.uid_for(spec.environment_id)
            for folder in (spec.workspace, spec.home):
                if folder.stat().st_uid != uid:
                    await asyncio.to_thread(owner.give, folder, uid)
        way = await asyncio.to_thread(_Way) if spec.egress is not None else None
        argv = run_arguments(
            engine, self._settings, spec, name, uid=uid, gid=gid, way=way.folder if way is not None else None
        )
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        except BaseException:
            if way is not None:
                await asyncio.to_thread(way.remove)
            raise
        made = _Containered(engine, name, process, spec, way)
        self._running.add(made)
        made.closed = lambda: self._running.discard(made)
        try:
            await made.wait_until_up()
        except BaseException:
            await made.aclose()
            raise
        return made

    async def reap(self) -> int:
        """See `Launcher.reap`."""
        engine = shutil.which(self._settings.engine or "docker") or shutil.which("podman")
        if engine is None:
            return 0
        code, said = await _call([engine, "ps", "-aq", "--filter", f"label={_LABEL}", "--format", "{{.Names}}"])
        dead = [name for name in said.split() if code == 0 and not _alive(name)]
        for name in dead:
            await _call([engine, "rm", "-f", name])
        return len(dead)

    async def aclose(self) -> None:
        """See `Launcher.aclose`."""
        for sandbox in list(self._running):
            await sandbox.aclose()

    def _engine(self) -> str:
        names = [self._settings.engine] if self._settings.engine else ["docker", "podman"]
        for name in names:
            if found := shutil.which(name):
                return found
        raise SandboxUnavailable(
            f"neither {' nor '.join(names)} is installed",
            repair="Install docker or podman, e.g. `apt-get install podman`.",
        )

    async def _look(self, engine: str) -> None:
        code, said = await _call([engine, "info", "--format", "{{json .}}"])
        if code != 0 or "Cannot connect" in said:
            said = said or "it said nothing"
            raise SandboxUnavailable(
                f"{engine} is installed but its engine does not answer: {said.strip().splitlines()[-1][-300:]}",
                repair="Start it, e.g. `sudo systemctl start docker`, and see that your user may use it.",
            )
        code, _said = await _call([engine, "image", "inspect", self._settings.image])
        if code != 0:
            raise SandboxUnavailable(
                f"the image {self._settings.image} is not on this machine",
                repair=f"Run `{Path(engine).name} pull {self._settings.image}`.",
            )


class _Containered:
    """A running container. Hashable by identity."""

    def __init__(
        self, engine: str, name: str, process: asyncio.subprocess.Process, spec: Spec, way: _Way | None
    ) -> None:
        self._engine, self._name, self._process, self._spec, self._way = engine, name, process, spec, way
        ca = spec.egress is not None and spec.egress.ca_file is not None
        self._env = environment(spec, home=HOME, certificates=None, ca_inside=CA_INSIDE if ca else None)
        self._serving: asyncio.Future[None] | None = None
        if way is not None and spec.egress is not None:
            self._serving = asyncio.ensure_future(_served(spec.egress, way.listener))
        self._closing = self._resting = False
        self._execs: set[asyncio.subprocess.Process] = set()
        self.closed = lambda: None
        found = Isolation(
            "container",
            filesystem="enforced",
            network="enforced",
            pids="enforced",
            memory="enforced",
            cpu="enforced",
            disk="absent",
            # The engine's own filter: it lets through more than ours (vsock, keyctl, set-uid modes).
            syscalls="best_effort",
            notes=("the engine's default system call filter", UNLIMITED),
        )
        self.isolation = found if spec.quota is None else found.with_quota()

    async def wait_until_up(self) -> None:
        """Wait until a command can run in it.

        Raises:
            SandboxFailed: it ended, or was not up in a minute.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            async with asyncio.timeout(_START_S):
                if await self._process.stdout.readline() == b"ready\n":
                    return
                said = (await self._process.stderr.read(2000)).decode(errors="replace")
        except TimeoutError:
            raise SandboxFailed(f"the container was not up within {_START_S:.0f} s") from None
        raise SandboxFailed(f"the container did not start: {said.strip()[-400:]}")

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | AsyncIterable[bytes] = b"",
        cwd: str = "/workspace",
        env: Mapping[str, str] | None = None,
        wall_s: float | None = None,
        output_bytes: int | None = None,
    ) -> AsyncIterator[Output | Exit]:
        """See `Sandbox.exec`."""
        token, began = secrets.token_hex(8), time.monotonic()
        line = exec_arguments(self._engine, self._name, token, argv, cwd, {**self._env, **(env or {})})
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*line, stdin=pipe, stdout=pipe, stderr=pipe)
        self._execs.add(process)
        queue: asyncio.Queue[Output | None] = asyncio.Queue(4)
        tasks = [asyncio.create_task(_feed(process, stdin))]
        tasks += [asyncio.create_task(_pump(process, stream, queue)) for stream in ("stdout", "stderr")]
        limits, printed, why, left = self._spec.limits, 0, "exit", 2
        most = limits.output_bytes if output_bytes is None else output_bytes
        try:
            async with asyncio.timeout(limits.wall_s if wall_s is None else wall_s):
                while left:
                    output = await queue.get()
                    if output is None:
                        left -= 1
                        continue
                    room = most - printed
                    printed += len(output.data)
                    yield output if len(output.data) <= room else Output(output.stream, output.data[: max(0, room)])
                    if len(output.data) > room:
                        why = "output"
                        break
                if why == "exit":
                    await process.wait()
        except TimeoutError:
            why = "timeout"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if process.returncode is None:
                await asyncio.shield(self._end(process, token))
            self._execs.discard(process)
        wall = time.monotonic() - began
        yield _exit(process.returncode, "cancelled" if self._closing else why, wall, limits.cpu_s)

    async def _end(self, process: asyncio.subprocess.Process, token: str) -> None:
        await self.wake()  # nothing is run in a container that is paused
        code, _said = await _call([self._engine, "exec", self._name, "python3", "-I", "-S", _INSIDE, "--end", token])
        if code != 0:
            await _call([self._engine, "kill", self._name])
        await _stop(process)

    async def rest(self) -> bool:
        """See `Sandbox.rest`."""
        self._resting = True
        code, _said = await _call([self._engine, "pause", self._name])
        return code == 0

    async def wake(self) -> None:
        """See `Sandbox.wake`."""
        if self._resting:
            await _call([self._engine, "unpause", self._name])
            self._resting = False

    async def aclose(self) -> None:
        """See `Sandbox.aclose`."""
        await self.wake()  # an engine may refuse to kill what is paused
        self._closing = True
        await _call([self._engine, "kill", self._name])
        for process in self._execs:
            # Whoever reads its output sees its end, and waits for it.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # The engine removes it when its client sees the end. One that was ended before that leaves it to us.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REMOVED_S):
                await _ended(self._process)
        if self._process.returncode is None:
            await _stop(self._process)
            await _call([self._engine, "rm", "-f", self._name])
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._way is not None:
            await asyncio.to_thread(self._way.remove)
        self.closed()


class _Way:
    """A folder with a listening socket: whoever has it mounted reaches this sandbox's proxy, and nobody else does."""

    def __init__(self) -> None:
        # The outer one keeps other users of this machine out; the inner one is what the container sees.
        self._outer = Path(tempfile.mkdtemp(prefix="interactd-way-"))
        self.folder = self._outer / "way"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        path = self.folder / _SOCKET
        self.listener.bind(str(path))
        path.chmod(0o666)
        self.listener.listen(64)

    def remove(self) -> None:
        self.listener.close()
        shutil.rmtree(self._outer, ignore_errors=True)


async def _served(egress: Egress, listener: socket.socket) -> None:
    await egress.serve(listener)


def _exit(code: int | None, why: str, wall_s: float, cpu_s: float) -> Exit:
    known: dict[str, Why] = {"timeout": "timeout", "output": "output", "cancelled": "cancelled"}
    if why in known:
        return Exit(None, 9, known[why], wall_s)
    if code is not None and 128 < code < 193:
        # The engine reports a signal as 128 + number. A kill that we did not do is the memory limit's, or that of
        # processor time, which a command cannot have used up in less time than that.
        number = code - 128
        by_signal: dict[int, Why] = {signal.SIGXCPU: "cpu", signal.SIGXFSZ: "disk", signal.SIGKILL: "memory"}
        if number == signal.SIGKILL and wall_s >= cpu_s:
            return Exit(None, number, "cpu", wall_s)
        return Exit(None, number, by_signal.get(number, "exit"), wall_s)
    return Exit(code, None, "exit", wall_s)


async def _feed(process: asyncio.subprocess.Process, stdin: bytes | AsyncIterable[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        if isinstance(stdin, bytes):
            process.stdin.write(stdin)
        else:
            async for data in stdin:
                process.stdin.write(data)
                await process.stdin.drain()
        process.stdin.close()


async def _pump(process: asyncio.subprocess.Process, stream: str, queue: asyncio.Queue[Output | None]) -> None:
    reader = process.stdout if stream == "stdout" else process.stderr
    assert reader is not None
    while data := await reader.read(65536):
        await queue.put(Output("stdout" if stream == "stdout" else "stderr", data))
    await queue.put(None)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    # Read to the end: a process whose output waits here unread is never seen to have ended.
    await asyncio.gather(*(_drained(stream) for stream in (process.stdout, process.stderr)), process.wait())


async def _drained(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(65536):
        continue


async def _call(argv: list[str]) -> tuple[int, str]:
    """Run an engine command, bounded; returns its code and what it said."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        return 127, str(error)
    try:
        async with asyncio.timeout(20):
            said, _none = await process.communicate()
    except TimeoutError:
        await _stop(process)
        return 124, "no answer within 20 s"
    return process.returncode or 0, said.decode(errors="replace")


def _alive(name: str) -> bool:
    try:
        os.kill(int(name.split("-")[1]), 0)
    except (ValueError, IndexError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
