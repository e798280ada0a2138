"""Deleting one session, however large it is."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from interactd.errors import StorageFull
from interactd.store.port import Receipt
from interactd.store.sqlite.checkpoints import truncate
from interactd.store.sqlite.queries import removal
from interactd.store.sqlite.writer import Work

T = TypeVar("T")
P = ParamSpec("P")
WAL_BYTES: Final = 2 << 20
"""The log is begun anew when it is longer than this, so that a large delete needs little room."""
_FULL_PAUSES_S: Final = (0.02, 0.1, 0.5)


class Read(Protocol):
    """The store's readers."""

    async def __call__(
        self, run: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


class Write(Protocol):
    """The store's writer."""

    async def __call__(self, run: Work[T], *, bare: bool = False) -> T: ...


async def delete(read: Read, write: Write, file: Path, id: str, now: float) -> Receipt:
    """Delete a session; see `Store.delete_session`."""
    if await read(removal.is_large, id):
        await write(lambda db: removal.begin(db, id, now, "deleted"))
        await _empty(write, file, id)
    return await write(lambda db: removal.delete(db, id, now))


async def sweep_one(read: Read, write: Write, file: Path, id: str, now: float) -> Receipt | None:
    """Delete one that has expired, unless a turn has given it more time since."""
    if await read(removal.is_large, id):
        if not await write(functools.partial(_begin_if_over, id=id, now=now)):
            return None
        await _empty(write, file, id)
    return await write(functools.partial(removal.sweep_one, id=id, now=now))


def _begin_if_over(connection: sqlite3.Connection, id: str, now: float) -> bool:
    over = removal.is_over(connection, id, now)
    if over:
        removal.begin(connection, id, now, "expired")
    return over


async def _empty(write: Write, file: Path, id: str) -> None:
    wal = file.with_name(file.name + "-wal")
    while await _piece(write, id):
        if wal.exists() and wal.stat().st_size > WAL_BYTES:
            await write(truncate, bare=True)


async def _piece(write: Write, id: str) -> bool:
    """Take a piece of it away; returns whether there is more. On a full disk the log's own room is used again first,
    which a checkpoint that is under way keeps for a moment."""
    for pause_s in _FULL_PAUSES_S:
        try:
            return await write(lambda db: removal.piece(db, id))
        except StorageFull:
            await asyncio.sleep(pause_s)
            await write(truncate, bare=True)
    return await write(lambda db: removal.piece(db, id))
