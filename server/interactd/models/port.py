"""The one port through which every model is called.

A `ModelRequest` goes in; a stream of `ModelEvent`s comes out: step deltas as they arrive, each step whole when it
is finished, and `Finished` at the very end. A stream that ends without `Finished` must raise instead.
Cancelling the task that reads the stream stops the provider call in flight (the socket is closed).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from interactd.errors import InteractdError
from interactd.nouns import GenerationConfig, Json, Step, Usage

FinishReason = Literal["stop", "tool_calls", "length", "content_filter", "refusal", "unknown"]
"""Why the model ended. Only `stop` is a completed turn; `tool_calls` asks the caller to act; `unknown` is never
good news. The provider's own word is kept beside it in `Finished.raw_reason`."""


@dataclass(slots=True)
class ModelRequest:
    """What a model is asked.

    `model` is the provider's own name, without our `provider/` prefix. `steps` is the conversation, oldest first,
    ending in what the model must answer (a user_input or function_results). `tools` are Interactions API
    `{"type": "function", "name", "description", "parameters"}` objects, sorted by name. `cache_key` is stable for a
    session, for providers that route prompt caches by it.
    """

    model: str
    steps: list[Step]
    system_instruction: str | None = None
    tools: list[Json] = field(default_factory=list[Json])
    config: GenerationConfig = field(default_factory=GenerationConfig)
    cache_key: str | None = None
    before_retry: Callable[[InteractdError], Awaitable[None]] | None = None
    """Called before the same request is sent once more, with what became of it: it may have to be paid for twice. What
    it raises ends the call."""


@dataclass(slots=True)
class StepStarted:
    """A step began. `type` as in nouns.Step; `head` holds what is known at once (ids, names)."""

    index: int
    type: str
    head: Json = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class StepDelta:
    """More of step `index`. `kind` text|thought_summary|arguments says what `text` is appended to."""

    index: int
    kind: Literal["text", "thought_summary", "arguments"]
    text: str


@dataclass(slots=True)
class StepFinished:
    """Step `index`, whole, with its opaque provider state. What earlier deltas said is contained in it."""

    index: int
    step: Step


@dataclass(slots=True)
class Finished:
    """The provider said that it is done. `usage` is `None` when it gave none (never read that as zero)."""

    reason: FinishReason
    raw_reason: str | None
    usage: Usage | None
    response_id: str | None = None
    model: str | None = None
    """The model version that really answered, where the provider says."""
    detail: str | None = None
    """The provider's own sentence about a refusal or block, if any."""


ModelEvent = StepStarted | StepDelta | StepFinished | Finished


class Model(Protocol):
    """One reachable model of one provider."""

    @property
    def provider(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def context_window(self) -> int | None:
        """Tokens the model can read, when known; the engine trims history to it."""
        ...

    @property
    def label(self) -> str:
        """`provider/name`, as shown and stored."""
        ...

    @property
    def base_url(self) -> str | None:
        """Where it is called, which says who sends the bill; `None` for what runs in this process or a child of it."""
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask the model.

        Raises:
            InteractdError: one of MissingKey, KeyRefused, UnknownModel, RateLimited, QuotaExceeded,
                ProviderUnavailable, ProviderTimeout, ProviderRejected, ContextOverflow, StreamTruncated,
                StreamMalformed, NotSetUp. Retries (with jitter) happened inside, and only while no event had been
                produced.
        """
        ...


@dataclass(slots=True)
class ModelInfo:
    """One line of `interactd models`: a model or provider, whether it can be used now, and why not."""

    id: str
    provider: str
    available: bool
    detail: str
    """How it was found (`OPENAI_API_KEY`, `answers on 127.0.0.1:11434`), or why not and what to do."""
    local: bool = False
    default: bool = False
    """True for the one that `auto` would pick now."""
    context_window: int | None = None


class Catalog(Protocol):
    """All configured providers: finds models by name and says what is reachable."""

    async def resolve(self, name: str, *, connection: str | None = None) -> Model:
        """Find a model by `provider/name`, a bare name that one provider knows, or `auto`.

        `connection` is the id of the caller's connection: its environment's keys are used, no other host's.

        Raises:
            UnknownModel: nobody knows the name (with suggestions), or more than one does.
            MissingKey: its provider is known and has no key.
            NotSetUp: `auto` and nothing is usable, or the embedded model is not set up.
            ProviderUnavailable: its local server does not answer.
        """
        ...

    async def list(self, *, connection: str | None = None, refresh: bool = False) -> list[ModelInfo]:
        """What is reachable and why the rest is not. Probes are bounded (200 ms each) and cached."""
        ...

    async def explain_auto(self, *, connection: str | None = None) -> str:
        """One sentence: which model `auto` picks now and why."""
        ...

    async def aclose(self) -> None:
        """Close connections and stop children."""
        ...
