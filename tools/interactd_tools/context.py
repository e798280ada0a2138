"""What a face gives to a tool and what it gets back. Plain data: no transport and no MCP type in here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from interactd.engine.port import Engine
from interactd.nouns import LOCAL, Caller

ProgressKind = Literal["text", "status"]
"""`text`: the message is what the model wrote since the last one. `status`: a line about how it goes."""

Progress = Callable[[str, ProgressKind], Awaitable[None]]
"""Sends one progress message. Absent when the client did not ask for progress."""


@dataclass(slots=True)
class Place:
    """How far a client's progress has come; what asks again for it, after the daemon died, says so.

    Attributes:
        interaction_id: whose events were told.
        after: the `seq` of the last one.
        partial: whether the last text told belongs to a step that is not over.
        count: how many messages were sent.
    """

    interaction_id: str = ""
    after: int = 0
    partial: bool = False
    count: int = 0


@dataclass(slots=True)
class CallContext:
    """One call, as its face sees it.

    Attributes:
        engine: the daemon's engine; tools call nothing else.
        caller: whose sessions, and whose keys. Set `caller.connection` only where a request id is never used
            twice for different requests (stdio, SSE, stateful HTTP): tools that start work use
            `connection:request_id` as their idempotency key when the caller gave none.
        request_id: the JSON-RPC id.
        progress: see `Progress`.
        place: where the client's progress stands; `progress` tells it along.
        deadline_s: seconds the client leaves for the whole call; `None` for what is known of `client_name`.
        client_name: `clientInfo.name`; what `deadlines` learns is kept under it.
    """

    engine: Engine
    caller: Caller = LOCAL
    request_id: str | int | None = None
    progress: Progress | None = None
    deadline_s: float | None = None
    client_name: str | None = None
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True)
class Link:
    """A resource the result points to (an MCP `resource_link`)."""

    uri: str
    name: str
    mime_type: str = "text/markdown"
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image a model made: base64 data and its type. Faces send it as an image block, nowhere else."""

    data: str
    mime_type: str


@dataclass(slots=True)
class ToolResult:
    """The answer of a tool: text that stands alone, and the few fields a program wants.

    `structured` never holds the text again. `is_error` results have `code: message. what to do next` as text.
    For hosts that show their model `structuredContent` instead of the text (see `hosts`), `structured` is `None`
    and the same fields are in `meta["interactd/result"]`. Faces send `meta` as the result's `_meta`.
    """

    text: str
    structured: dict[str, Any] | None = None
    is_error: bool = False
    meta: dict[str, Any] = field(default_factory=dict[str, Any])
    links: list[Link] = field(default_factory=list[Link])
    images: list[Image] = field(default_factory=list[Image])


@dataclass(frozen=True, slots=True)
class Annotations:
    """The four hints of the protocol, all given, all true."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool

    def as_dict(self) -> dict[str, bool]:
        """Return the protocol's names."""
        return {
            "readOnlyHint": self.read_only,
            "destructiveHint": self.destructive,
            "idempotentHint": self.idempotent,
            "openWorldHint": self.open_world,
        }


@dataclass(frozen=True, slots=True)
class Tool:
    """A published tool as `tools/list` shows it."""

    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    annotations: Annotations
    toolset: str = "core"

    def as_dict(self) -> dict[str, Any]:
        """Return the `tools/list` entry: name, title, description, inputSchema, annotations."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.input_schema,
            "annotations": self.annotations.as_dict(),
        }
