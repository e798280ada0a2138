"""A scripted model and catalog behind the real ports, and an engine on a real store, for the engine's tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interactd.engine import EngineSettings, LocalEngine
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Event, Result
from interactd.errors import InteractdError, UnknownModel
from interactd.models.port import (
    Finished,
    FinishReason,
    Model,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StepDelta,
    StepFinished,
    StepStarted,
)
from interactd.nouns import Json, Step, Usage, text_content
from interactd.store.sqlite import SqliteStore

PATIENCE_S = 10.0
"""Bound of every wait in these tests."""

Item = ModelEvent | BaseException | asyncio.Event
Answer = str | Sequence[Item] | Callable[[ModelRequest], "str | Sequence[Item]"]


def said(text: str, index: int = 0, *, cut: int = 3) -> list[Item]:
    """A model_output step, streamed in pieces."""
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
    return [
        StepStarted(index, "model_output"),
        *(StepDelta(index, "text", piece) for piece in pieces),
        StepFinished(index, Step("model_output", {"content": [text_content(text)]})),
    ]


def called(name: str, arguments: Any, call_id: str, index: int = 0) -> list[Item]:
    """A function_call step."""
    body: Json = {"id": call_id, "name": name, "arguments": arguments}
    return [
        StepStarted(index, "function_call", {"id": call_id, "name": name}),
        StepFinished(index, Step("function_call", body)),
    ]


def ended(
    reason: FinishReason = "stop", raw: str | None = None, *, usage: Usage | None = None, detail: str | None = None
) -> list[Item]:
    return [Finished(reason, raw or reason, usage or Usage(input=10, output=5, total=15), detail=detail)]


class ScriptedModel:
    """Answers in the order of its script; when that is used up it says `default`."""

    def __init__(self, name: str = "m1", *, window: int | None = None, default: Answer = "ok") -> None:
        self.name = name
        self.provider = "scripted"
        self.base_url: str | None = None
        self.context_window = window
        self.default = default
        self.requests: list[ModelRequest] = []
        self.usage: Usage | None = Usage(input=10, output=5, total=15)
        """What plain answers say that they used."""
        self.stopped = 0
        """Calls that ended because the reader went away."""
        self.running = 0
        self.most_running = 0
        self.gate: asyncio.Event | None = None
        """When set, every call waits for it before it says anything."""
        self._script: deque[Answer] = deque()
        self._asked = asyncio.Condition()

    @property
    def label(self) -> str:
        return f"{self.provider}/{self.name}"

    def script(self, *answers: Answer) -> None:
        self._script.extend(answers)

    async def asked(self, count: int) -> None:
        """Wait until `count` calls have been made."""
        async with asyncio.timeout(PATIENCE_S), self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= count)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        over = False
        try:
            async with self._asked:
                self.requests.append(request)
                self._asked.notify_all()
            if self.gate is not None:
                await self.gate.wait()
            for item in self._items(request):
                if isinstance(item, BaseException):
                    over = True
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    yield item
            over = True
        finally:
            self.running -= 1
            self.stopped += not over

    def _items(self, request: ModelRequest) -> Sequence[Item]:
        answer = self._script.popleft() if self._script else self.default
        given = answer(request) if callable(answer) else answer
        if not isinstance(given, str):
            return given
        return [*said(given), Finished("stop", "stop", self.usage)]


class ScriptedCatalog:
    """Knows the models it was given. `refuse` is raised while set."""

    def __init__(self, *models: ScriptedModel) -> None:
        self.models = {model.label: model for model in models}
        self.refuse: InteractdError | None = None
        self.resolved: list[tuple[str, str | None]] = []
        self.closed = False

    async def resolve(self, name: str, *, connection: str | None = None) -> Model:
        self.resolved.append((name, connection))
        if self.refuse is not None:
            raise self.refuse
        if name == "auto":
            return next(iter(self.models.values()))
        for label, model in self.models.items():
            if name in (label, model.name):
                return model
        raise UnknownModel(f"Nobody knows {name}.", suggestions=list(self.models))

    async def list(self, *, connection: str | None = None, refresh: bool = False) -> list[ModelInfo]:
        return [ModelInfo(label, "scripted", True, "scripted") for label in self.models]

    async def explain_auto(self, *, connection: str | None = None) -> str:
        return f"{next(iter(self.models))}: the only one."

    async def aclose(self) -> None:
        self.closed = True


class Clock:
    """A clock that stands at the time it was made until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Rig:
    """An engine with its parts at hand."""

    engine: LocalEngine
    store: SqliteStore
    model: ScriptedModel
    catalog: ScriptedCatalog
    clock: Clock
    others: list[ScriptedModel] = field(default_factory=list[ScriptedModel])

    async def turn(self, session_id: str, content: str = "hello", **more: Any) -> Result:
        """Send a turn and wait for its end."""
        sent = await self.engine.send_turn(session_id, content, **more)
        return await self.engine.wait(sent.interaction.id, PATIENCE_S)

    async def ended(self, interaction_id: str) -> Result:
        result = await self.engine.wait(interaction_id, PATIENCE_S)
        assert result.interaction.status not in ("queued", "in_progress"), result.interaction.status
        return result

    async def events(self, interaction_id: str, after: int = 0) -> list[Event]:
        async with asyncio.timeout(PATIENCE_S):
            return [event async for event in self.engine.events(interaction_id, after=after)]


@asynccontextmanager
async def rig(
    path: Path,
    *,
    model: ScriptedModel | None = None,
    others: Sequence[ScriptedModel] = (),
    clock: Clock | None = None,
    start: bool = True,
    money: MoneySettings | None = None,
    **settings: Any,
) -> AsyncGenerator[Rig]:
    """A started engine on the database `path`, closed at the end."""
    clock = clock or Clock()
    model = model or ScriptedModel()
    catalog = ScriptedCatalog(model, *others)
    store = SqliteStore(path)
    engine = LocalEngine(store, catalog, EngineSettings(version="test", **settings), clock=clock, money=money)
    if start:
        await engine.start()
    try:
        yield Rig(engine, store, model, catalog, clock, list(others))
    finally:
        await engine.aclose()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again every 10 ms until the condition holds; for what gives no sign of its own."""
    for _ in range(int(PATIENCE_S * 100)):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def texts(result: Result) -> list[str]:
    """`type: text` of every step, in order."""
    return [f"{step.type}: {step.text}" if step.text else step.type for step in result.steps]
