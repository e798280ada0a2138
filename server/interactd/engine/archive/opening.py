"""Opening somebody's archive: what is in it is believed only as far as it was checked.

The zip's own directory is held to the manifest member by member, sizes before bytes, and every byte that is read is
hashed. No member is ever unpacked under the name that the archive gives it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from interactd.engine.archive.layout import (
    DEPTH_MAX,
    LINE_MAX,
    MANIFEST,
    MANIFEST_MAX,
    MEMBERS_MAX,
    RATIO_FREE,
    RATIO_MAX,
    Manifest,
    Member,
    is_allowed,
    jsonl,
    read_manifest,
)
from interactd.errors import InvalidArgument, NotFound
from interactd.nouns import Json
from interactd.store.archive_port import RecordKind

_CHUNK: Final = 1 << 20
_BROKEN: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
    MemoryError,
)
"""What zipfile raises for what is no zip, one after the other."""
_REPAIR: Final = "Nothing was imported. Use an archive as `interactd export` wrote it; a copy may have been damaged."


def bad(message: str, *, member: str | None = None, line: int | None = None) -> InvalidArgument:
    """Return the error for an archive that is refused, with the place."""
    where = "" if member is None else f"{member[:200]}{f' line {line}' if line else ''}: "
    return InvalidArgument(f"{where}{message}", repair=_REPAIR, field="path", member=member, line=line)


class Opened:
    """An archive whose directory and manifest agree."""

    def __init__(self, file: zipfile.ZipFile, manifest: Manifest, infos: dict[str, zipfile.ZipInfo]) -> None:
        self._zip = file
        self._infos = infos
        self.manifest = manifest
        self.members = {one.name: one for one in manifest.members}

    @property
    def unpacked_bytes(self) -> int:
        return sum(one.bytes for one in self.manifest.members)

    def is_executable(self, name: str) -> bool:
        """Whether a member is marked as a program."""
        return bool(self._infos[name].external_attr >> 16 & 0o100)

    @contextmanager
    def read(self, name: str) -> Generator[Checked]:
        """Open a member; when everything was read, its size and hash have been checked.

        Raises:
            InvalidArgument: they are not what the manifest says, or the bytes cannot be unpacked.
        """
        try:
            stream = self._zip.open(self._infos[name])
        except _BROKEN as error:
            raise bad(f"cannot be unpacked: {str(error)[:200]}", member=name) from None
        with stream:
            checked = Checked(stream, self.members[name])
            yield checked
            checked.end()

    def records(self, kind: RecordKind) -> Iterator[tuple[int, Json, bytes]]:
        """Yield `(line, record, its bytes)` of a kind; nothing where an older archive has none of it.

        Raises:
            InvalidArgument: a line is too long, or no JSON object.
        """
        name = jsonl(kind)
        number = 0
        if name not in self.members and kind not in self.manifest.kinds:
            return
        with self.read(name) as stream:
            for number, text in enumerate(_lines(stream, name), 1):
                yield number, _parse(text, name, number), text
        expected = self.manifest.counts.get(kind, 0)
        if number != expected:
            raise bad(f"has {number:,} records, the manifest says {expected:,}", member=name)


class Checked:
    """A member that is being read: cut off where the manifest says that it ends, hashed on the way."""

    def __init__(self, stream: IO[bytes], member: Member) -> None:
        self._stream = stream
        self._member = member
        self._digest = hashlib.sha256()
        self._bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes (a megabyte at most); empty at the end."""
        wanted = _CHUNK if size < 0 else min(size, _CHUNK)
        try:
            data = self._stream.read(wanted)
        except _BROKEN as error:
            raise bad(f"cannot be unpacked: {str(error)[:200]}", member=self._member.name) from None
        self._bytes += len(data)
        if self._bytes > self._member.bytes:
            raise bad(f"has more than the {self._member.bytes:,} bytes of the manifest", member=self._member.name)
        self._digest.update(data)
        return data

    def end(self) -> None:
        """Read what is left, and check the whole.

        Raises:
            InvalidArgument: it is not what the manifest says.
        """
        while self.read():
            pass
        if self._bytes != self._member.bytes:
            raise bad(f"has {self._bytes:,} bytes, the manifest says {self._member.bytes:,}", member=self._member.name)
        if self._digest.hexdigest() != self._member.sha256:
            raise bad("is damaged: its sha256 is not the manifest's", member=self._member.name)


@contextmanager
def opened(path: Path) -> Generator[Opened]:
    """Open an archive. Blocking.

    Raises:
        NotFound: no such file.
        InvalidArgument: it is no archive of ours, or a damaged or hostile one.
    """
    try:
        # Looked at before it is opened: a pipe could be waited for.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidArgument(f"path: {path} is not a file", field="path")
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {path}", repair="Give the path of an archive.", kind="file", id=str(path)
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"path: {str(path)[:500]!r} cannot be read: {error}", field="path") from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except (*_BROKEN, OSError) as error:
            raise bad(f"{path} is not a zip: {str(error)[:200]}") from None
        with archive:
            yield _check(archive, os.fstat(file.fileno()).st_size)


def _check(archive: zipfile.ZipFile, size: int) -> Opened:
    infos: dict[str, zipfile.ZipInfo] = {}
    if len(archive.infolist()) > MEMBERS_MAX:
        raise bad(f"has more than {MEMBERS_MAX:,} members")
    for info in archive.infolist():
        _check_entry(info)
        if info.filename in infos:
            raise bad("is there twice", member=info.filename)
        infos[info.filename] = info
    _no_overlaps(archive.infolist(), size)
    if MANIFEST not in infos:
        raise bad("is missing", member=MANIFEST)
    manifest = _manifest(archive, infos.pop(MANIFEST))
    names = [one.name for one in manifest.members]
    if len(set(names)) != len(names):
        raise bad("names a member twice", member=MANIFEST)
    for name in sorted({*names, *infos} - (set(names) & set(infos))):
        where = "is not in the manifest" if name in infos else "is in the manifest and not in the zip"
        raise bad(where, member=name)
    for one in manifest.members:
        if infos[one.name].file_size != one.bytes:
            raise bad(f"has {infos[one.name].file_size:,} bytes, the manifest says {one.bytes:,}", member=one.name)
    for kind in manifest.kinds:
        if jsonl(kind) not in infos:
            raise bad("is missing", member=jsonl(kind))
    total = sum(one.bytes for one in manifest.members)
    if total > RATIO_FREE and total > RATIO_MAX * size:
        raise bad(f"would unpack to {total:,} bytes from {size:,}: no archive of ours packs that well")
    return Opened(archive, manifest, infos)


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if name != MANIFEST and not is_allowed(name):
        raise bad("no archive has a member of this name", member=name)
    if info.orig_filename != name:
        raise bad("has another name inside", member=name)
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise bad("is a link or device, not a file", member=name)
    if info.flag_bits & 0x1:
        raise bad("is encrypted", member=name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise bad(f"is packed in a way that is not ours ({info.compress_type})", member=name)


def _no_overlaps(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Members that share their bytes make a small file unpack to a huge one."""
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end or info.header_offset + 30 + info.compress_size > size:
            raise bad("shares its bytes with another member, or lies outside of the file", member=info.filename)
        end = info.header_offset + 30 + info.compress_size


def _manifest(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Manifest:
    if info.file_size > MANIFEST_MAX:
        raise bad(f"is larger than {MANIFEST_MAX:,} bytes", member=MANIFEST)
    try:
        with archive.open(info) as stream:
            data = stream.read(MANIFEST_MAX + 1)
    except _BROKEN as error:
        raise bad(f"cannot be unpacked: {str(error)[:200]}", member=MANIFEST) from None
    try:
        return read_manifest(data)
    except ValueError as error:
        raise bad(str(error), member=MANIFEST) from None


def _lines(stream: Checked, name: str) -> Iterator[bytes]:
    left = b""
    number = 1
    while data := stream.read():
        *whole, left = (left + data).split(b"\n") if b"\n" in data else (left + data,)
        for text in whole:
            yield text + b"\n"
            number += 1
        if len(left) > LINE_MAX:
            raise bad(f"is longer than {LINE_MAX:,} bytes", member=name, line=number)
    if left:
        raise bad("does not end", member=name, line=number)


def _parse(text: bytes, name: str, number: int) -> Json:
    try:
        found: Any = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise bad("is nested too deep", member=name, line=number) from None
    except ValueError as error:
        raise bad(f"is not JSON: {str(error)[:200]}", member=name, line=number) from None
    if not isinstance(found, dict):
        raise bad("is not an object", member=name, line=number)
    if text.count(b"[") + text.count(b"{") > DEPTH_MAX and _depth(found) > DEPTH_MAX:
        raise bad(f"is nested more than {DEPTH_MAX} levels deep", member=name, line=number)
    return cast("Json", found)


def _once(pairs: list[tuple[str, Any]]) -> Json:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a field is there twice")
    return made


def _depth(value: Any) -> int:
    """How deep it is nested, without recursion."""
    deepest = 0
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        one, depth = left.pop()
        deepest = max(deepest, depth)
        inner: list[Any] = []
        if isinstance(one, dict):
            inner = list(cast("Json", one).values())
        elif isinstance(one, list):
            inner = cast("list[Any]", one)
        left += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]
    return deepest
