"""Another daemon's environments over the same data folder: a process of its own that does what it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from interactd.errors import InteractdError

TESTS = Path(__file__).parents[2]


class Other:
    """The end that tells. `numbers` keeps its interactions apart from those of others."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def tell(self, what: str, *arguments: Any) -> Any:
        """Have it do something; returns what came of it, `{"error"}` for what was refused."""
        await self.begin(what, *arguments)
        return await self.answer()

    async def begin(self, what: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, *arguments]).encode() + b"\n")
        await self._process.stdin.drain()

    async def answer(self, within_s: float = 30) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), within_s)
        assert line, "it died"
        return json.loads(line)

    async def kill(self) -> None:
        """SIGKILL, and see it dead."""
        os.kill(self.pid, signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def another(home: Path, numbers: int = 500) -> AsyncGenerator[Other]:
    """Start one; it ends in order, unless it was killed."""
    arguments = ["-c", "from sandbox.environments.other import main; main()", str(home), str(numbers)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
    )
    other = Other(process)
    try:
        assert await other.answer() == "ready"
        yield other
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                await other.kill()


async def _serve(home: Path, numbers: int) -> None:
    from interactd.sandbox.environments.making import Maker
    from sandbox.environments.kit import World

    world = World(home, numbers_from=numbers)
    environments = world.environments
    leases = AsyncExitStack()
    spaces: dict[str, Any] = {}

    async def stand_still(*_: object) -> None:
        _say("half")
        await asyncio.Event().wait()

    async def do(what: str, *of: Any) -> Any:
        if what == "create":
            return (await environments.create(of[0])).id
        if what == "lease":
            interaction = of[1] if of[1:] else await world.interaction()
            spaces[of[0]] = await leases.enter_async_context(environments.lease(of[0], interaction))
            return interaction
        if what == "python":
            return (await spaces[of[0]].run_python(of[1])).output
        if what == "release":
            await leases.aclose()
        elif what == "delete":
            return await environments.delete(of[0])
        elif what == "files":
            return sorted(one["path"] for one in await environments.files(of[0]))
        elif what == "tick":
            await environments.tick()
        elif what == "create_half":
            environments._disks.keep = stand_still  # type: ignore[method-assign]  # pyright: ignore
            await environments.create(of[0])
        elif what == "delete_half":
            Maker.remove = stand_still  # type: ignore[method-assign]  # pyright: ignore
            await environments.delete(of[0])
        return None

    await world.store.open()
    await environments.start()
    _say("ready")
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                _say(await do(*json.loads(line)))
            except InteractdError as error:
                _say({"error": error.code, **error.fields})
    finally:
        await leases.aclose()
        await environments.aclose()
        await world.store.aclose()


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
