"""Several hosts with shims of their own on one home, a slow provider on loopback, and what all of it must add up to."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from support.hosts import Home, Host
from support.provider import FakeProvider, Reply, Request

Json = dict[str, Any]
CallTool = Callable[[str, Json], Awaitable[Json]]
SHIM = [sys.executable, "-m", "interactd", "mcp"]
PATIENCE_S = 60.0


def last_user_text(request: Request) -> str:
    texts = [message["content"] for message in request.json["messages"] if message["role"] == "user"]
    return texts[-1] if isinstance(texts[-1], str) else texts[-1][0]["text"]


def slow_answer(request: Request) -> Reply:
    """About a sixth of a second, a piece at a time."""
    pieces: list[str | float] = ["You ", 0.05, "said ", 0.05, last_user_text(request), 0.05, "."]
    return Reply(text=pieces)


def configure(home: Home, provider: FakeProvider, more: str = "") -> None:
    """Make the provider's one model the default."""
    home.paths.make()
    home.paths.config_file.write_text(
        f'[defaults]\nmodel = "fake/fake-model-1"\n{more}'
        f'[providers.fake]\nkind = "openai-chat"\nbase_url = "{provider.base_url}"\n'
        f'models = ["fake-model-1"]\nallow_http = true\n'
    )


@asynccontextmanager
async def a_world(root: Path, more: str = "", **env: str) -> AsyncGenerator[tuple[Home, FakeProvider]]:
    """A home whose processes must all be gone at the end, and its provider."""
    home = Home(root, **env)
    async with FakeProvider(default=slow_answer) as provider:
        configure(home, provider, more)
        try:
            yield home, provider
        finally:
            await asyncio.to_thread(home.close)


def kill(pid: int | None) -> bool:
    """SIGKILL; False when it was gone already."""
    try:
        os.kill(pid or 0, signal.SIGKILL) if pid else None
    except ProcessLookupError:
        return False
    return pid is not None


class ShimGone(Exception):
    """The shim ended before it answered."""


async def answer(host: Host, key: int | str, *, within_s: float = PATIENCE_S) -> Json:
    """Wait for an answer without a thread of the loop's pool, which has only a few. Raises `ShimGone`."""
    async with asyncio.timeout(within_s):
        while True:
            for message in tuple(host.messages):
                if message.get("id") == key and "method" not in message:
                    return message
            if host.process.poll() is not None:
                raise ShimGone
            await asyncio.sleep(0.01)


async def call(host: Host, tool: str, arguments: Json, *, within_s: float = PATIENCE_S) -> Json:
    """Call a tool; the result must be a good one. Returns its structured fields."""
    message = await answer(host, host.ask("tools/call", {"name": tool, "arguments": arguments}), within_s=within_s)
    assert "result" in message, message
    assert not message["result"].get("isError"), message["result"]
    return message["result"]["structuredContent"]


class Official:
    """The official SDK's client over a shim that it starts itself. Its connection lives as long as the test."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, arguments: Json) -> Json:
        async with asyncio.timeout(PATIENCE_S):
            result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result
        assert result.structured_content is not None
        return result.structured_content


class Raw:
    """A raw host whose shim may be killed: the next one asks again."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._host: Host | None = None
        self._starting = asyncio.Lock()
        self.deaths = 0

    async def call(self, tool: str, arguments: Json) -> Json:
        while True:
            deaths = self.deaths
            try:
                return await call(await self._there(), tool, arguments)
            except (ShimGone, BrokenPipeError):
                assert self.deaths > deaths, "a shim ended that nobody killed"

    def kill(self) -> None:
        if self._host is not None:
            self.deaths += 1
            self._host.process.kill()
            self._host.process.wait()

    async def _there(self) -> Host:
        async with self._starting:
            if self._host is None or self._host.process.poll() is not None:
                self._host = self._home.host(real=True)
                params = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": "raw", "version": "1"},
                }
                await answer(self._host, self._host.ask("initialize", params))
                self._host.tell("notifications/initialized")
            return self._host


@dataclass
class Sent:
    session: str
    text: str
    key: str
    deaths: int = 0
    id: str | None = None


@dataclass
class Party:
    """Members that talk at once while daemons and shims are killed."""

    home: Home
    provider: FakeProvider
    chance: random.Random
    officials: list[Official]
    raw: Raw
    sent: list[Sent] = field(default_factory=list[Sent])
    own: list[str] = field(default_factory=list[str])
    shared: str = ""
    kills: Counter[str] = field(default_factory=Counter[str])

    @property
    def calls(self) -> list[CallTool]:
        return [*(one.call for one in self.officials), self.raw.call]

    async def sessions(self, number: int) -> None:
        made = [
            await call("create_session", {"title": f"{number}.{n}", "idempotency_key": f"s{number}.{n}"})
            for n, call in enumerate([*self.calls, self.calls[0]])
        ]
        *self.own, self.shared = [one["session_id"] for one in made]

    async def send(self, call: CallTool, turn: Sent) -> None:
        arguments = {"session_id": turn.session, "input": turn.text, "if_busy": "queue", "idempotency_key": turn.key}
        done = await call("send_turn", arguments)
        if turn.id is not None:
            assert done["interaction_id"] == turn.id, "the same key is the same interaction"
        turn.id = done["interaction_id"]
        while done["status"] in ("queued", "in_progress"):
            done = await call("get_interaction", {"interaction_id": turn.id})
        assert done["status"] == "completed", done

    async def round(self, number: int, victim: str) -> None:
        """Everybody sends a turn to a session of its own and one to the shared one; the victim dies in the middle."""
        if number % 10 == 0:
            await self.sessions(number)
        fresh = [
            [
                Sent(self.own[n], f"own {number}.{n}", f"o{number}.{n}"),
                Sent(self.shared, f"all {number}.{n}", f"a{number}.{n}"),
            ]
            for n in range(len(self.calls))
        ]
        flat = [turn for pair in fresh for turn in pair]
        self.sent += flat
        work = asyncio.gather(
            *(self.send(call, turn) for call, pair in zip(self.calls, fresh, strict=True) for turn in pair)
        )
        await asyncio.wait([work], timeout=self.chance.random() * 0.7)
        if victim in ("daemon", "both"):
            pid = await asyncio.to_thread(self.home.ready)
            self.kills["daemon"] += kill(pid)
            for turn in flat:
                turn.deaths += 1
        if victim in ("shim", "both"):
            self.raw.kill()
            self.kills["shim"] += 1
        await work
        again = self.chance.choice(flat)
        await self.send(self.chance.choice(self.calls), again)

    def judge(self) -> int:
        """What must be true in the end; returns how many provider calls were made again."""
        asked = Counter(last_user_text(request) for request in self.provider.requests)
        for turn in self.sent:
            assert 1 <= asked[turn.text] <= 1 + turn.deaths, (turn, asked[turn.text])
        db = sqlite3.connect(self.home.paths.database)
        try:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            kept = dict(db.execute("SELECT id, status FROM interactions"))
            assert kept == {turn.id: "completed" for turn in self.sent}, "each exactly once"
            for turn in self.sent:
                steps = db.execute("SELECT type, body FROM steps WHERE interaction_id = ? ORDER BY seq", (turn.id,))
                shown = [(type, json.loads(body)["content"][0]["text"]) for type, body in steps]
                assert shown == [("user_input", turn.text), ("model_output", f"You said {turn.text}.")], turn
        finally:
            db.close()
        return sum(asked.values()) - len(self.sent)


@asynccontextmanager
async def a_party(root: Path, seed: int) -> AsyncGenerator[Party]:
    async with a_world(root) as (home, provider), AsyncExitStack() as stack:
        officials: list[Official] = []
        for mode in ("legacy", "auto"):
            parameters = StdioServerParameters(command=SHIM[0], args=SHIM[1:], env=home.env)
            client: Any = Client(stdio_client(parameters), mode=mode)
            officials.append(Official(await stack.enter_async_context(client)))
        yield Party(home, provider, random.Random(seed), officials, Raw(home))
