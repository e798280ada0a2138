"""Copies of agents by their hash, in the data folder: what a session pinned stays as it was.

    agents/<hash>/definition.json    the definition, and the sha256 of every file of the copy
    agents/<hash>/folder/            the files, with everything inherited; seen as /agent
    agents/<hash>/adopted            there if the copy came in an archive: only sessions that pin it use it

A copy appears whole (it is made aside and renamed) and is read-only. `definition.json` was used last at its mtime.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

from interactd.agents.merge import Merged
from interactd.agents.port import AgentDefinition, DamagedCopy, Layer, RunLimits, Skill
from interactd.agents.tree import Entry, open_regular
from interactd.errors import StorageError, StorageFull
from interactd.nouns import GenerationConfig, Json

VERSION: Final = 1
SOURCES: Final = "sources"
_DEFINITION: Final = "definition.json"
_FOLDER: Final = "folder"
_ASIDE: Final = ".new-"
_ADOPTED: Final = "adopted"
_BLOCK: Final = 1 << 20
_SYNC_ONE_BY_ONE: Final = 64


class Changed(Exception):
    """A file is not what it was when the agent was read; read the agent again."""


class Missing(Exception):
    """No copy with this hash, or a damaged one (`damaged` says what about it)."""

    def __init__(self, damaged: str | None = None) -> None:
        super().__init__(damaged or "no such copy")
        self.damaged = damaged


class Keeper:
    """The copies under one folder. Every method may block; call it from a worker thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._whole: set[str] = set()

    def keep(self, merged: Merged) -> AgentDefinition:
        """Make sure that there is a copy and return its definition.

        Raises:
            Changed: a file changed meanwhile.
            StorageFull, StorageError: it cannot be written.
        """
        wanted = merged.definition.hash
        try:
            # One that came in an archive has our hash on the archive's word alone.
            if not (self._root / wanted / _ADOPTED).exists():
                return self.load(wanted)
        except Missing:
            pass
        try:
            self._write(merged)
            return self.load(wanted)
        except Missing as error:
            raise StorageError(
                f"the copy of agent {merged.definition.id} in {self._root} is damaged: {error}"
            ) from None
        except OSError as error:
            kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            raise kind(
                f"agent {merged.definition.id} cannot be copied to {self._root}: {error.strerror or error}",
                repair="Free some space, or see to it that the folder is writable, and try again.",
            ) from error

    def load(self, wanted: str) -> AgentDefinition:
        """Return a kept agent; its files are checked once per process.

        Raises:
            Missing: there is none, or not as it was written.
        """
        home = self._root / wanted
        try:
            saved: Any = json.loads((home / _DEFINITION).read_bytes())
        except FileNotFoundError:
            raise Missing("its definition is missing" if home.is_dir() else None) from None
        except (OSError, ValueError, RecursionError) as error:
            raise Missing(f"its definition cannot be read: {error}") from None
        if not isinstance(saved, dict) or cast("Json", saved).get("version") != VERSION:
            raise Missing("its definition is of another version")
        whole = cast("Json", saved)
        if wanted not in self._whole:
            self._check(home / _FOLDER, whole["files"])
            self._whole.add(wanted)
        elif not (home / _FOLDER).is_dir():
            raise Missing("its files are missing")
        # In a data folder that is read-only, or another user's, the copy is as good.
        with contextlib.suppress(OSError):
            os.utime(home / _DEFINITION)
        return _definition(whole["definition"], home / _FOLDER)

    def copy_of(self, wanted: str) -> Path | None:
        """See `KeptAgents.copy_of`."""
        try:
            self.load(wanted)
        except Missing:
            return None
        return self._root / wanted

    def begin_copy(self) -> Path:
        """See `KeptAgents.begin_copy`."""
        self._root.mkdir(parents=True, exist_ok=True)
        aside = self._root / f"{_ASIDE}{uuid4().hex}"
        aside.mkdir(mode=0o700)
        return aside

    def adopt(self, wanted: str, aside: Path) -> bool:
        """See `KeptAgents.adopt`."""
        try:
            if self.copy_of(wanted) is not None:
                return False
            try:
                saved: Any = json.loads((aside / _DEFINITION).read_bytes())
                if saved["version"] != VERSION or saved["definition"]["hash"] != wanted:
                    raise DamagedCopy("its definition is of another agent or version")
                folder = aside / _FOLDER
                self._check(folder, saved["files"])
                there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
                if there != set(saved["files"]):
                    raise DamagedCopy("it has files that its definition does not know")
                _definition(saved["definition"], folder)
            except Missing as error:
                raise DamagedCopy(str(error)) from None
            except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
                raise DamagedCopy(f"its definition cannot be read: {error}") from None
            for inner, _, _ in os.walk(folder, topdown=False):
                Path(inner).chmod(0o555)
            (aside / _ADOPTED).touch()
            _remove(self._root / wanted)
            aside.rename(self._root / wanted)
        finally:
            _remove(aside)
        return True

    def prune(self, pinned: Collection[str], *, unused_s: float, only: Collection[str] | None = None) -> int:
        """Remove copies that no session pins and nobody used for a while, and what a crash left behind.

        Returns:
            How many were removed.
        """
        gone = 0
        try:
            names = [home.name for home in self._root.iterdir() if only is None or home.name in only]
        except FileNotFoundError:
            return 0
        for name in names:
            home = self._root / name
            aside = name.startswith(_ASIDE)
            try:
                used = (home if aside else home / _DEFINITION).stat().st_mtime
            except OSError:
                used = 0.0
            if name not in pinned and time.time() - used > (3600 if aside else unused_s):
                _remove(home)
                self._whole.discard(name)
                gone += 1
        return gone

    def _check(self, folder: Path, files: Mapping[str, str]) -> None:
        for name, expected in files.items():
            try:
                with open_regular(folder / name) as handle:
                    found = hashlib.file_digest(handle, "sha256").hexdigest()
            except OSError:
                raise Missing(f"{name} is missing") from None
            if found != expected:
                raise Missing(f"{name} was changed")

    def _write(self, merged: Merged) -> None:
        aside = self.begin_copy()
        try:
            sums = _copy(merged.files, aside / _FOLDER)
            saved = {"version": VERSION, "files": sums, "definition": _plain(merged.definition)}
            with (aside / _DEFINITION).open("x", encoding="utf-8") as handle:
                json.dump(saved, handle, ensure_ascii=False, indent=1)
                handle.flush()
                os.fsync(handle.fileno())
            self._put(aside, self._root / merged.definition.hash)
        finally:
            _remove(aside)

    def _put(self, aside: Path, home: Path) -> None:
        try:
            aside.rename(home)
            return
        except OSError:
            if not home.is_dir():
                raise
        # Either another process was faster with the same content, or the copy that is there is damaged, or adopted.
        try:
            if (home / _ADOPTED).exists():
                raise Missing
            self.load(home.name)
        except Missing:
            _remove(home)
            aside.rename(home)


def _copy(files: Mapping[str, Entry | bytes], folder: Path) -> dict[str, str]:
    folder.mkdir()
    sums: dict[str, str] = {}
    one_by_one = len(files) <= _SYNC_ONE_BY_ONE or not hasattr(os, "sync")
    for name in sorted(files):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        sums[name] = _copy_one(files[name], target, sync=one_by_one)
    if not one_by_one:
        os.sync()
    for inner, _, _ in os.walk(folder, topdown=False):
        Path(inner).chmod(0o555)
    return sums


def _copy_one(entry: Entry | bytes, target: Path, *, sync: bool) -> str:
    digest = hashlib.sha256()
    with target.open("xb") as out:
        if isinstance(entry, bytes):
            digest.update(entry)
            out.write(entry)
        else:
            try:
                source = open_regular(entry.source)
            except OSError:
                raise Changed(entry.source) from None
            with source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    out.write(block)
                    if out.tell() > entry.size:
                        raise Changed(entry.source)
            if digest.hexdigest() != entry.sha256:
                raise Changed(entry.source)
        out.flush()
        if sync:
            os.fsync(out.fileno())
    target.chmod(0o555 if isinstance(entry, Entry) and entry.executable else 0o444)
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    for inner, _, _ in os.walk(folder):
        Path(inner).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _plain(definition: AgentDefinition) -> Json:
    out = asdict(replace(definition, folder=Path()))
    del out["folder"]
    return out


def _definition(saved: Json, folder: Path) -> AgentDefinition:
    given = dict(saved)
    environment: Json = dict(given["environment"])
    if (folder / SOURCES).is_dir():
        # `sources/` is the beginning of the workspace, so it goes before what the manifest lists.
        own = {"type": "local", "source": str(folder / SOURCES), "target": "/workspace", "mode": "copy"}
        environment["sources"] = [own, *environment.get("sources", [])]
    given.update(
        folder=folder,
        environment=environment,
        tools=tuple(given["tools"]),
        functions=tuple(given["functions"]),
        approvals=tuple(given.get("approvals", ())),
        generation_config=GenerationConfig(**given["generation_config"]),
        limits=RunLimits(**given["limits"]),
        skills=tuple(Skill(**each) for each in given["skills"]),
        layers=tuple(Layer(**each) for each in given["layers"]),
    )
    return AgentDefinition(**given)
