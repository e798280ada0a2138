"""What a wire codec is: pure functions between our nouns and one provider's wire, apart from any transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from interactd.errors import InteractdError
from interactd.models.port import ModelEvent, ModelRequest
from interactd.nouns import Json


class Parser(Protocol):
    """Reads one response. Made anew for each call."""

    def feed(self, event: str | None, data: str) -> list[ModelEvent]:
        """Take one server-sent event (its `event:` name or None, its data) and return what it means.

        Raises:
            StreamMalformed: the data is not this wire.
            InteractdError: the event is the provider's own error.
        """
        ...

    def feed_body(self, body: Json) -> list[ModelEvent]:
        """Take a whole non-streamed response body. Same events, same errors."""
        ...

    def end(self) -> list[ModelEvent]:
        """The stream ended. Returns what was still open.

        Raises:
            StreamTruncated: the provider never said that it was done.
        """
        ...


class Codec(Protocol):
    """One wire format. `provider` (our name of it) goes into the opaque state of steps and is checked on replay."""

    def path(self, request: ModelRequest, *, stream: bool) -> str:
        """The URL path and query to POST to, with the wire's usual version: `/v1/chat/completions`.

        A base URL that has a version of its own (`.../api/paas/v4`) wins over it.
        """
        ...

    def headers(self, key: str | None, request: ModelRequest | None = None) -> dict[str, str]:
        """Authentication and version headers. Give the request whose body is sent with them: some bodies use a
        feature that a header must announce (Anthropic's betas)."""
        ...

    def body(self, request: ModelRequest, *, stream: bool) -> Json:
        """The JSON request body."""
        ...

    def parser(self, request: ModelRequest) -> Parser: ...

    def error(self, status: int, headers: Mapping[str, str], body: str) -> InteractdError:
        """Turn a non-2xx answer into the error it means, with the provider's own words and `retry_after_s`."""
        ...
