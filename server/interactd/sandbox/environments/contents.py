"""Kept contents: one file for each sha256, and archives made of them. Never rewritten, never linked to a workspace."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import shutil
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

SYNCED_ONE_BY_ONE: Final = 32
_CHUNK: Final = 1 << 20
_HEX: Final = frozenset("0123456789abcdef")


class Contents:
    """The folder `artifacts`: `ab/<sha256>` (0600), `tmp/` for what is being written, `zips/` for archives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"
        self.zips = root / "zips"

    def make(self, *, alone: bool = True) -> None:
        """Create the folders, 0700, and drop what a killed process was writing; unless another one may be writing."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if alone:
            shutil.rmtree(self.tmp, ignore_errors=True)
        for folder in (self.tmp, self.zips):
            folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def take(self, fd: int, size: int) -> tuple[Path, str, int, bytes]:
        """Copy up to `size` bytes of an open file to `tmp`.

        Returns:
            Where it is, its sha256, how many bytes it has, and the first of them.
        """
        digest = hashlib.sha256()
        part = self.tmp / secrets.token_hex(16)
        out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        done, first = 0, b""
        try:
            while done < size:
                data = os.pread(fd, min(_CHUNK, size - done), done)
                if not data:
                    break
                first = first or data[:4096]
                digest.update(data)
                left = memoryview(data)
                while left:
                    left = left[os.write(out, left) :]
                done += len(data)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(out)
        return part, digest.hexdigest(), done, first

    def settle(self, parts: Sequence[Path]) -> None:
        """Bring what `take` wrote to the disk, so that no row ever speaks of bytes that a power cut took."""
        if len(parts) > SYNCED_ONE_BY_ONE and sys.platform == "linux":
            fd = os.open(self.tmp, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if ctypes.CDLL(None).syncfs(fd) == 0:
                    return
            finally:
                os.close(fd)
        for part in parts:
            fd = os.open(part, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def publish(self, part: Path, sha256: str) -> None:
        """Move what `take` wrote to its place. What is there already has the same bytes."""
        target = self.path(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.replace(target)

    def remove(self, sha256: Iterable[str]) -> None:
        for one in sha256:
            self.path(one).unlink(missing_ok=True)

    def everything(self) -> Iterable[str]:
        """Yield every sha256 that there is a file of."""
        for folder in self.root.iterdir():
            if len(folder.name) == 2 and set(folder.name) <= _HEX and folder.is_dir():
                for file in folder.iterdir():
                    yield file.name

    def zip(self, interaction_id: str, files: list[tuple[str, str]]) -> Path:
        """Pack (name, sha256) pairs into an archive, once: the same files give the same archive. It is called
        `<what is in it>.<its own sha256>.zip`.

        Raises:
            OSError: a content is missing, or there is no room.
        """
        tag = hashlib.sha256("\n".join(f"{sha256} {name}" for name, sha256 in sorted(files)).encode()).hexdigest()
        folder = self.zips / interaction_id
        folder.mkdir(mode=0o700, exist_ok=True)
        for there in folder.glob(f"{tag[:32]}.*.zip"):
            return there
        part = self.tmp / secrets.token_hex(16)
        taken: set[str] = set()
        try:
            with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for name, sha256 in sorted(files):
                    info = zipfile.ZipInfo(_portable(name, taken))
                    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
                    with self.path(sha256).open("rb") as source, archive.open(info, "w", force_zip64=True) as out:
                        shutil.copyfileobj(source, out, _CHUNK)
            part.chmod(0o600)
            with part.open("rb") as file:
                target = folder / f"{tag[:32]}.{hashlib.file_digest(file, 'sha256').hexdigest()}.zip"
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target


def _portable(name: str, taken: set[str]) -> str:
    """A name that no unpacker reads as a way out: printable already, and without backslashes or drive letters."""
    name = name.replace("\\", "_").replace(":", "_").lstrip("/")
    name = "/".join("_" if part in ("", ".", "..") else part for part in name.split("/"))
    whole, number = name, 1
    while whole.lower() in taken:
        number += 1
        stem, dot, ending = name.rpartition(".")
        whole = f"{stem} ({number}){dot}{ending}" if dot and "/" not in ending else f"{name} ({number})"
    taken.add(whole.lower())
    return whole
