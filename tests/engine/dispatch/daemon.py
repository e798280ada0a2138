"""An engine in a process of its own, to be stopped and killed.

    daemon.py DATABASE LEASE_S     then `{"call", ...arguments}` a line on stdin, answered by a line on stdout

Its model asks the parent: each call is a line `{"model": text}` on stdout, and is answered when `{"say": text}` comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.kit import ScriptedCatalog, ScriptedModel, said
from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.port import Result
from interactd.models.port import Finished, ModelEvent, ModelRequest
from interactd.store.sqlite import SqliteStore


def tell(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


class Asking(ScriptedModel):
    """A model whose answers come from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[str] = asyncio.Queue()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        tell({"model": request.steps[-1].text})
        text = await self.answers.get()
        for item in said(text):
            if not isinstance(item, BaseException | asyncio.Event):
                yield item
        yield Finished("stop", "stop", self.usage)


def shown(value: Any) -> Any:
    if isinstance(value, Result):
        one = value.interaction
        steps = [f"{step.type}: {step.text}" for step in value.steps]
        return {"id": one.id, "status": one.status, "epoch": one.epoch, "runner": one.runner, "steps": steps}
    return getattr(value, "id", None)


async def main() -> None:
    model = Asking()
    settings = EngineSettings(lease_s=float(sys.argv[2]))
    engine = LocalEngine(SqliteStore(Path(sys.argv[1])), ScriptedCatalog(model), settings)
    await engine.start()
    tell({"ready": os.getpid()})
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(asked: dict[str, Any]) -> None:
        tell({"result": shown(await getattr(engine, asked.pop("call"))(**asked))})

    while line := await reader.readline():
        asked = json.loads(line)
        if "say" in asked:
            model.answers.put_nowait(asked["say"])
            continue
        task = asyncio.create_task(answer(asked))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main())
