"""A home, a provider on loopback, a counter outside of everything, and daemons that are killed one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chaos.runs.leaks import left
from interactd.shim import connect
from support.hosts import Home
from support.provider import FakeProvider, Item

Json = dict[str, Any]
CHAOSD = str(Path(__file__).with_name("chaosd.py"))
PATIENCE_S = 60.0
OPEN = ("queued", "in_progress", "requires_action")


class Gone(Exception):
    """The daemon died, or left, before it answered."""


class Failed(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.error = error
        self.code = str(error.get("code"))


class Marks:
    """The counter: a line over TCP is an effect. It is written down first, and answered `hold_s` later."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.order: list[str] = []
        self.by: dict[str, list[int]] = {}
        """Pids of the daemons that made it, by call."""
        self.hold_s = 0.05
        self.gate: asyncio.Event | None = None
        """While it is there and not set, nobody is answered."""
        self.address = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Marks:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            call, _, pid = (await reader.readline()).decode().strip().partition(" ")
            if call:
                self.seen[call] += 1
                self.order.append(call)
                self.by.setdefault(call, []).append(int(pid))
                gate = self.gate
                await asyncio.sleep(self.hold_s)
                if gate is not None:
                    await gate.wait()
                writer.write(f"bumped {call}\n".encode())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()


class Control:
    """A control connection: `call`, and `events` as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def call(self, method: str, **params: Any) -> Any:
        """Raises: Gone, Failed."""
        async for is_event, value in self._ask(method, params):
            if not is_event:
                return value
        raise AssertionError("unreachable")

    async def events(self, interaction_id: str, after: int = 0) -> AsyncIterator[Json]:
        """Raises: Gone, Failed."""
        async for is_event, value in self._ask("events", {"interaction_id": interaction_id, "after": after}):
            if is_event:
                yield value

    async def _ask(self, method: str, params: Json) -> AsyncIterator[tuple[bool, Any]]:
        self._number += 1
        try:
            line = json.dumps({"id": self._number, "method": method, "params": params})
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()
            while line := await self._reader.readline():
                said = json.loads(line)
                if said.get("id") != self._number:
                    continue
                if "error" in said:
                    raise Failed(said["error"])
                yield "event" in said, said.get("event", said.get("result"))
                if "event" not in said:
                    return
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Gone from error
        raise Gone

    def close(self) -> None:
        self._writer.close()


class World:
    """What a chaos test has at hand. `daemons` are pids; the last one is the one that is talked to."""

    def __init__(self, home: Home, provider: FakeProvider, marks: Marks, nursery: asyncio.subprocess.Process) -> None:
        self.home = home
        self.provider = provider
        self.marks = marks
        self.pid = 0
        self.pids: list[int] = []
        self.deaths = 0
        self._nursery = nursery
        self._connection = connect.new_connection()

    async def start(self, **env: str) -> int:
        """Fork the next daemon and wait until it answers."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(" ".join(f"{n}={v}" for n, v in env.items()).encode() + b"\n")
        self.pid = int(await asyncio.wait_for(self._nursery.stdout.readline(), PATIENCE_S))
        self.pids.append(self.pid)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if (await self.call("status"))["pid"] == self.pid:
                        return self.pid
                except Gone:
                    pass
                await asyncio.sleep(0.01)

    async def leave(self) -> None:
        """The last daemon leaves in order; nothing may be left then of any of them."""
        try:
            self.pid = (await self.call("status"))["pid"]
        except Gone:
            await self.start()
        self.pids.append(self.pid)
        self.kill(signal.SIGTERM)
        await until(lambda: not alive(self.pid))
        leaks = [""]
        for _ in range(50):
            # The kernel may still be at it.
            if not (leaks := left(self.home.paths, self.home.root, self.pids, self._nursery.pid)):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(leaks)

    def kill(self, number: int = signal.SIGKILL, pid: int | None = None) -> None:
        os.kill(pid or self.pid, number)
        self.deaths += number == signal.SIGKILL

    @asynccontextmanager
    async def control(self, socket: Path | None = None) -> AsyncGenerator[Control]:
        """Connect to the daemon. Raises: Gone."""
        hello: Json = connect.make_hello(self.home.paths, "control", self._connection, {})
        hello["env"] = {}
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket or self.home.paths.socket), limit=1 << 26)
        except OSError as error:
            raise Gone from error
        try:
            writer.write(json.dumps(hello).encode() + b"\n")
            try:
                said = await reader.readline()
            except OSError as error:
                raise Gone from error
            if not said or not json.loads(said)["ok"]:
                raise Gone
            yield Control(reader, writer)
        finally:
            writer.close()

    async def call(self, method: str, *, socket: Path | None = None, **params: Any) -> Any:
        """One call on a connection of its own. Raises: Gone, Failed."""
        async with self.control(socket) as control:
            return await control.call(method, **params)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the store behind everybody's back."""
        db = sqlite3.connect(f"file:{self.home.paths.database}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute(query, values).fetchall()
        finally:
            db.close()

    async def session(self, key: str | None = None, **more: Any) -> str:
        made = await self.call("create_session", agent="helper", model="fake/fake-model-1", idempotency_key=key, **more)
        return made["id"]

    async def send(self, session: str, text: str, key: str | None = None, **more: Any) -> str:
        """Send a background turn; returns its id."""
        given: Json = {"background": True, "if_busy": "queue", **more}
        sent = await self.call("send_turn", session_id=session, content=text, idempotency_key=key, **given)
        return sent["interaction"]["id"]

    async def ended(self, interaction_id: str, within_s: float = PATIENCE_S) -> Json:
        """Wait until the interaction rests; returns it as the daemon tells it."""
        seen = await self.call("wait", interaction_id=interaction_id, timeout_s=within_s)
        assert seen["interaction"]["status"] not in ("queued", "in_progress"), seen["interaction"]
        return seen


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Look again every 10 ms until there is something."""
    async with asyncio.timeout(within_s):
        while True:
            if found := condition():
                return found
            await asyncio.sleep(0.01)


def configure(home: Home, provider: FakeProvider, more: str = "") -> None:
    home.paths.make()
    home.paths.config_file.write_text(
        f'[defaults]\nmodel = "fake/fake-model-1"\n{more}\n'
        f'[providers.fake]\nkind = "openai-chat"\nbase_url = "{provider.base_url}"\n'
        f'models = ["fake-model-1"]\nallow_http = true\n'
    )


@asynccontextmanager
async def a_world(
    root: Path, default: Item | None = None, *, more: str = "", start: bool = True, **env: str
) -> AsyncGenerator[World]:
    """A world that must be empty again at the end."""
    async with FakeProvider(default=default) as provider, Marks() as marks:
        kept = {"INTERACTD_CHAOS_COUNTER": marks.address, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(root / "tmp")}
        home = Home(root, **kept, **env)
        configure(home, provider, more)
        (root / "tmp").mkdir()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", CHAOSD, "nursery"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=home.env,
            limit=1 << 20,
        )
        world = World(home, provider, marks, process)
        try:
            if start:
                await world.start()
            yield world
            await world.leave()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore
            await asyncio.to_thread(home.close)
