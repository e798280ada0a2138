"""An environment in the hands of one run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from interactd.errors import InteractdError, InvalidArgument, NotFound, SandboxFailed, StorageFull
from interactd.nouns import Json
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.environments.output import Capped
from interactd.sandbox.environments.place import Place, Wanted, close
from interactd.sandbox.environments.searching import SCRIPT
from interactd.sandbox.environments.ways import Way
from interactd.sandbox.environments_port import Artifact, Environment, Ran
from interactd.sandbox.folder import sweep
from interactd.sandbox.folder.files import Folder
from interactd.sandbox.port import Exit, Isolation, Output

log = logging.getLogger(__name__)
T = TypeVar("T")
SEARCH_S: Final = 20.0
SEARCH_BYTES: Final = 4 << 20
MEASURED_FOR_S: Final = 2.0
_LONG_ARGUMENT: Final = 100_000


class LeasedWorkspace:
    """See `Workspace`. Made by `LocalEnvironments.lease`; `over` ends it."""

    def __init__(
        self,
        environment: Environment,
        place: Place,
        wanted: Wanted,
        isolation: Isolation,
        *,
        open_way: Callable[[], Any],
        capture: Callable[[str], Any],
        requires: Callable[[Isolation], None],
    ) -> None:
        self.environment = environment
        self.left_out: list[Json] = []
        """What the last capture did not keep: `{"reason", "count", "names"}`."""
        self._place = place
        self._wanted = wanted
        self._expected = isolation
        self._open_way = open_way
        self._capture = capture
        self._requires = requires
        self.requests = RequestLog()
        self._began = time.time()
        self._over = False
        self._folders: list[Folder] = []
        self._ways: list[Way] = []
        self._used = (-MEASURED_FOR_S, 0)
        self._warming: asyncio.Task[None] | None = None

    @property
    def isolation(self) -> Isolation:
        """What the sandbox has; before it was started, what its launcher's probe found."""
        sandbox = self._place.sandbox
        return self._expected if sandbox is None else sandbox.isolation

    def warm(self) -> None:
        if self._warming is None:
            self._warming = asyncio.create_task(self._warm(), name=f"warming {self._place.id}")

    async def _warm(self) -> None:
        try:
            async with self._place.python(self._start, idle=True):
                return
        except (InteractdError, OSError) as error:
            # Whoever runs code meets it again, and is told.
            log.info("the sandbox of %s could not be started ahead: %s", self._place.id, error)

    # -- code --------------------------------------------------------------------------------------------------------
    async def run_python(
        self, code: str, *, wall_s: float | None = None, on_output: Callable[[bytes], None] | None = None
    ) -> Ran:
        self._check()
        limits = self._wanted.limits
        async with self._place.python(self._start) as (kernel, lost):
            ran = await kernel.run(
                code,
                wall_s=limits.wall_s if wall_s is None else wall_s,
                output_bytes=limits.output_bytes,
                on_output=on_output,
            )
        self._see_disk()
        return Ran(ran.output, ran.exit, ran.truncated, lost)

    async def run_bash(
        self, code: str, *, wall_s: float | None = None, on_output: Callable[[bytes], None] | None = None
    ) -> Ran:
        if "\0" in code:
            raise InvalidArgument("code: bash code cannot hold a NUL character", field="code")
        argv, stdin = ["bash", "-c", code], b""
        if len(code) > _LONG_ARGUMENT:
            argv, stdin = ["bash", "-c", 'eval "$(cat)"'], code.encode(errors="surrogateescape")
        output = Capped()
        last: Exit | None = None
        stream = self.exec(argv, stdin=stdin, wall_s=wall_s)
        try:
            async for item in stream:
                if isinstance(item, Exit):
                    last = item
                    continue
                output.add(item.data)
                if on_output is not None:
                    on_output(item.data)
        finally:
            await close(stream)
        return Ran(output.text(), last or Exit(None, 9, "sandbox_died", 0.0), output.truncated)

    async def exec(
        self, argv: list[str], *, stdin: bytes = b"", wall_s: float | None = None
    ) -> AsyncIterator[Output | Exit]:
        self._check()
        stream = self._place.commands(argv, self._start, stdin=stdin, wall_s=wall_s)
        try:
            async for item in stream:
                yield item
        finally:
            self._place.touch()
            await close(stream)
        self._see_disk()

    # -- files -------------------------------------------------------------------------------------------------------
    async def read(self, path: str, *, offset: int = 0, limit: int = 1_000_000) -> bytes:
        return await self._on(path, lambda folder: folder.read(path, offset, limit))

    async def write(self, path: str, data: bytes) -> None:
        await self._room_for(len(data))
        await self._on(path, lambda folder: folder.write(path, data))
        at, used = self._used
        self._used = at, used + len(data)

    async def delete(self, path: str) -> None:
        await self._on(path, lambda folder: folder.delete(path))

    async def list(self, path: str = ".", *, recursive: bool = False, limit: int = 1000) -> list[Json]:
        found = await self._on(path, lambda folder: folder.list(path, recursive=recursive, limit=limit))
        if recursive:
            # What is mounted is not beneath the workspace on this side.
            for mounted in self._folders[1:]:
                if len(found) < limit and _stands_at(mounted.base, _whole(path)) and mounted.base != _whole(path):
                    room = limit - len(found)
                    found += await asyncio.to_thread(mounted.list, mounted.base, recursive=True, limit=room)
        return found

    async def search(self, pattern: str, path: str = ".", *, limit: int = 200) -> list[Json]:
        """Runs in the sandbox: a pattern can take for ever, and the daemon must not."""
        await self._on(path, lambda folder: folder.list(path, recursive=False, limit=1))
        found, said = bytearray(), bytearray()
        last: Exit | None = None
        asked = json.dumps({"pattern": pattern, "path": path, "limit": max(1, min(limit, 10_000))})
        stream = self.exec(["python3", "-I", "-c", SCRIPT, asked], wall_s=SEARCH_S)
        try:
            async for item in stream:
                if isinstance(item, Exit):
                    last = item
                elif item.stream == "stdout":
                    found += item.data[: SEARCH_BYTES - len(found)]
                else:
                    said += item.data[: 2000 - len(said)]
        finally:
            await close(stream)
        if last is not None and last.why == "timeout":
            raise InvalidArgument(
                f"pattern: it took longer than {SEARCH_S:.0f} s",
                repair="Use a simpler pattern, or search in a smaller folder.",
                field="pattern",
            )
        if last is not None and last.code == 2:
            raise InvalidArgument(f"pattern: {said.decode(errors='replace').strip()[:300]}", field="pattern")
        return _hits(bytes(found), limit)

    # -- the run -----------------------------------------------------------------------------------------------------
    async def egress_log(self) -> list[Json]:
        entries = [entry for way in self._ways for entry in way.log()]
        own = [entry for entry in entries if float(entry.get("at") or 0) >= self._began]
        return sorted([*own, *self.requests.as_list()], key=lambda entry: float(entry["at"]))

    async def capture(self, interaction_id: str) -> list[Artifact]:
        self._check()
        captured: tuple[list[Artifact], list[Json]] = await self._capture(interaction_id)
        self.left_out = captured[1]
        return captured[0]

    async def over(self) -> None:
        """End the lease: nothing can be done with it any more."""
        self._over = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        folders, self._folders = self._folders, []
        for folder in folders:
            folder.close()

    # -- inside ------------------------------------------------------------------------------------------------------
    def _check(self) -> None:
        if self._over:
            raise SandboxFailed("this run gave the environment back", repair="Start another run in it.")
        self._place.touch()

    def _see_disk(self) -> None:
        """End the run where the disk beneath is full or broken: what would be written from now on could be lost."""
        rooms = self._place.rooms
        trouble = rooms.quota.trouble() if rooms is not None and rooms.quota is not None else None
        if trouble is not None:
            raise StorageFull(
                f"the run was stopped: {trouble}",
                repair="Make room on the disk of interactd's data folder, then go on: what was written before is kept.",
            )

    async def _start(self) -> Any:
        self._see_disk()
        sandbox = await self._place.start(self._wanted, self._open_way)
        try:
            self._requires(sandbox.isolation)
        except BaseException:
            await self._place.stop()
            raise
        way = self._place.way
        if way is not None and way not in self._ways:
            self._ways.append(way)
        return sandbox

    async def _on(self, path: str, run: Callable[[Folder], T]) -> T:
        """Run a file operation on the folder that the path is in, on a thread."""
        self._check()
        if not self._folders:
            self._folders = await asyncio.to_thread(self._open_folders)
        folder = self._folders[0]
        for mounted in self._folders[1:]:
            if _stands_at(path, mounted.base):
                folder = mounted
        return await asyncio.to_thread(run, folder)

    def _open_folders(self) -> list[Folder]:
        with contextlib.ExitStack() as stack:
            found = [Folder(self._place.workspace)]
            stack.callback(found[0].close)
            for mount in self._wanted.mounts:
                try:
                    found.append(Folder(mount.source, mount.target, read_only=mount.read_only))
                except OSError as error:
                    raise NotFound(f"{mount.source} cannot be opened: {error.strerror}", kind="folder") from error
                stack.callback(found[-1].close)
            stack.pop_all()
        return found

    async def _room_for(self, size: int) -> None:
        self._see_disk()
        limits = self._wanted.limits
        if size > limits.file_mb << 20:
            raise InvalidArgument(f"data: {size} bytes; a file here may have {limits.file_mb} MB", field="data")
        rooms = self._place.rooms
        if rooms is not None and rooms.quota is not None:
            # The kernel says when it is too much, and exactly.
            return
        at, used = self._used
        if time.monotonic() - at > MEASURED_FOR_S:
            used = await asyncio.to_thread(_used, self._place.workspace)
            self._used = time.monotonic(), used
        if used + size > limits.disk_mb << 20:
            raise InvalidArgument(
                f"the workspace is full: {used >> 20} MB of {limits.disk_mb} MB are used",
                repair="Delete files that are not needed any more.",
                field="data",
            )


def _used(folder: Path) -> int:
    opened = Folder(folder)
    try:
        return sweep.measure(opened.fd)[0]
    finally:
        opened.close()


def _stands_at(path: str, base: str) -> bool:
    whole = _whole(path)
    return whole == base or whole.startswith(base + "/")


def _whole(path: str) -> str:
    whole = path if path.startswith("/") else f"/workspace/{path}"
    parts: list[str] = []
    for part in whole.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _hits(lines: bytes, limit: int) -> list[Json]:
    """Read what the search printed; it comes from the sandbox, so every field is checked."""
    out: list[Json] = []
    for line in lines.splitlines()[: max(1, limit)]:
        try:
            said: Any = json.loads(line)
        except (ValueError, RecursionError):  # nested as deep as the line is long
            continue
        if not isinstance(said, dict):
            continue
        hit = cast("Json", said)
        path, number, text = hit.get("path"), hit.get("line"), hit.get("text")
        if isinstance(path, str) and isinstance(number, int) and isinstance(text, str):
            out.append({"path": path[:4096], "line": number, "text": text[:1000]})
    return out
