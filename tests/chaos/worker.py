"""Daemons to be killed: forks one on each command, so that a hundred deaths cost little more than one import.

    worker.py HOME SOCKET          then one line on stdin for each daemon to start; its pid comes back on stdout

A daemon is the real engine, store and catalog, and answers newline-delimited `{"call", ...arguments}` on the socket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from interactd.config import load
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Result
from interactd.errors import InteractdError
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.models.prices import Prices
from interactd.paths import find
from interactd.store.sqlite import SqliteStore


def shown(value: Any) -> Any:
    if isinstance(value, Result):
        return {
            "id": value.interaction.id,
            "status": value.interaction.status,
            "error": value.interaction.error,
            "epoch": value.interaction.epoch,
            "replayed": value.replayed,
            "cost": value.cost,
            "steps": [[step.seq, step.type, step.text] for step in value.steps],
            "waiting_for": [call["id"] for call in value.waiting_for],
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    return value


async def daemon(path: str) -> None:
    paths = find().make()
    config = load(paths)
    money = MoneySettings(Prices(config.prices), dict(config.budget.day))
    engine = LocalEngine(SqliteStore(paths.database), ModelCatalog(config, KeyRing()), EngineSettings(), money=money)
    await engine.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            try:
                reply = {"result": shown(await getattr(engine, asked.pop("call"))(**asked))}
            except InteractdError as error:
                reply = {"error": error.as_dict()}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    Path(path).unlink(missing_ok=True)
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
    for _ in sys.stdin:
        born = os.fork()
        if not born:
            asyncio.run(daemon(sys.argv[2]))
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
