"""Making an archive: one state of the store, then the files that it speaks of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from interactd.agents.port import KeptAgents
from interactd.engine.archive.answers import Exported
from interactd.engine.archive.layout import Manifest, jsonl, line
from interactd.engine.archive.writing import Writer, new_file
from interactd.errors import Conflict, InteractdError, StorageError, StorageFull
from interactd.nouns import Json
from interactd.sandbox.carrying_port import Carrier
from interactd.store.archive_port import KINDS, Archive, Snapshot

_NO_ROOM: Final = {28, 122}  # ENOSPC, EDQUOT


def notes(archive: Archive) -> Path:
    """The folder in which it is noted, by runner, where exports are being written."""
    return archive.folder / "exports" / ".under-way"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What goes into an archive, where it is written, and by whom."""

    target: Path
    owner: str
    sessions: list[str] | None
    """Whole ids; None for everything of the owner's."""
    with_files: bool = False
    """The files of environments too."""
    replace: bool = False
    runner: str = "nobody"


Report = Callable[[str, int], None]
"""Told what is being written and how many records or bytes of it are; raises when the work is to stop."""


class _Lost(Exception):
    """A content went while the archive was written."""


def export(
    archive: Archive,
    wanted: Wanted,
    *,
    carrier: Carrier | None,
    agents: KeptAgents | None,
    version: str,
    schema: int,
    now: float,
    report: Report,
) -> Exported:
    """Write an archive. Blocking.

    Raises:
        Conflict: files went again and again while it was written; or the target is there already.
        StorageFull, StorageError: the store, or the place it is written to.
    """
    for attempt in range(3):
        try:
            with archive.snapshot(wanted.owner, wanted.sessions) as snapshot:
                with new_file(wanted.target, replace=wanted.replace, notes=notes(archive) / wanted.runner) as (
                    out,
                    digest,
                ):
                    work = _Work(out, snapshot, carrier, agents, report, wanted.with_files)
                    work.all()
                    manifest = Manifest(now, version, schema, wanted.owner, work.counts, work.left_out)
                    out.end(manifest)
            size = wanted.target.stat().st_size
            return Exported(wanted.target, size, digest[0], now, work.counts, work.notes())
        except _Lost:
            if attempt == 2:
                break
        except OSError as error:
            raise cannot_write(wanted.target, error) from error
    raise Conflict(
        "sessions were deleted again and again while the export ran; nothing was written",
        repair="Make the same call again when nothing is being deleted.",
    )


def cannot_write(target: Path, error: OSError) -> InteractdError:
    """Return our error for a place that cannot be written to."""
    if isinstance(error, FileExistsError):
        return Conflict(
            f"{target} is there already", repair="Name another file, or ask for it to be replaced.", path=str(target)
        )
    if error.errno in _NO_ROOM:
        return StorageFull(
            f"the disk of {target} is full; nothing of the export is left there",
            repair="Free some space, or write it to another disk.",
            path=str(target),
        )
    return StorageError(
        f"{target} cannot be written: {error.strerror or error}",
        repair="Name a file in a folder that this user can write to.",
        path=str(target),
    )


class _Work:
    """One archive being written."""

    def __init__(
        self,
        out: Writer,
        snapshot: Snapshot,
        carrier: Carrier | None,
        agents: KeptAgents | None,
        report: Report,
        with_files: bool,
    ) -> None:
        self._out, self._snapshot = out, snapshot
        self._carrier, self._agents = carrier, agents
        self._report, self._with_files = report, with_files
        self.counts: dict[str, int] = {}
        self.left_out = snapshot.left_out()
        self._environments: dict[str, Json] = {}
        """Their limits, by id."""
        self._open = 0
        self._withheld: set[str] = set()
        self._missing: list[str] = []

    def all(self) -> None:
        for kind in KINDS:
            self._records(kind)
        self._contents()
        self._copies()
        if self._with_files:
            self._workspaces()

    def _records(self, kind: Any) -> None:
        count = 0
        with self._out.member(jsonl(kind)) as sink:
            for record in self._snapshot.records(kind):
                sink.write(line(record))
                count += 1
                if count % 200 == 0:
                    self._report(kind, count)
                self._look(kind, record)
        self.counts[kind] = count
        self._report(kind, count)

    def _look(self, kind: str, record: Json) -> None:
        if kind == "environments":
            body: Json = record.get("body") or {}
            self._environments[record["id"]] = body.get("limits") or {}
            self._withheld |= _names(body)
        elif kind == "sessions" and isinstance(record.get("environment"), dict):
            self._withheld |= _names(record["environment"])
        elif kind == "triggers" and isinstance(record["work"].get("environment"), dict):
            self._withheld |= _names(record["work"]["environment"])
        elif kind == "interactions" and record["status"] in ("queued", "in_progress"):
            self._open += 1

    def _contents(self) -> None:
        count = total = 0
        for sha256, _ in self._snapshot.contents():
            if self._carrier is None:
                self._missing.append(f"content {sha256[:12]}")
                continue
            try:
                with self._carrier.content(sha256).open("rb") as file:
                    for piece in self._out.copy(f"artifacts/{sha256}", file):
                        total += piece
                        self._report("bytes of artifacts", total)
            except FileNotFoundError:
                raise _Lost(sha256) from None
            if self._out.members[-1].sha256 != sha256:
                raise StorageError(
                    f"the kept file {sha256} is damaged: its bytes are not what they were",
                    repair="Delete the turn that it belongs to, or export other sessions.",
                    sha256=sha256,
                )
            count += 1
        self.counts["contents"] = count

    def _copies(self) -> None:
        count = 0
        for hash in self._snapshot.agents():
            home = None if self._agents is None else self._agents.copy_of(hash)
            if home is None:
                self._missing.append(f"agent {hash[:12]}")
                continue
            try:
                self._copy(hash, home)
            except FileNotFoundError:
                raise _Lost(hash) from None
            count += 1
        self.counts["agents"] = count

    def _copy(self, hash: str, home: Path) -> None:
        assert self._agents is not None
        for file in _files(home):
            self._report("agents", 0)
            with file.open("rb") as source:
                executable = bool(file.stat().st_mode & 0o100)
                name = f"agents/{hash}/{file.relative_to(home).as_posix()}"
                for _ in self._out.copy(name, source, executable=executable):
                    pass

    def _workspaces(self) -> None:
        count = 0
        for id in self._environments:
            if self._carrier is None:
                break
            try:
                with self._out.member(f"environments/{id}.tar") as sink:
                    stream = cast("IO[bytes]", sink)
                    self._carrier.pack(id, self._environments[id], stream, lambda: self._report("workspaces", 0))
            except FileNotFoundError:
                raise _Lost(id) from None
            count += 1
        self.counts["workspaces"] = count

    def notes(self) -> list[str]:
        out: list[str] = []
        if self._open:
            out.append(f"{self._open} turns were not done yet; an import keeps what they had, as cancelled")
        if self._withheld:
            shown = ", ".join(sorted(self._withheld)[:10])
            out.append(f"values of variables are not in it, and have to be given again: {shown}")
        if self._missing:
            out.append(f"not on this machine any more, so not in it: {', '.join(self._missing[:10])}")
        if webhooks := len(self.left_out.get("webhooks", ())):
            out.append(f"{webhooks} webhooks are not in it, since they have secrets: its manifest names them")
        if self._environments and not self._with_files:
            out.append(f"{len(self._environments)} environments are in it without their files")
        return out


def _files(home: Path) -> Sequence[Path]:
    """The files of an agent's copy in order, its definition first."""
    found = [Path(folder) / name for folder, _, names in os.walk(home / "folder") for name in names]
    return [home / "definition.json", *sorted(found, key=lambda path: path.as_posix())]


def _names(body: Json) -> set[str]:
    withheld: Json = body.get("withheld") or {}
    names: list[str] = withheld.get("env") or []
    domains: list[str] = withheld.get("transform") or []
    return set(names) | {f"headers for {one}" for one in domains}
