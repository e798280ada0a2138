"""Writing an archive: member by member, never more than a piece of it in memory, and whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from interactd.engine.archive.layout import MANIFEST, MEMBER_TIME, Manifest, Member

_CHUNK: Final = 1 << 20
_PACKED: Final = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"7z\xbc\xaf",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
)


class Writer:
    """One archive under way. Blocking."""

    def __init__(self, out: zipfile.ZipFile) -> None:
        self._zip = out
        self.members: list[Member] = []

    @contextmanager
    def member(self, name: str, *, packed: bool = False, executable: bool = False) -> Generator[Sink]:
        """Write one member; `packed` content is not packed again."""
        info = zipfile.ZipInfo(name, MEMBER_TIME)
        info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
        info.create_system, info.external_attr = 3, (0o100700 if executable else 0o100600) << 16
        with self._zip.open(info, "w", force_zip64=True) as stream:
            sink = Sink(stream)
            yield sink
        self.members.append(Member(name, sink.bytes, sink.digest.hexdigest()))

    def copy(self, name: str, source: IO[bytes], *, executable: bool = False) -> Iterator[int]:
        """Copy a file into a member; yields the bytes of each piece."""
        first = source.read(_CHUNK)
        with self.member(name, packed=first.startswith(_PACKED), executable=executable) as sink:
            data = first
            while data:
                sink.write(data)
                yield len(data)
                data = source.read(_CHUNK)

    def end(self, manifest: Manifest) -> None:
        """Write the manifest, the last member."""
        manifest.members = list(self.members)
        with self.member(MANIFEST) as sink:
            sink.write(manifest.as_bytes())


class Sink:
    """A member that is being written: counts and hashes what goes through. Has what `tarfile` needs of a file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self.digest.update(data)
        self.bytes += len(data)
        return len(data)


@contextmanager
def new_file(target: Path, *, replace: bool, notes: Path) -> Generator[tuple[Writer, list[str]]]:
    """Write an archive to `target`, which appears when it is whole; nothing is left of one that failed. For whoever
    comes after a death in the middle, `notes` has where it was being written (`remove_unfinished`).

    Yields the writer, and a list into which the file's own sha256 is put at the end.

    Raises:
        FileExistsError: `target` is there, and is not to be replaced.
        OSError: no room, no right.
    """
    if not replace and target.exists():
        raise FileExistsError(17, "it is there already", str(target))
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    digest: list[str] = []
    note = notes / part.name
    notes.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.write_text(str(part), encoding="utf-8", errors="surrogateescape")
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as out:
                yield Writer(out), digest
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest.append(hashlib.file_digest(file, "sha256").hexdigest())
        if replace:
            part.replace(target)
        else:
            # Unlike a rename, this fails when somebody made one meanwhile.
            os.link(part, target)
            part.unlink()
        _sync(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
            notes.rmdir()


def remove_unfinished(notes: Path) -> None:
    """Remove what a killed process was writing, wherever that was, and its notes."""
    for note in notes.glob(".*.part"):
        with contextlib.suppress(OSError, ValueError):
            part = Path(note.read_text(encoding="utf-8", errors="surrogateescape"))
            # A note that was cut short names nothing of ours.
            if part.name == note.name:
                part.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        notes.rmdir()


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
