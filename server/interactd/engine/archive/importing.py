"""Importing an archive: checked whole, compared with what is here, written where nobody sees it, shown at once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

from interactd.agents.port import DamagedCopy, KeptAgents
from interactd.engine.archive import plan
from interactd.engine.archive.answers import Imported
from interactd.engine.archive.checking import Index, check_all
from interactd.engine.archive.export import Report
from interactd.engine.archive.opening import Opened, bad, opened
from interactd.engine.archive.plan import Plan
from interactd.engine.archive.renaming import Renaming
from interactd.errors import InteractdError, InvalidArgument, StorageFull
from interactd.ids import new_ulid
from interactd.nouns import Json
from interactd.sandbox.carrying_port import Carrier, Unsafe
from interactd.store.archive_port import Archive, BadRecord, Journal, Last

T = TypeVar("T")
_PIECE: Final = 200
_PIECE_BYTES: Final = 1 << 20
ENVIRONMENT_KEEP_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Wish:
    """How an import is wanted."""

    path: Path
    owner: str
    dry_run: bool = False
    as_new: bool = False
    restore: bool = False
    """Bring back what was deleted or expired here."""


class Import:
    """One import. `run` once; the blocking parts are done by worker threads, one after another."""

    def __init__(
        self,
        archive: Archive,
        wish: Wish,
        *,
        carrier: Carrier | None,
        agents: KeptAgents | None,
        runner: str,
        schema: int,
        now: float,
        report: Report,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._store, self._wish = archive, wish
        self._carrier, self._agents = carrier, agents
        self._schema, self._now, self._report, self._loop = schema, now, report, loop
        self._journal = Journal(new_ulid(), [], now, runner)
        self._made: list[str] = []
        self._put = 0

    def run(self) -> Imported:
        """Do it. Blocking, in a thread of its own.

        Raises:
            InvalidArgument: the archive is damaged or hostile, or of a later version.
            Conflict: what is here differs from what is in it, or was deleted here.
            StorageFull, StorageError: nothing of it was kept.
        """
        # By runner, so that everybody knows whose it is.
        folder = self._store.folder / "imports" / str(self._journal.runner) / self._journal.id
        folder.mkdir(mode=0o700, parents=True)
        try:
            with opened(self._wish.path) as archive:
                index = Index(folder)
                try:
                    return self._run(archive, index)
                finally:
                    index.close()
        except OSError as error:
            raise _no_room(error, self._store.folder) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

    def _run(self, archive: Opened, index: Index) -> Imported:
        if archive.manifest.schema > self._schema:
            raise bad(
                f"was made by a newer interactd ({archive.manifest.interactd}, schema {archive.manifest.schema};"
                f" this one knows {self._schema}). Upgrade interactd",
                member="manifest.json",
            )
        free = shutil.disk_usage(self._store.folder).free
        if archive.unpacked_bytes * 2 > free:
            raise StorageFull(
                f"the archive unpacks to {archive.unpacked_bytes:,} bytes and needs about twice that here;"
                f" {free:,} are free. Nothing was imported",
                repair="Free some space; `interactd data` shows what takes how much.",
                free_bytes=free,
            )
        check_all(archive, index, self._store.checker(self._wish.owner), self._report)
        renaming = Renaming(index)
        if self._wish.as_new:
            renaming.begin()
        wanted = plan.make(index, renaming, archive.manifest, self._wish.owner, self._now, as_new=self._wish.as_new)
        self._await(plan.compare(wanted, self._store, restore=self._wish.restore))
        done = self._answer(archive, wanted)
        if self._wish.dry_run or not any(done.counts[kind] for kind in ("sessions", "environments", "triggers")):
            return done
        self._write(archive, wanted)
        return done

    def _answer(self, archive: Opened, wanted: Plan) -> Imported:
        skipped = len(wanted.index.ids("sessions")) - len(wanted.new)
        counts = wanted.counts()
        counts["agents"] = len(_agents_in(archive))
        counts["workspaces"] = sum(name.startswith("environments/") for name in archive.members)
        return Imported(
            self._wish.path,
            self._wish.dry_run,
            counts,
            [wanted.renaming.id(id) for id in wanted.new],
            skipped,
            wanted.renaming.mapping("sessions"),
            wanted.notes(archive),
        )

    # -- writing -----------------------------------------------------------------------------------------------------
    def _write(self, archive: Opened, wanted: Plan) -> None:
        self._journal.sessions = [wanted.renaming.id(id) for id in wanted.new]
        begun = False
        try:
            self._copies(archive)
            places = self._workspaces(archive, wanted)
            self._await(self._store.begin(self._journal))
            begun = True
            self._rows("interactions", wanted.interactions())
            steps = (wanted.step(record) for _, record, _ in archive.records("steps"))
            self._rows("steps", (record for record in steps if record is not None))
            for kind in ("artifacts", "captures", "requests"):
                self._rows(kind, wanted.belongings(kind))
            self._rows("ledger", wanted.ledger())
            self._rows("spent", wanted.spent())
            self._contents(archive, wanted)
            for id in self._made:
                self._carrier_of().settle(id)
            last = Last(list(wanted.sessions()), places, wanted.moved(), wanted.restored, list(wanted.triggers()))
            # From here on it is done as a whole or not at all, and nobody may stop it half-way.
            self._await(self._store.finish(self._journal, last, self._wish.owner))
            for id in self._made:
                self._carrier_of().release(id)
        except BaseException as error:
            self._undo(begun=begun)
            if isinstance(error, BadRecord):
                raise bad(str(error)) from error
            raise

    def _undo(self, *, begun: bool) -> None:
        for id in self._made:
            with contextlib.suppress(OSError):
                self._carrier_of().discard(id)
        if begun:
            # What fails here (a full disk) is noted in the store, and done when it is idle or starts again.
            with contextlib.suppress(InteractdError):
                self._await(self._store.undo(self._journal.id))

    def _rows(self, kind: Any, records: Iterator[Json]) -> None:
        piece: list[Json] = []
        size = 0
        for record in records:
            piece.append(record)
            size += len(str(record.get("body") or ""))
            if len(piece) >= _PIECE or size > _PIECE_BYTES:
                self._some(kind, piece)
                piece, size = [], 0
        if piece:
            self._some(kind, piece)

    def _some(self, kind: Any, piece: list[Json]) -> None:
        self._put += len(piece)
        self._report("rows written", self._put)
        self._await(self._store.put(self._journal, kind, piece))

    def _contents(self, archive: Opened, wanted: Plan) -> None:
        for sha256 in wanted.contents():
            carrier = self._carrier_of()
            if carrier.content(sha256).exists():
                continue
            with archive.read(f"artifacts/{sha256}") as stream:
                part, found = carrier.take(cast("IO[bytes]", stream), lambda: self._report("files written", 0))
            if found != sha256:
                part.unlink(missing_ok=True)
                raise bad("changed while it was read", member=f"artifacts/{sha256}")
            self._await(carrier.place(part, sha256))

    def _copies(self, archive: Opened) -> None:
        for hash in _agents_in(archive):
            if self._agents is None:
                return
            aside = self._agents.begin_copy()
            prefix = f"agents/{hash}/"
            for name in archive.members:
                if name.startswith(prefix):
                    self._copy(archive, name, aside / name.removeprefix(prefix))
            try:
                self._agents.adopt(hash, aside)
            except DamagedCopy as error:
                raise bad(f"is no agent's copy: {error}", member=f"agents/{hash}/definition.json") from None

    def _copy(self, archive: Opened, name: str, target: Path) -> None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with archive.read(name) as stream, target.open("xb") as out:
            while data := stream.read():
                self._report("agents", 0)
                out.write(data)
        inside = "/folder/" in name
        target.chmod((0o555 if archive.is_executable(name) else 0o444) if inside else 0o600)

    def _workspaces(self, archive: Opened, wanted: Plan) -> list[Json]:
        if self._carrier is None:
            return []
        places: list[Json] = []
        for old, record in wanted.environments(ENVIRONMENT_KEEP_S):
            name = f"environments/{old}.tar"
            member = archive.members.get(name)
            self._made.append(record["id"])
            body: Json = record.get("body") or {}
            limits: Json = body.get("limits") or {}
            go = partial(self._report, "environments", 0)
            try:
                if member is None:
                    self._carrier.unpack(record["id"], limits, None, most_bytes=0, go=go)
                else:
                    with archive.read(name) as stream:
                        packed = cast("IO[bytes]", stream)
                        self._carrier.unpack(record["id"], limits, packed, most_bytes=member.bytes, go=go)
            except Unsafe as error:
                raise bad(str(error), member=name) from None
            places.append(record)
        return places

    def _carrier_of(self) -> Carrier:
        if self._carrier is None:
            raise InvalidArgument(
                "the archive has files of agents, and this daemon has no environments to keep them in", field="path"
            )
        return self._carrier

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        """Do on the event loop what belongs there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _agents_in(archive: Opened) -> list[str]:
    return sorted({name.split("/")[1] for name in archive.members if name.startswith("agents/")})


def _no_room(error: OSError, folder: Path) -> InteractdError:
    if error.errno in (28, 122):
        return StorageFull(
            f"the disk of {folder} is full; nothing was imported",
            repair="Free some space; `interactd data` shows what takes how much.",
            path=str(folder),
        )
    return InvalidArgument(f"the archive could not be read or kept: {error}", field="path")
