"""Opening the file: who may read it, where it may lie, what its connections are set to, what its errors mean."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from interactd.errors import InteractdError, StorageError, StorageFull

log = logging.getLogger(__name__)

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
FULL_BELOW_BYTES = 1 << 20
"""With less free space than this an I/O error is taken for what it most likely is: a full disk."""

# WAL keeps its index in memory shared by mmap, which these do not keep coherent.
_NETWORK = frozenset(
    {
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "afs",
        "ncpfs",
        "glusterfs",
        "ceph",
        "lustre",
        "davfs",
        "davfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.rclone",
    }
)
_SYNCED = ("Dropbox", "OneDrive", "Google Drive", "GoogleDrive", "Mobile Documents", "CloudStorage")


def connect(path: Path, *, busy_s: float, read_only: bool = False) -> sqlite3.Connection:
    """Open one connection in autocommit mode with our settings. Transactions are begun by hand.

    Args:
        path: the database file; it must exist.
        busy_s: how long one statement waits for a lock that somebody else holds.
        read_only: refuse every write on this connection.
    """
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        # Checkpoints inside a commit stall it for up to a quarter of a second; they have a thread of their own.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -8000")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def make_file(path: Path) -> None:
    """Create the file, readable by this user only, or take other people's rights off an existing one.

    Raises:
        StorageError: SQLite is too old, the place cannot hold a WAL database, or may not be written.
        StorageFull: no room.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StorageError(
            f"SQLite {sqlite3.sqlite_version} is too old, 3.37 or newer is needed",
            repair="Run interactd with another Python, for example one that uv installs: uv python install 3.12.",
        )
    refuse_network(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the -wal and -shm files the mode of the database.
        if path.exists():
            if os.name == "posix" and path.stat().st_mode & 0o077:
                path.chmod(0o600)
        else:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise full(path) from error
        raise StorageError(
            f"{path} cannot be created: {error.strerror or error}",
            repair="Give this user write access to the folder, or set INTERACTD_HOME to another one.",
            path=str(path),
        ) from error


def use_wal(connection: sqlite3.Connection, path: Path, *, wait_s: float = 30.0) -> None:
    """Put the file into WAL mode (a mark in the file that stays).

    Raises:
        StorageError: the file system cannot do it, or another program kept the file locked.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            # The change needs the file for itself, and SQLite does not always ask the busy handler for that.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StorageError(
            f"{path} lies on a file system that cannot hold a database in WAL mode",
            repair="Set INTERACTD_HOME to a folder on a local disk.",
            path=str(path),
        )


def refuse_network(path: Path) -> None:
    """Refuse a network file system where that can be told cheaply; warn of a folder that a cloud client copies.

    Raises:
        StorageError: the path is on a network file system.
    """
    where = Path(os.path.realpath(path))
    if any(name in part for part in where.parts for name in _SYNCED):
        log.warning(
            "%s seems to be in a folder that is synchronised to a cloud; a copy made in mid-write is damaged", path
        )
    if not sys.platform.startswith("linux"):
        return
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    kind, longest = "", -1
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = point == "/" or str(where) == point or str(where).startswith(point + "/")
        # A later mount on the same point hides an earlier one.
        if inside and len(point) >= longest:
            kind, longest = fields[2], len(point)
    if kind in _NETWORK:
        raise StorageError(
            f"{path} is on a network file system ({kind}), where SQLite can lose data",
            repair="Set INTERACTD_HOME to a folder on a local disk.",
            path=str(path),
        )


def code_of(error: BaseException) -> int:
    """Return SQLite's primary result code of an error, 0 if there is none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether somebody else's lock is the reason: waiting helps."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def full(path: Path) -> StorageFull:
    """Return the error for a full disk."""
    free = free_bytes(path)
    return StorageFull(
        f"the disk that holds {path} is full ({free:,} bytes are free); nothing of this call was kept",
        repair="Free some space on it, then make the same call again; `interactd data` shows what of interactd's could"
        " go. What was kept before can still be read and deleted, and what runs is finished.",
        path=str(path),
        free_bytes=free,
    )


def room_for_vacuum(path: Path) -> int:
    """Return the bytes that rewriting the file takes on its disk for a while: a copy, and the log of its way back."""
    try:
        return 2 * path.stat().st_size + FULL_BELOW_BYTES
    except OSError:
        return FULL_BELOW_BYTES


def identity(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Return what tells the database and its WAL from others that may come to lie at the same paths."""
    found: list[tuple[int, int] | None] = []
    for name in (str(path), f"{path}-wal"):
        try:
            info = Path(name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((info.st_dev, info.st_ino))
    return tuple(found)


def removed(path: Path) -> StorageError:
    """Return the error for a file that is no longer the one that was opened."""
    return StorageError(
        f"{path} or its -wal file was removed or replaced while it was in use; nothing of this call was kept",
        repair="Put it back, or run `interactd stop`: the next call begins with what lies there then.",
        path=str(path),
    )


def damaged(path: Path, why: str) -> StorageError:
    """Return the error for a file that is no sound database."""
    return StorageError(
        f"{path} is damaged: {why}",
        repair=f"It was left as it is. Stop interactd (interactd stop), move {path.name}, {path.name}-wal and"
        f" {path.name}-shm elsewhere and start again; `sqlite3 {path.name} .recover` can save what is readable.",
        path=str(path),
    )


def translate(error: Exception, path: Path) -> InteractdError:
    """Turn what the sqlite3 module raised into one of our errors, with what to do next."""
    if isinstance(error, InteractdError):
        return error
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL or (code in _SPACE_MAY_BE_WHY and free_bytes(path) < FULL_BELOW_BYTES):
        return full(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if is_busy(error):
        return StorageError(
            f"another program keeps {path} locked",
            repair="Close the program that has the file open (a SQLite shell with an open transaction?) and try again.",
            path=str(path),
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return StorageError(
            f"{path} cannot be opened for writing: {error}",
            repair="Give this user write access to the file and its folder, or set INTERACTD_HOME to another one.",
            path=str(path),
        )
    return StorageError(f"{path}: {error}", repair="Look at server_status and the daemon's log.", path=str(path))


def bytes_of(file: Path) -> int:
    """Return the file's size; 0 when there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def free_bytes(path: Path) -> int:
    """Return the bytes this user can still write on the file's disk; a large number when that cannot be told."""
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 1 << 62


_NO_ROOM = {28, 122}  # ENOSPC, EDQUOT
_SPACE_MAY_BE_WHY = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
