"""Daemons to be killed: forks one on each command, so that a hundred deaths cost little more than one import.

    worker.py HOME SOCKET          then one line on stdin for each daemon to start; its pid comes back on stdout

A daemon is the real engine, store and catalog, and answers newline-delimited `{"call", ...arguments}` on the socket.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from interactd.config import load
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Result
from interactd.models.catalog import ModelCatalog
from interactd.models.keys import KeyRing
from interactd.models.prices import Prices
from interactd.paths import find
from interactd.store.sqlite import SqliteStore
from support.forked import fork_each, serve


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

    Path(path).unlink(missing_ok=True)
    await serve(path, engine, shown)


if __name__ == "__main__":
    os.environ["INTERACTD_HOME"] = sys.argv[1]
    fork_each(lambda _: daemon(sys.argv[2]))
