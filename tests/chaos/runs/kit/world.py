"""A home, a provider on loopback, a counter outside of everything, and daemons that are killed one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.runs.kit.leaks import left
from interactd.paths import Paths, find
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
        self.more = ""
        """What else is answered."""
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
                writer.write(f"bumped {call}{self.more}\n".encode())
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


@dataclass
class Seat:
    """Where one daemon is found: state and socket are its own, the data may be everybody's."""

    paths: Paths
    env: dict[str, str] = field(default_factory=dict[str, str])
    pid: int = 0


class World:
    """What a chaos test has at hand. `seat` is the daemon that is talked to; `pids` are all that there ever were."""

    def __init__(self, home: Home, provider: FakeProvider, marks: Marks, nursery: asyncio.subprocess.Process) -> None:
        self.home = home
        self.provider = provider
        self.marks = marks
        self.seat = Seat(home.paths)
        self.seats: list[Seat] = []
        """All of them, where there are several."""
        self.pids: list[int] = []
        self.deaths = 0
        self._nursery = nursery
        self._birth = asyncio.Lock()
        self._connection = connect.new_connection()

    @property
    def pid(self) -> int:
        return self.seat.pid

    def another_seat(self, name: str) -> Seat:
        """A place for a daemon with a state of its own. All of them share data and configuration."""
        env = {f"XDG_{kind}_HOME": str(self.home.root / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        env |= {"INTERACTD_HOME": "", "XDG_STATE_HOME": str(self.home.root / f"state-{name}")}
        seat = Seat(find(env), env)
        seat.paths.make()
        seat.paths.config_file.write_text(self.home.paths.config_file.read_text())
        return seat

    async def start(self, seat: Seat | None = None) -> int:
        """Fork the next daemon and wait until it answers."""
        seat = seat or self.seat
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        async with self._birth:
            self._nursery.stdin.write(" ".join(f"{n}={v}" for n, v in seat.env.items()).encode() + b"\n")
            seat.pid = int(await asyncio.wait_for(self._nursery.stdout.readline(), PATIENCE_S))
        self.pids.append(seat.pid)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if (await self.call("status", seat=seat))["pid"] == seat.pid:
                        return seat.pid
                except Gone:
                    pass
                await asyncio.sleep(0.01)

    async def leave(self, *seats: Seat) -> None:
        """The daemons leave in order, and the last of several comes once more, alone: while another one lives, what is
        half-made may be its. Nothing may be left then of any that there was."""
        for seat in (*seats, *seats[-1:]) or (self.seat,):
            try:
                seat.pid = (await self.call("status", seat=seat))["pid"]
            except Gone:
                await self.start(seat)
            self.pids.append(seat.pid)
            self.kill(signal.SIGTERM, seat.pid)
            await until(lambda pid=seat.pid: not alive(pid))
        leaks = [""]
        for _ in range(50):
            # The kernel may still be at it.
            if not (leaks := left(self.seat.paths, self.home.root, self.pids, self._nursery.pid)):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(leaks)

    def kill(self, number: int = signal.SIGKILL, pid: int | None = None) -> None:
        os.kill(pid or self.pid, number)
        self.deaths += number == signal.SIGKILL

    @asynccontextmanager
    async def control(self, seat: Seat | None = None) -> AsyncGenerator[Control]:
        """Connect to the daemon. Raises: Gone."""
        paths = (seat or self.seat).paths
        hello: Json = connect.make_hello(self.home.paths, "control", self._connection, {})
        hello["env"] = {}
        try:
            reader, writer = await asyncio.open_unix_connection(str(paths.socket), limit=1 << 26)
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

    async def call(self, method: str, *, seat: Seat | None = None, **params: Any) -> Any:
        """One call on a connection of its own. Raises: Gone, Failed."""
        async with self.control(seat) as control:
            return await control.call(method, **params)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the store behind everybody's back."""
        db = sqlite3.connect(f"file:{self.seat.paths.database}?mode=ro", uri=True, timeout=10)
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
    """Whether anything of it may still write: its first thread is a zombie while others are at a commit."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            return True
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


async def until(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Look again every 10 ms until there is something."""
    async with asyncio.timeout(within_s):
        while True:
            if found := condition():
                return found
            await asyncio.sleep(0.01)


def unmount(root: Path) -> None:
    """Take away the mounts that a killed daemon left and no other came to remove: the test failed."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((one for one in places if one.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "-l", place], check=False)


def configure(home: Home, provider: FakeProvider, more: str = "") -> None:
    home.paths.make()
    home.paths.config_file.write_text(
        f'[defaults]\nmodel = "fake/fake-model-1"\n'
        f'[providers.fake]\nkind = "openai-chat"\nbase_url = "{provider.base_url}"\n'
        f'models = ["fake-model-1"]\nallow_http = true\n{more}\n'
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
            await world.leave(*world.seats)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore
            await asyncio.to_thread(home.close)
            await asyncio.to_thread(unmount, root)
