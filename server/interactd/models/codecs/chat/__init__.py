"""OpenAI chat completions, and the many servers that speak a dialect of it."""

from __future__ import annotations

from collections.abc import Mapping

from interactd.errors import InteractdError
from interactd.models.codecs.chat.dialects import dialect
from interactd.models.codecs.chat.parser import ChatParser
from interactd.models.codecs.chat.request import build
from interactd.models.codecs.faults import read_fault, to_error
from interactd.models.port import ModelRequest
from interactd.nouns import Json


class ChatCodec:
    """Codec for `POST /v1/chat/completions`."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def path(self, request: ModelRequest, *, stream: bool) -> str:
        return "/v1/chat/completions"

    def headers(self, key: str | None, request: ModelRequest | None = None) -> dict[str, str]:
        name = dialect(self.provider).key_header
        return {} if not key else {name: f"Bearer {key}" if name == "authorization" else key}

    def body(self, request: ModelRequest, *, stream: bool) -> Json:
        return build(self.provider, request, stream=stream)

    def parser(self, request: ModelRequest) -> ChatParser:
        return ChatParser(self.provider, request)

    def error(self, status: int, headers: Mapping[str, str], body: str) -> InteractdError:
        return to_error(self.provider, read_fault(body), status, headers)
