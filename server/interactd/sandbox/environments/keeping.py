"""Artifacts: kept at a run's end, read by name, packed, and removed with their session."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from interactd.errors import InvalidArgument, NotFound, StorageError, StorageFull
from interactd.ids import new_id
from interactd.nouns import Json
from interactd.sandbox.environments import claims
from interactd.sandbox.environments.capture import Captured, CaptureLimits, capture
from interactd.sandbox.environments.contents import Contents
from interactd.sandbox.environments.records import Records
from interactd.sandbox.environments_port import Artifact

log = logging.getLogger(__name__)
READ_MAX: Final = 16 << 20
ZIP_FILES: Final = 10_000
ZIP_BYTES: Final = 2 << 30
ZIP_KEPT_S: Final = 86_400.0
CHANGING_S: Final = 60.0


class Artifacts:
    """All kept files of this machine."""

    def __init__(self, root: Path, store: Records, limits: CaptureLimits | None = None) -> None:
        self.contents = Contents(root)
        self._store = store
        self._limits = limits or CaptureLimits()
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Remove what killed daemons left half-done: files being written, contents without a row, old archives."""
        await asyncio.to_thread(self.contents.make)
        try:
            await self._tidy()
        except StorageError as error:
            log.warning("kept files that nobody refers to are removed at another start: %s", error)
        await self.sweep_zips()

    async def aclose(self) -> None:
        """Leave nothing half-written."""
        await asyncio.to_thread(self.contents.close)

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator[None]:
        """Be the only one, in whichever daemon, who adds or removes contents: one must not be removed as unused between
        its being put there and its row's being written.

        Raises:
            StorageError: another daemon takes too long.
        """
        async with self._changing:
            try:
                async with asyncio.timeout(CHANGING_S):
                    claim = await claims.alone(self.contents.root)
            except TimeoutError:
                raise StorageError(
                    "another daemon has been changing the kept files for too long",
                    repair="See whether a daemon on this data folder stands still; then try again.",
                ) from None
            with contextlib.closing(claim):
                yield

    async def _tidy(self) -> None:
        async with self.changing():
            kept = await self._store.kept_contents()
            await asyncio.to_thread(lambda: self.contents.remove(set(self.contents.everything()) - kept))
            await self._store.forget_contents(await self._store.lost_contents(limit=100_000))

    async def capture(
        self, workspace: Path, interaction_id: str, environment_id: str, since_ns: int
    ) -> tuple[list[Artifact], list[Json]]:
        """Keep every file that changed since; returns all of the interaction's, and what was left out.

        Raises:
            NotFound, Deleted, Expired: the interaction is no more; nothing is kept.
            StorageFull: no room.
        """
        limits = self._limits
        work = asyncio.create_task(
            asyncio.to_thread(capture, workspace, self.contents, since_ns=since_ns, limits=limits)
        )
        try:
            done = await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread cannot be stopped; what it wrote is dropped when it ends.
            work.add_done_callback(_drop)
            raise
        except OSError as error:
            raise StorageFull(
                f"files could not be kept: {error.strerror}", repair="Make room on the disk, then ask again."
            ) from error
        now = time.time()
        rows = [
            {
                "id": new_id("artifact"),
                "name": one.name,
                "sha256": one.sha256,
                "size_bytes": one.size_bytes,
                "mime_type": one.mime_type,
                "created_at": now,
            }
            for one in done.kept
        ]
        async with self.changing():
            try:
                await asyncio.to_thread(self._publish, done)
                await self._store.put_artifacts(interaction_id, environment_id, rows, done.left_out, now)
            except BaseException:
                await asyncio.shield(self._unpublish({one.sha256 for one in done.kept}))
                raise
        return await self.list(interaction_id), done.left_out

    def _publish(self, done: Captured) -> None:
        try:
            for one in done.kept:
                self.contents.publish(one.part, one.sha256)
        except OSError as error:
            raise StorageFull(
                f"files could not be kept: {error.strerror}", repair="Make room on the disk, then ask again."
            ) from error

    async def _unpublish(self, put: set[str]) -> None:
        unused = put - await self._store.kept_contents()
        await asyncio.to_thread(self.contents.remove, unused)

    async def list(self, interaction_id: str) -> list[Artifact]:
        """All kept files of an interaction, by name."""
        rows, _ = await self._store.list_artifacts(interaction_id)
        return [self._artifact(interaction_id, row) for row in rows]

    async def left_out(self, interaction_id: str) -> list[Json]:
        """What was not kept of an interaction, and why: `{"reason", "count", "names"}`."""
        return (await self._store.list_artifacts(interaction_id))[1]

    def _artifact(self, interaction_id: str, row: Json) -> Artifact:
        return Artifact(
            id=row["id"],
            interaction_id=interaction_id,
            name=row["name"],
            sha256=row["sha256"],
            size_bytes=row["size_bytes"],
            mime_type=row["mime_type"],
            created_at=row["created_at"],
            path=self.contents.path(row["sha256"]),
        )

    async def read(self, interaction_id: str, name: str, offset: int, limit: int) -> tuple[Artifact, bytes]:
        """Return a kept file, found by name or id (archives too), and up to `limit` of its bytes."""
        if offset < 0 or limit < 0:
            raise InvalidArgument("offset and limit cannot be negative", field="offset")
        found = (await self._pick(interaction_id, [name]))[0]

        def read() -> bytes:
            with found.path.open("rb") as file:
                return os.pread(file.fileno(), min(limit, READ_MAX), offset)

        try:
            return found, await asyncio.to_thread(read)
        except OSError as error:
            raise StorageError(f"the kept copy of {name!r} cannot be read: {error.strerror}") from error

    async def zip(self, interaction_id: str, names: list[str]) -> Artifact:
        """Pack files into an archive; see `Environments.zip_artifacts`."""
        chosen = await self._pick(interaction_id, list(dict.fromkeys(names))) if names else None
        files = chosen if chosen is not None else await self.list(interaction_id)
        total = sum(file.size_bytes for file in files)
        if not files:
            raise NotFound(f"interaction {interaction_id} has no files", kind="artifact", id=interaction_id)
        if len(files) > ZIP_FILES or total > ZIP_BYTES:
            raise InvalidArgument(
                f"{len(files)} files of {total} bytes are too much for one zip",
                repair=f"Choose at most {ZIP_FILES} files of {ZIP_BYTES >> 20} MB together.",
                field="names",
            )
        pairs = [(file.name, file.sha256) for file in files]
        try:
            path = await asyncio.to_thread(self.contents.zip, interaction_id, pairs)
        except FileNotFoundError:
            raise NotFound("one of the files was deleted meanwhile", kind="artifact", id=interaction_id) from None
        except OSError as error:
            raise StorageFull(f"the zip could not be written: {error.strerror}") from error
        return await asyncio.to_thread(self._zipped, interaction_id, path)

    def _zipped(self, interaction_id: str, path: Path) -> Artifact:
        tag, sha256, _ = path.name.split(".")
        info = path.stat()
        # When it was last asked for is kept as the time of access.
        os.utime(path, (time.time(), info.st_mtime))
        return Artifact(
            id=f"art_zip{tag[:8]}",
            interaction_id=interaction_id,
            name=f"artifacts-{tag[:8]}.zip",
            sha256=sha256,
            size_bytes=info.st_size,
            mime_type="application/zip",
            created_at=info.st_mtime,
            path=path,
        )

    async def _pick(self, interaction_id: str, names: list[str]) -> list[Artifact]:
        files = await self.list(interaction_id)
        by_name = {key: file for file in reversed(files) for key in (file.id, file.name)}
        out: list[Artifact] = []
        for name in names:
            plain = name.removeprefix("/workspace/").removeprefix("./")
            found = by_name.get(name) or by_name.get(plain)
            if found is None:
                for path in await asyncio.to_thread(self._zips_of, interaction_id):
                    packed = await asyncio.to_thread(self._zipped, interaction_id, path)
                    if name in (packed.name, packed.id):
                        found = packed
            if found is None:
                near = difflib.get_close_matches(plain, [file.name for file in files], 5, 0.4)
                raise NotFound(
                    f"interaction {interaction_id} has no file {name[:200]!r}",
                    repair=f"Did you mean {' or '.join(near)}?" if near else "List its files first.",
                    kind="artifact",
                    id=name[:200],
                    suggestions=near,
                )
            out.append(found)
        return out

    def _zips_of(self, interaction_id: str) -> list[Path]:
        folder = self.contents.zips / interaction_id.replace("/", "_").replace("..", "_")
        return sorted(folder.glob("*.zip")) if folder.is_dir() else []

    async def collect(self) -> int:
        """Remove contents whose last row is gone, and archives of interactions without files; returns how many."""
        removed = 0
        async with self.changing():
            while lost := await self._store.lost_contents():
                await asyncio.to_thread(self.contents.remove, lost)
                await self._store.forget_contents(lost)
                removed += len(lost)
            for folder in await asyncio.to_thread(lambda: list(self.contents.zips.iterdir())):
                if not (await self._store.list_artifacts(folder.name))[0]:
                    await asyncio.to_thread(shutil.rmtree, folder, True)
        return removed

    async def sweep_zips(self) -> None:
        """Remove archives that nobody asked for in a day."""

        def sweep() -> None:
            for path in self.contents.zips.glob("*/*.zip"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_atime < time.time() - ZIP_KEPT_S:
                        path.unlink()

        await asyncio.to_thread(sweep)


def _drop(work: asyncio.Task[Captured]) -> None:
    if not work.cancelled() and work.exception() is None:
        for kept in work.result().kept:
            kept.part.unlink(missing_ok=True)
