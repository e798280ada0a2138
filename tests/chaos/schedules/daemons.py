"""Daemons with triggers and webhooks, to be killed, on a clock that runs sixty times as fast: a minute a second.

    daemons.py HOME BEGIN     then one line on stdin for each daemon to start, the path of its socket; its pid comes
                              back on stdout

Each answers newline-delimited `{"call", ...arguments}` (methods of `Engine.schedules`) on its socket.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from interactd.config import load
from interactd.durable.local import LocalSchedules
from interactd.durable.settings import DurableSettings
from interactd.engine import EngineSettings, LocalEngine
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.paths import find
from interactd.sandbox.credentials.store import Credentials
from interactd.store.port import Page
from interactd.store.sqlite import SqliteStore
from support.forked import fork_each, serve

SPEED = 60.0


def clock_from(begin: float) -> Callable[[], float]:
    """The time of day of a world that began at `begin` and lives sixty times as fast."""
    return lambda: begin + (time.time() - begin) * SPEED


def shown(value: Any) -> Any:
    if isinstance(value, Page):
        return {"items": [shown(one) for one in value.items], "cursor": value.cursor}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


async def daemon(path: str, begin: float) -> None:
    paths = find().make()
    clock = clock_from(begin)
    store = SqliteStore(paths.database)
    settings = DurableSettings(recheck_s=0.02, first_retry_s=5)
    schedules = LocalSchedules(
        store.schedules, Credentials(paths, name="webhook-secrets", keeping="file"), settings, clock=clock
    )
    catalog = ModelCatalog(load(paths), KeyRing())
    engine = LocalEngine(store, catalog, EngineSettings(), clock=clock, schedules=schedules)
    await engine.start()

    await serve(path, schedules, shown)


if __name__ == "__main__":
    os.environ["INTERACTD_HOME"] = sys.argv[1]
    begin = float(sys.argv[2])
    fork_each(lambda path: daemon(path, begin))
