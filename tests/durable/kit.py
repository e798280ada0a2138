"""An engine with triggers and webhooks on a real store and a clock that is moved, and a receiver on a real socket."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.kit import PATIENCE_S, Clock, ScriptedCatalog, ScriptedModel
from interactd.durable.local import LocalSchedules
from interactd.durable.settings import DurableSettings
from interactd.durable.webhooks.sending import Sender
from interactd.engine import EngineSettings, LocalEngine
from interactd.nouns import Json
from interactd.paths import find
from interactd.sandbox.credentials.store import Credentials
from interactd.store.schedules_port import Delivery, Execution, Trigger
from interactd.store.sqlite import SqliteStore

QUICK = DurableSettings(recheck_s=0.03, first_retry_s=0.05, answer_s=5)


async def until(condition: Callable[[], Awaitable[Any]], within_s: float = PATIENCE_S) -> Any:
    """Look again every 10 ms until the condition gives something; for what gives no sign of its own."""
    end = time.monotonic() + within_s
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Rig:
    """An engine with its parts at hand."""

    engine: LocalEngine
    schedules: LocalSchedules
    store: SqliteStore
    model: ScriptedModel
    catalog: ScriptedCatalog
    clock: Clock
    home: Path

    async def trigger(self, schedule: str = "*/5 * * * *", **more: Any) -> Trigger:
        work: Json = {"input": "go", "model": "m1", **more.pop("work", {})}
        return await self.schedules.create_trigger(
            schedule=schedule, work=work, time_zone=more.pop("time_zone", "UTC"), **more
        )

    async def executions(self, trigger_id: str | None = None, **more: Any) -> list[Execution]:
        """Oldest first."""
        return (await self.schedules.list_executions(trigger_id=trigger_id, limit=200, **more)).items[::-1]

    async def ran(self, trigger_id: str, count: int, *statuses: str) -> list[Execution]:
        """Wait until so many executions are over (or have one of these statuses)."""
        wanted = statuses or ("completed", "failed", "skipped", "timed_out")

        async def look() -> list[Execution] | None:
            found = [one for one in await self.executions(trigger_id) if one.status in wanted]
            return found if len(found) >= count else None

        return await until(look)

    async def looked(self) -> None:
        """Wait until everything that is due by the clock was decided."""

        async def settled() -> bool:
            due = await self.store.schedules.due()
            now = self.clock()
            late = [at for at in (due.next_run_at, due.start_at, due.deadline_at) if at is not None and at <= now]
            return not late and not await self.store.schedules.due_triggers(now)

        await until(settled)

    async def delivered(self, count: int, *statuses: str, **more: Any) -> list[Delivery]:
        """Wait until so many deliveries have ended (or have one of these statuses); oldest first."""
        wanted = statuses or ("delivered", "failed")

        async def look() -> list[Delivery] | None:
            page = await self.schedules.list_deliveries(limit=200, **more)
            found = [one for one in page.items if one.status in wanted][::-1]
            return found if len(found) >= count else None

        return await until(look)

    async def turn_started(self) -> str:
        """Send a turn in a session of its own; returns its id."""
        session = await self.engine.create_session(model="m1")
        return (await self.engine.send_turn(session.id, "x")).interaction.id

    async def turn(self, text: str = "hello", **more: Any) -> str:
        """Send a turn in a session of its own and wait for its end; returns its id."""
        session = await self.engine.create_session(model="m1")
        sent = await self.engine.send_turn(session.id, text, **more)
        return (await self.engine.wait(sent.interaction.id, PATIENCE_S)).interaction.id


@asynccontextmanager
async def rig(
    home: Path,
    *,
    model: ScriptedModel | None = None,
    clock: Clock | None = None,
    settings: DurableSettings = QUICK,
    sender: Sender | None = None,
    start: bool = True,
) -> AsyncGenerator[Rig]:
    """A started engine with triggers and webhooks under `home`, closed at the end."""
    clock, model = clock or Clock(), model or ScriptedModel()
    paths = find({"INTERACTD_HOME": str(home)}).make()
    store = SqliteStore(paths.database)
    schedules = LocalSchedules(
        store.schedules,
        Credentials(paths, name="webhook-secrets", keeping="file"),
        settings,
        clock=clock,
        sender=sender,
    )
    catalog = ScriptedCatalog(model)
    engine = LocalEngine(store, catalog, EngineSettings(version="test"), clock=clock, schedules=schedules)
    if start:
        await engine.start()
    try:
        yield Rig(engine, schedules, store, model, catalog, clock, home)
    finally:
        await engine.aclose()


@dataclass(slots=True)
class Got:
    """One request that a receiver got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answers = bytes | None | Callable[[Got], Awaitable[bytes | None]]


def status(code: int, *headers: str, body: str = "") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body.encode())}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@dataclass(slots=True)
class Receiver:
    """A tiny web server: says `answer` (`None`: nothing, ever) to every request, and keeps what it got."""

    answer: Answers = field(default_factory=lambda: status(200, body="thanks"))
    script: list[Answers] = field(default_factory=list[Answers])
    """Said first, one a request."""
    got: list[Got] = field(default_factory=list[Got])
    port: int = 0
    open: int = 0
    most_open: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def received(self, count: int) -> list[Got]:
        """Wait until so many requests came."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.got) >= count)
        return self.got

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            method, path, _ = first.split(" ")
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            got = Got(method, path, headers, body)
            async with self._news:
                self.got.append(got)
                self._news.notify_all()
            answer = self.script.pop(0) if self.script else self.answer
            said = await answer(got) if callable(answer) else answer
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def receiver(
    answer: Answers = status(200, body="thanks"),  # noqa: B008
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[Receiver]:
    """A receiver that listens on loopback."""
    made = Receiver(answer)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0, ssl=tls)  # pyright: ignore[reportPrivateUsage]
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
