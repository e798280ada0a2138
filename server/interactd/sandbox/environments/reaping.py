"""What dead daemons left: environments half-made or half-removed, folders without a row, rows without a folder.

Whoever makes or removes one has it claimed (see `claims`). A claim dies with its daemon, so that what is unfinished and
claimed by nobody is nobody's; any daemon on the data folder removes it then, and needs not know of any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

from interactd.errors import InteractdError, InvalidArgument
from interactd.ids import parse_prefix
from interactd.nouns import Json
from interactd.sandbox.disks import Disks
from interactd.sandbox.environments import records
from interactd.sandbox.environments.making import HALF, Maker
from interactd.sandbox.environments.records import Records
from interactd.sandbox.folder import locks

log = logging.getLogger(__name__)
UNFINISHED = ("creating", "deleting", "expiring")


class Reaper:
    """Cleans beneath `root`.

    Args:
        remove: removes the files of a row that says that they go, and leaves its tombstone.
    """

    def __init__(
        self, root: Path, store: Records, disks: Disks, maker: Maker, remove: Callable[[Json], Awaitable[object]]
    ) -> None:
        self._root = root
        self._store = store
        self._disks = disks
        self._maker = maker
        self._remove = remove
        self._known: set[str] = set()
        """Names that were seen to be those of active environments: they are finished by rows from then on."""
        self._told: set[str] = set()

    async def once(self) -> None:
        """Remove what is unfinished and claimed by nobody.

        Raises:
            InteractdError: the store cannot be read.
        """
        if left := await asyncio.to_thread(self._disks.reap):
            log.info("%d mounts and loop devices of a killed daemon were removed", left)
        for row in await self._store.list_environments(statuses=UNFINISHED, limit=1_000_000):
            with self._said(row["id"]):
                await self._finish(row["id"])
        names = await asyncio.to_thread(self._maker.names)
        self._known &= names
        for name in names - self._known:
            with self._said(name):
                await self._look(name)

    async def missing(self) -> None:
        """Mark as deleted what has no folder any more: somebody removed it."""
        rows = await self._store.list_environments(limit=1_000_000)
        there = await asyncio.to_thread(self._maker.names)
        for id in {row["id"] for row in rows} - there:
            # Who removes a folder says so in its row first: the folder is looked for before the row is read again.
            gone = not await asyncio.to_thread(self._maker.whole(id).exists)
            row = await self._store.get_environment(id)
            if gone and row is not None and row["status"] == "active":
                log.warning("the folder of environment %s is missing", id)
                await self._store.put_environment(records.tombstone(row, "deleted", None))

    async def _finish(self, id: str) -> None:
        # First the name that a folder has first: it cannot be between the two unseen.
        async with self._nobodys(self._maker.half(id), self._maker.whole(id)) as free:
            row = await self._store.get_environment(id) if free else None
            if row is None or row["status"] not in UNFINISHED:
                return
            if row["status"] != "creating":
                await self._remove(row)
                return
            log.info("environment %s, which a killed daemon was making, is removed", id)
            await self._maker.remove(id)
            await self._store.forget_environment(id)

    async def _look(self, name: str) -> None:
        if await self._has_row(name):
            return
        async with self._nobodys(self._root / name) as free:
            # Again: it may have been finished until a moment ago.
            if free and not await self._has_row(name):
                await self._maker.remove_stray(name)

    async def _has_row(self, name: str) -> bool:
        """Whether a name among the folders is that of an environment, or of one that its row will see finished."""
        id = name.removeprefix(HALF)
        try:
            if parse_prefix("environment", id) != id:
                return False
        except InvalidArgument:
            return False
        row = await self._store.get_environment(id)
        if row is not None and row["status"] == "active" and id == name:
            self._known.add(name)
            return True
        return row is not None and row["status"] in UNFINISHED

    @asynccontextmanager
    async def _nobodys(self, *folders: Path) -> AsyncGenerator[bool]:
        """Claim what is there of these folders, all of it or nothing; says whether it was to be had."""
        held: list[int] = []

        def take() -> bool:
            for folder in folders:
                try:
                    fd = locks.take(folder)
                except OSError:
                    # Not there, or no folder: nobody makes those.
                    continue
                if fd is None:
                    return False
                held.append(fd)
            return True

        taking = asyncio.ensure_future(asyncio.to_thread(take))
        try:
            yield await asyncio.shield(taking)
        finally:
            await asyncio.wait({taking})
            for fd in held:
                os.close(fd)

    @contextlib.contextmanager
    def _said(self, what: str) -> Generator[None]:
        """Say once what cannot be removed, and go on; it is tried again each time."""
        try:
            yield
        except (InteractdError, OSError) as error:
            level = logging.DEBUG if what in self._told else logging.WARNING
            self._told.add(what)
            log.log(level, "what is left of %s cannot be removed: %s", what, error)
