"""A model that says what a test wrote down for it, and the catalog that knows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from interactd.errors import InteractdError, UnknownModel
from interactd.models.port import (
    Finished,
    FinishReason,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StepDelta,
    StepFinished,
    StepStarted,
)
from interactd.nouns import Json, Step, Usage, text_content

USAGE = Usage(input=52, output=12, thought=3, cached=40, total=67)


@dataclass(slots=True)
class Says:
    """One answer: pieces of text (an Event between them holds the stream), calls, how it ends."""

    pieces: list[str | asyncio.Event] = field(default_factory=list[str | asyncio.Event])
    calls: list[Json] = field(default_factory=list[Json])
    thought: str = ""
    reason: FinishReason = "stop"
    images: list[Json] = field(default_factory=list[Json])
    usage: Usage | None = field(default_factory=lambda: USAGE)


Item = str | Says | InteractdError | Callable[[ModelRequest], str]


@dataclass
class ScriptedModel:
    script: list[Item] = field(default_factory=list[Item])
    requests: list[ModelRequest] = field(default_factory=list[ModelRequest])
    called: asyncio.Event = field(default_factory=asyncio.Event)
    provider: str = "scripted"
    name: str = "parrot"
    context_window: int | None = 1_000_000
    base_url: str | None = None

    @property
    def label(self) -> str:
        return f"{self.provider}/{self.name}"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.requests.append(request)
        self.called.set()
        item = self.script.pop(0) if self.script else "Yes."
        if isinstance(item, InteractdError):
            raise item
        if callable(item):
            item = item(request)
        says = Says([item]) if isinstance(item, str) else item
        index = 0
        if says.thought:
            yield StepStarted(index, "thought")
            yield StepDelta(index, "thought_summary", says.thought)
            yield StepFinished(index, Step("thought", {"summary": [text_content(says.thought)]}))
            index += 1
        if says.pieces or says.images:
            yield StepStarted(index, "model_output")
            text = ""
            for piece in says.pieces:
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                    continue
                text += piece
                yield StepDelta(index, "text", piece)
            content = ([text_content(text)] if text else []) + says.images
            yield StepFinished(index, Step("model_output", {"content": content}))
            index += 1
        for one in says.calls:
            yield StepStarted(index, "function_call", {"id": one["id"], "name": one["name"]})
            yield StepFinished(index, Step("function_call", one))
            index += 1
        reason = "tool_calls" if says.calls else says.reason
        yield Finished(reason, reason, says.usage)


@dataclass
class ScriptedCatalog:
    model: ScriptedModel = field(default_factory=ScriptedModel)
    more: list[ModelInfo] = field(default_factory=list[ModelInfo])
    asked_for: list[str | None] = field(default_factory=list[str | None])

    async def resolve(self, name: str, *, connection: str | None = None) -> ScriptedModel:
        if name not in ("auto", self.model.label, self.model.name):
            raise UnknownModel(
                f"no provider knows the model {name}",
                repair="Call list_agents to see the models that can be used.",
                suggestions=[self.model.label],
            )
        return self.model

    async def list(self, *, connection: str | None = None, refresh: bool = False) -> list[ModelInfo]:
        self.asked_for.append(connection)
        mine = ModelInfo(self.model.label, "scripted", True, "written down in a test", True, True, 1_000_000)
        return [mine, *self.more]

    async def explain_auto(self, *, connection: str | None = None) -> str:
        return f"{self.model.label}, the only one there is"

    async def aclose(self) -> None:
        return
