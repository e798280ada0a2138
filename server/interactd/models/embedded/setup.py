"""Fetch weights: whole, once, checked, and safe to stop at any moment. What `interactd setup` runs.

Everything happens in one part file per hash that is only ever appended to, under a lock that a killed process cannot
keep. It gets its final name after its hash was checked; until then nobody can use it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from interactd import paths as locations
from interactd.errors import NotSetUp, StorageFull
from interactd.models.embedded.settings import EmbeddedSettings
from interactd.models.embedded.weights import carrier, direct, files
from interactd.models.embedded.weights.files import Cancel, Cancelled, Progress, Report
from interactd.models.embedded.weights.table import DEFAULT, Source, Url, Weights, lookup

__all__ = ["Cancel", "Cancelled", "Progress", "Report", "run", "run_async"]

_SPARE = 150_000_000
_LOCK_S = 3600.0


def run(
    model: str | Weights | None = None,
    progress: Report | None = None,
    *,
    paths: locations.Paths | None = None,
    settings: EmbeddedSettings | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Make sure that a model's weights are on this machine. Blocks; touches no network if they are here already.

    Args:
        model: a name of the table, an entry of one's own, or None for the configured default.
        progress: called with how it stands, at most about ten times a second, from this thread.
        paths: where files go (default: this user's).
        settings: as configured (default: the defaults).
        cancel: lets another thread stop it; what arrived is kept for the next run.

    Returns:
        The file, with the right hash.

    Raises:
        UnknownModel: no such name.
        NotSetUp: no source delivered; `tried` has one line for each.
        StorageFull: not enough room; nothing was lost.
        Conflict: another setup holds the lock for an hour.
        Cancelled: `cancel` was set.
    """
    settings = settings or EmbeddedSettings()
    entry = model if isinstance(model, Weights) else lookup(model or settings.model or DEFAULT)
    report: Report = progress or _silent
    cancel = cancel or Cancel()
    folder = (paths or locations.find()).weights
    extra = settings.weights_folder()
    if path := _already_here(entry, folder, extra, report, cancel):
        return path
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error

    def waiting() -> None:
        report(Progress("waiting", 0, entry.bytes, "", "Another setup is fetching these weights; waiting for it."))

    with files.exclusive(folder / f"{entry.sha256}.lock", waiting, cancel, _LOCK_S):
        # The one we waited for may have finished the work.
        path = _already_here(entry, folder, extra, report, cancel)
        return path or _fetch(entry, folder, report, cancel)


async def run_async(
    model: str | Weights | None = None,
    progress: Report | None = None,
    *,
    paths: locations.Paths | None = None,
    settings: EmbeddedSettings | None = None,
) -> Path:
    """As `run`, in a thread; cancelling the task stops it and waits for it. `progress` is called on the loop."""
    loop = asyncio.get_running_loop()
    cancel = Cancel()

    def relay(state: Progress) -> None:
        loop.call_soon_threadsafe(_safely, progress or _silent, state)

    work = asyncio.ensure_future(
        asyncio.to_thread(run, model, relay, paths=paths, settings=settings, cancel=cancel),
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancel.set()
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()
        raise


def _silent(progress: Progress) -> None:
    del progress


def _safely(report: Callable[[Progress], None], state: Progress) -> None:
    report(state)


def _already_here(entry: Weights, folder: Path, extra: Path | None, report: Report, cancel: Cancel) -> Path | None:
    for place in files.candidates(entry, folder, extra):
        try:
            if place.stat().st_size == entry.bytes and files.is_right(place, entry, folder, report, cancel):
                report(Progress("ready", entry.bytes, entry.bytes, str(place)))
                return place
        except OSError:
            continue
    return None


def _fetch(entry: Weights, folder: Path, report: Report, cancel: Cancel) -> Path:
    part = folder / f"{entry.sha256}.part"
    tried: list[str] = []
    for source in entry.sources:
        # A second go from the first byte is for the case that an earlier download had left a wrong beginning.
        for beginning_is_ours in (False, True):
            if beginning_is_ours:
                part.unlink(missing_ok=True)
            continued = direct.size(part) > 0
            _room_for(entry, part)
            report(Progress("downloading", direct.size(part), entry.bytes, str(source)))
            problem = _try(source, entry, part, report, cancel)
            if problem is None:
                if files.digest(part, report, cancel) == entry.sha256:
                    return _publish(entry, part, folder, report)
                part.unlink()
                problem = "what it delivered is not this file (its SHA-256 is another)"
                if continued:
                    continue
            tried.append(f"{source}: {problem}")
            report(Progress("source_failed", direct.size(part), entry.bytes, str(source), problem))
            break
    kept = direct.size(part)
    raise NotSetUp(
        f"The weights of {entry.name} could not be fetched. " + "; ".join(tried) + ".",
        repair=(
            "Check the network and run `interactd setup"
            f"{'' if entry.name == DEFAULT else f' --model {entry.name}'}` again"
            f"{f' (the {kept // 1_000_000} MB that arrived are kept)' if kept else ''}, "
            f"or download {entry.filename} elsewhere, put it into a folder and set INTERACTD_WEIGHTS to that folder."
        ),
        tried=tried,
    )


def _try(source: Source, entry: Weights, part: Path, report: Report, cancel: Cancel) -> str | None:
    """Fetch what is missing; return what went wrong, or None when the part file is complete."""
    if direct.size(part) > entry.bytes:
        part.unlink()
    try:
        if isinstance(source, Url):
            direct.fetch(source, entry, part, report, cancel)
        else:
            carrier.fetch(source, entry, part, report, cancel)
    except direct.SourceFailed as failed:
        return str(failed)
    except OSError as error:
        raise _refused(part, error) from error
    return None


def _refused(path: Path, error: OSError) -> StorageFull:
    return StorageFull(
        f"Writing {path} failed: {error.strerror or error}.",
        repair="Free some space (or repair the folder's permissions) and run `interactd setup` again; "
        "what arrived is kept.",
    )


def _room_for(entry: Weights, part: Path) -> None:
    needed = entry.bytes - direct.size(part) + _SPARE
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise StorageFull(
            f"{entry.name} needs {needed // 1_000_000} MB more in {part.parent}; {free // 1_000_000} MB are free.",
            repair="Free some space, or set INTERACTD_HOME (or INTERACTD_WEIGHTS) to a folder on a larger disk.",
            needed_bytes=needed,
            free_bytes=free,
        )


def _publish(entry: Weights, part: Path, folder: Path, report: Report) -> Path:
    final = folder / entry.file
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    info = part.stat()
    with files.private(folder / f"{entry.sha256}.ok", os.O_WRONLY | os.O_TRUNC) as note:
        note.write(files.note(info))
    part.replace(final)
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    report(Progress("ready", entry.bytes, entry.bytes, str(final)))
    return final
