"""How much of what is kept takes how much, and when it would go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interactd.engine.core import Core
from interactd.engine.retention.settings import RetentionSettings
from interactd.errors import StorageError
from interactd.nouns import Caller, Json

_ENTRIES_MAX: Final = 2_000_000


async def storage(core: Core, settings: RetentionSettings, caller: Caller) -> Json:
    """See `Engine.storage`."""
    if core.retention is None:
        raise StorageError("this store does not say what it takes", repair="Use the SQLite store.")
    sizes = await core.retention.sizes()
    files = await asyncio.to_thread(_measure, settings.places)
    watch = core.watch
    return {
        "database": sizes,
        "files": files,
        "total_bytes": sizes["bytes"] + sizes["wal_bytes"] + sizes["spare_bytes"] + sum(files.values()),
        "expiring": await core.retention.expiring(core.clock(), caller.owner),
        "retention": {
            "sessions_s": core.settings.default_ttl_s or None,
            "artifacts_s": settings.artifacts_s,
            "exports_s": settings.exports_s,
            "agents_s": settings.agents_s,
            "tombstones_s": settings.tombstones_s,
        },
        "clock_doubted": watch is not None and watch.doubted_until is not None,
    }


async def vacuum(core: Core) -> Json:
    """See `Engine.vacuum`."""
    if core.retention is None:
        raise StorageError("this store cannot be rewritten", repair="Use the SQLite store.")
    return await core.finish(core.retention.vacuum())


def _measure(places: Mapping[str, Path]) -> dict[str, int]:
    return {name: _size(str(path)) for name, path in places.items()}


def _size(top: str) -> int:
    """The bytes that a file or folder takes on the disk; what cannot be looked into is not counted."""
    total = seen = 0
    left = [top]
    while left and seen < _ENTRIES_MAX:
        where = left.pop()
        try:
            with os.scandir(where) as entries:
                for entry in entries:
                    seen += 1
                    info = entry.stat(follow_symlinks=False)
                    total += getattr(info, "st_blocks", 0) * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError:
            continue
    return total
