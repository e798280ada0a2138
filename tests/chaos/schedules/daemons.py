"""Daemons with triggers and webhooks, to be killed, on a clock that runs sixty times as fast: a minute a second.

    daemons.py HOME BEGIN     then one line on stdin for each daemon to start, the path of its socket; its pid comes
                              back on stdout

Each answers newline-delimited `{"call", ...arguments}` (methods of `Engine.schedules`) on its socket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interactd.config import load
from interactd.durable.local import LocalSchedules
from interactd.durable.settings import DurableSettings
from interactd.engine import EngineSettings, LocalEngine
from interactd.errors import InteractdError
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.paths import find
from interactd.sandbox.credentials.store import Credentials
from interactd.store.port import Page
from interactd.store.sqlite import SqliteStore

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

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            try:
                reply = {"result": shown(await getattr(schedules, asked.pop("call"))(**asked))}
            except InteractdError as error:
                reply = {"error": error.as_dict()}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    parent = os.getppid()

    def leave_with_parent() -> None:
        if os.getppid() != parent:
            os._exit(1)
        asyncio.get_running_loop().call_later(0.5, leave_with_parent)

    leave_with_parent()
    server = await asyncio.start_unix_server(answer, path + ".new", limit=1 << 24)
    # Appears only when it answers.
    Path(path + ".new").rename(path)
    await server.serve_forever()


def main() -> None:
    alive: set[int] = set()
    for line in sys.stdin:
        born = os.fork()
        if not born:
            asyncio.run(daemon(line.strip(), float(sys.argv[2])))
            os._exit(0)
        alive.add(born)
        print(born, flush=True)
        alive -= {pid for pid in alive if os.waitpid(pid, os.WNOHANG)[0]}
    for pid in alive:
        # Whoever ran us has gone: so must the daemons. Not reaped yet, so the pid is still theirs.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    os.environ["INTERACTD_HOME"] = sys.argv[1]
    main()
