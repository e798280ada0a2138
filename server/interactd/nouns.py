"""The nouns every layer shares: session, interaction, step, and what they carry.

Names and shapes are those of the Interactions API (steps, contents, statuses, usage), so that the store, the
engine, the tools and the HTTP faces speak of one thing with one word. Plain data, no behaviour that needs I/O.
Times are seconds since the epoch (float, UTC); durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Status = Literal[
    "queued",
    "in_progress",
    "requires_action",
    "completed",
    "failed",
    "cancelled",
    "incomplete",
    "budget_exceeded",
]
SessionState = Literal["active", "expired", "deleted"]
ThinkingLevel = Literal["minimal", "low", "medium", "high", "xhigh"]

TERMINAL: Final[frozenset[Status]] = frozenset({"completed", "failed", "cancelled", "incomplete", "budget_exceeded"})
"""An interaction reaches exactly one of these, once."""

OPEN: Final[frozenset[Status]] = frozenset({"queued", "in_progress", "requires_action"})
THINKING_LEVELS: Final[tuple[ThinkingLevel, ...]] = ("minimal", "low", "medium", "high", "xhigh")

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar. Inside, money is whole nano-dollars; costs are rounded up, limits down."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the owner of what is made, and the connection whose environment its keys come from.

    `connection` is minted by the shim and stays the same when the daemon behind it is replaced; `client` is the
    host's name and version.
    """

    owner: str = "local"
    connection: str | None = None
    client: str | None = None
    cwd: str | None = None


LOCAL: Final = Caller()


@dataclass(slots=True)
class GenerationConfig:
    """How a model should generate; `None` leaves it to the provider (Interactions API `generation_config`)."""

    thinking_level: ThinkingLevel | None = None
    thinking_summaries: Literal["auto", "none"] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    tool_choice: Literal["auto", "any", "none"] | None = None

    def as_dict(self) -> Json:
        """Return only what is set."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}

    def over(self, base: GenerationConfig) -> GenerationConfig:
        """Return `base` with every field that is set here put over it."""
        return GenerationConfig(**{**base.as_dict(), **self.as_dict()})


@dataclass(slots=True)
class Usage:
    """Tokens of one or more model calls. `None` means the provider did not say: never read it as zero.

    `output` includes no thought tokens; `cached` is the part of `input` that was read from a cache;
    `cache_write` the part of `input` that was written to one. `total` is what the provider says, else the sum.
    """

    input: int | None = None
    output: int | None = None
    thought: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    tool_use: int | None = None
    total: int | None = None

    def as_dict(self) -> Json:
        """Return the Interactions API's `total_*_tokens` names, without what is unknown."""
        names = {
            "total_input_tokens": self.input,
            "total_output_tokens": self.output,
            "total_thought_tokens": self.thought,
            "total_cached_tokens": self.cached,
            "total_cache_write_tokens": self.cache_write,
            "total_tool_use_tokens": self.tool_use,
            "total_tokens": self.total,
        }
        return {name: value for name, value in names.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Json) -> Usage:
        """Read what `as_dict` wrote."""
        short = {"total_tokens": "total"}
        return cls(
            **{
                short.get(name) or name.removeprefix("total_").removesuffix("_tokens"): value
                for name, value in data.items()
            }
        )

    def plus(self, other: Usage) -> Usage:
        """Add two usages; a figure that either side lacks stays what the other says."""

        def add(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(*(add(getattr(self, n), getattr(other, n)) for n in self.__slots__))


@dataclass(slots=True)
class Step:
    """One typed, append-only record within an interaction.

    `type` is an Interactions API step type: user_input, model_output, thought, function_call, function_result,
    code_execution_call, code_execution_result, google_search_call ... `body` holds that type's own fields:

    - user_input, model_output: `{"content": [Content]}` with Content `{"type": "text", "text": ...}` or
      `{"type": "image", "data" (base64) | "uri": ..., "mime_type": ...}`; a text may carry `annotations`.
    - thought: `{"summary": [Content]}` (may be empty when the provider only gave a signature).
    - function_call: `{"id", "name", "arguments" (object)}`; and `raw_arguments` (text) where what the model wrote was
      no JSON object: then `arguments` is empty, nothing may be called, and the model has to be told.
    - function_result: `{"call_id", "name", "result" (object, text or [Content]), "is_error"}`.
    - other calls and results: the API's fields for that type.
    - opaque: `{"kind"}`, something of the provider's that we have no type for; all of it is in `state`.

    `state` is opaque to everybody but the codec that made it: `{"provider": str, "model": str, ...}` with
    signatures, encrypted reasoning, raw provider blocks. It is replayed only to that provider, never shown.
    """

    type: str
    body: Json
    state: Json | None = None
    seq: int = -1
    created_at: float = 0.0

    @property
    def text(self) -> str:
        """All plain text in the step, joined; empty for a step that has none."""
        parts: list[Any] = self.body.get("content") or self.body.get("summary") or []
        return "".join(part.get("text") or "" for part in parts if part.get("type") == "text")

    def as_dict(self) -> Json:
        """Return the wire form: the type and its own fields, no provider state."""
        return {"type": self.type, **self.body}


def text_content(text: str) -> Json:
    """Return a text Content."""
    return {"type": "text", "text": text}


def user_input(content: str | list[Json]) -> Step:
    """Return a user_input step from a string or a list of Content."""
    return Step("user_input", {"content": [text_content(content)] if isinstance(content, str) else content})


@dataclass(slots=True)
class Interaction:
    """One turn. `epoch` counts claims: a runner with an older epoch is fenced. `attempt` counts runs."""

    id: str
    session_id: str
    status: Status
    created_at: float
    previous_interaction_id: str | None = None
    model: str | None = None
    agent: str | None = None
    agent_hash: str | None = None
    """Content hash of the agent's folder that this turn runs with."""
    environment_id: str | None = None
    """Where an agent's turn takes place; known once its environment was found or made."""
    isolation: Json | None = None
    """What the run truly had (`Isolation.as_dict()`); `None` until its sandbox was there."""
    parent_id: str | None = None
    """The interaction that started this one (a child draws on its parent's budget); `None` for a caller's own."""
    runner: str | None = None
    """Whose claim it is: the daemon that runs it, or that has it in its line."""
    budget: Json | None = None
    """What it may cost: some of `{"usd", "tokens", "steps", "seconds"}`, its children's counted."""
    approvals: Json | None = None
    """What it has to ask before doing, over the agent's and the environment's policy."""
    dispatch: Json | None = None
    """When it goes: some of `{"priority", "delay_s", "start_timeout_s", "timeout_s", "retries"}`."""
    system_instruction: str | None = None
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    tools: list[Json] = field(default_factory=list[Json])
    background: bool = False
    depth: int = 1
    epoch: int = 0
    attempt: int = 0
    usage: Usage | None = None
    error: Json | None = None
    finish_reason: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    read_at: float | None = None
    """When somebody first fetched the finished result; `None` on a terminal one means unread."""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(slots=True)
class Session:
    """A durable conversation: defaults, a lifetime, and a head in the tree of interactions."""

    id: str
    created_at: float
    updated_at: float
    owner: str = "local"
    title: str | None = None
    state: SessionState = "active"
    model: str | None = None
    agent: str | None = None
    agent_pins: dict[str, str] = field(default_factory=dict[str, str])
    """Agent id -> content hash: every agent that took a turn here keeps the content it had then."""
    environment: str | Json | None = None
    """Where agents work: an environment's id, or the body that the first agent turn makes one from."""
    system_instruction: str | None = None
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    tools: list[Json] = field(default_factory=list[Json])
    budget: Json | None = None
    """What all its turns together may cost; as an interaction's."""
    approvals: Json | None = None
    """What its turns have to ask before doing."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    ttl_s: float | None = None
    expires_at: float | None = None
    """`None` is kept for ever. Each accepted turn moves it to now + ttl_s."""
    head: str | None = None
    turns: int = 0
    """Interactions on the path from the root to the head."""
    forked_from: str | None = None
    forked_at: str | None = None
    deleted_at: float | None = None
