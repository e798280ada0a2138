"""Exports and imports as the engine offers them: in threads, one import at a time, stopped or waited for."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from interactd.agents.port import KeptAgents
from interactd.engine.archive.answers import Exported, Imported, Progress
from interactd.engine.archive.export import Report, Wanted, export, notes
from interactd.engine.archive.importing import Import, Wish
from interactd.engine.archive.writing import remove_unfinished
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.errors import InteractdError, InvalidArgument, NotFound, StorageError
from interactd.nouns import Caller
from interactd.sandbox.carrying_port import Carrier
from interactd.store.archive_port import Archive

log = logging.getLogger(__name__)
T = TypeVar("T")

URI: Final = "interactd://exports/"
READ_MAX: Final = 16 << 20
_STOP_S: Final = 10.0


class _Stopped(Exception):
    """Nobody wants the result any more."""


@dataclass(slots=True)
class _Job(Generic[T]):
    task: asyncio.Task[T]
    stop: threading.Event
    watchers: list[Progress] = field(default_factory=list[Progress])


class ArchiveService:
    """One per engine. A call that is cancelled stops its work, unless it said that it comes back (`wait_s`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._jobs: dict[tuple[Any, ...], _Job[Any]] = {}
        self._importing = asyncio.Lock()

    @property
    def busy(self) -> int:
        """How many exports and imports run."""
        return sum(not job.task.done() for job in self._jobs.values())

    @property
    def exports(self) -> Path:
        """Where exports lie that nobody named a place for."""
        return self._archive.folder / "exports"

    @property
    def _archive(self) -> Archive:
        archive: Archive | None = getattr(self._core.store, "archive", None)
        if archive is None:
            raise StorageError("this store cannot be exported or imported", repair="Use the SQLite store.")
        return archive

    async def export(
        self,
        session_ids: list[str] | None,
        *,
        path: str | None,
        with_environments: bool,
        replace: bool,
        wait_s: float | None,
        progress: Progress | None,
        caller: Caller,
    ) -> Exported | None:
        """See `Engine.export_data`."""
        whole: list[str] | None = None
        if session_ids is not None:
            whole = [await self._exportable(one, caller) for one in session_ids]
        key = ("export", caller.owner, None if whole is None else tuple(whole), path, with_environments, replace)

        runner = self._core.lease.id

        def work(report: Report) -> Coroutine[Any, Any, Exported]:
            target = self._target(path, caller)
            return self._export(Wanted(target, caller.owner, whole, with_environments, replace, runner), report)

        return await self._do(key, work, wait_s, progress)

    async def import_(
        self,
        path: str,
        *,
        dry_run: bool,
        as_new: bool,
        restore: bool,
        wait_s: float | None,
        progress: Progress | None,
        caller: Caller,
    ) -> Imported | None:
        """See `Engine.import_data`."""
        self._core.check_accepting()
        file = self.named(path) if path.startswith(URI) else _absolute(path, caller)
        wish = Wish(file, caller.owner, dry_run, as_new, restore)
        return await self._do(("import", wish), partial(self._import, wish), wait_s, progress)

    async def read(self, name: str, offset: int, limit: int) -> tuple[int, bytes]:
        """See `Engine.read_export`."""
        file = self.named(name)

        def read() -> tuple[int, bytes]:
            with file.open("rb") as stream:
                stream.seek(offset)
                return file.stat().st_size, stream.read(min(limit, READ_MAX))

        if offset < 0 or limit < 0:
            raise InvalidArgument("offset and limit cannot be negative", field="offset")
        try:
            return await asyncio.to_thread(read)
        except FileNotFoundError:
            raise NotFound(
                f"there is no export {name[:200]}",
                repair="Exports are kept for some days; make a new one with export_data.",
                kind="export",
                id=name[:200],
            ) from None

    def named(self, name: str) -> Path:
        """The file of an export that was made without a path, by its name or resource URI."""
        plain = name.removeprefix(URI)
        if not plain or plain.startswith(".") or "/" in plain or "\\" in plain or "\0" in plain:
            raise InvalidArgument(f"there is no export {name[:200]!r}", field="name")
        return self.exports / plain

    async def _exportable(self, text: str, caller: Caller) -> str:
        """The whole id of a session that is there: an expired one too, as long as it is."""
        session = await self._core.any_session(await self._core.session_id(text), caller)
        if session.deleted_at is not None:
            self._core.check_alive(session)
        return session.id

    async def _export(self, wanted: Wanted, report: Report) -> Exported:
        core = self._core
        if wanted.target.parent.is_dir() and _same_disk(wanted.target.parent, self._archive.folder):
            # What is left of a full disk is for what runs.
            await core.store.check()
        schema = int((await core.store.stats())["schema"])
        return await asyncio.to_thread(
            partial(
                export,
                self._archive,
                wanted,
                carrier=self._carrier(),
                agents=self._agents(),
                version=core.settings.version,
                schema=schema,
                now=core.clock(),
                report=report,
            )
        )

    async def _import(self, wish: Wish, report: Report) -> Imported:
        core = self._core
        if not wish.dry_run:
            await core.store.check()
        schema = int((await core.store.stats())["schema"])
        async with self._importing:
            # This one is not at it, or it would have the lock.
            await self._archive.undo(living=core.others.live)
            work = Import(
                self._archive,
                wish,
                carrier=self._carrier(),
                agents=self._agents(),
                runner=core.lease.id,
                schema=schema,
                now=core.clock(),
                report=report,
                loop=asyncio.get_running_loop(),
            )
            return await asyncio.to_thread(work.run)

    def _carrier(self) -> Carrier | None:
        places = self._core.environments
        found = None if places is None else getattr(places, "carrier", None)
        if not isinstance(found, Carrier):
            return None
        found.attach(asyncio.get_running_loop())
        return found

    def _agents(self) -> KeptAgents | None:
        return self._core.agents if isinstance(self._core.agents, KeptAgents) else None

    def _target(self, path: str | None, caller: Caller) -> Path:
        stamp = datetime.fromtimestamp(self._core.clock(), UTC).strftime("%Y%m%d-%H%M%S")
        name = f"interactd-{stamp}.zip"
        if path is None:
            self.exports.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _free(self.exports / name)
        target = _absolute(path, caller)
        return _free(target / name) if target.is_dir() else target

    # -- jobs --------------------------------------------------------------------------------------------------------
    async def _do(
        self,
        key: tuple[Any, ...],
        work: Callable[[Report], Coroutine[Any, Any, T]],
        wait_s: float | None,
        progress: Progress | None,
    ) -> T | None:
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = self._start(key, work)
        if progress is not None:
            job.watchers.append(progress)
        try:
            done, _ = await asyncio.wait({job.task}, timeout=wait_s)
        except asyncio.CancelledError:
            if wait_s is None:
                await self._stop(job)
            raise
        finally:
            if progress is not None:
                job.watchers.remove(progress)
        if not done:
            return None
        self._jobs.pop(key, None)
        return cast("T", job.task.result())

    def _start(self, key: tuple[Any, ...], work: Callable[[Report], Coroutine[Any, Any, T]]) -> _Job[T]:
        loop, stop = asyncio.get_running_loop(), threading.Event()
        last = 0.0

        def report(what: str, count: int) -> None:
            nonlocal last
            if stop.is_set():
                raise _Stopped
            now = time.monotonic()
            if job.watchers and now - last > 0.25:
                last = now
                loop.call_soon_threadsafe(_tell, list(job.watchers), what, count)

        job: _Job[T] = _Job(asyncio.create_task(work(report), name=key[0]), stop)
        job.task.add_done_callback(partial(self._ended, key))
        return job

    def _ended(self, key: tuple[Any, ...], task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            # Nobody has to come back for a failure; who waits has it already.
            self._jobs.pop(key, None)
        else:
            # Who comes back for the result finds it for a while.
            asyncio.get_running_loop().call_later(600, self._jobs.pop, key, None)

    async def _stop(self, job: _Job[Any]) -> None:
        job.stop.set()
        await asyncio.wait({job.task}, timeout=_STOP_S)

    async def tidy(self) -> None:
        """Remove what dead daemons were exporting and importing; what a living one is at stays."""
        if getattr(self._core.store, "archive", None) is None:
            return
        living = self._core.others.live | {self._core.lease.id}
        await asyncio.to_thread(self._tidy, living)
        try:
            await self._archive.undo(living=living)
        except InteractdError as error:
            log.warning("what an import left is removed later: %s", error)

    def _tidy(self, living: frozenset[str]) -> None:
        for folder in _of_the_dead(notes(self._archive), living):
            remove_unfinished(folder)
        for folder in _of_the_dead(self._archive.folder / "imports", living):
            shutil.rmtree(folder, ignore_errors=True)

    async def aclose(self) -> None:
        """Stop everything that runs; nothing of it is left."""
        for job in list(self._jobs.values()):
            job.stop.set()
        tasks = {job.task for job in self._jobs.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_S)
        self._jobs.clear()


def _tell(watchers: list[Progress], what: str, count: int) -> None:
    for watcher in watchers:
        watcher(what, count)


def _absolute(path: str, caller: Caller) -> Path:
    text = check_text("path", path, max_bytes=4_000, empty=False)
    if "\0" in text:
        raise InvalidArgument("path: has a NUL in it", field="path")
    given = Path(text).expanduser()
    if not given.is_absolute():
        if caller.cwd is None:
            raise InvalidArgument(
                f"path: {text[:200]!r} is relative, and it is not known to what",
                repair="Give a whole path.",
                field="path",
            )
        given = Path(caller.cwd) / given
    return given


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _free(path: Path) -> Path:
    """The path, or one like it that nothing lies at."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _of_the_dead(parent: Path, living: frozenset[str]) -> list[Path]:
    """The folders of runners that are no more; silent ones are none, either, to whom anything is left."""
    return [folder for folder in parent.iterdir() if folder.name not in living] if parent.is_dir() else []
