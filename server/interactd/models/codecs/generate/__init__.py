"""Gemini generateContent and streamGenerateContent."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from interactd.errors import InteractdError
from interactd.models.codecs.faults import read_fault, to_error
from interactd.models.codecs.generate.parser import GenerateParser
from interactd.models.codecs.generate.request import build
from interactd.models.port import ModelRequest
from interactd.nouns import Json


class GenerateCodec:
    """Codec for `POST /v1beta/models/{model}:streamGenerateContent?alt=sse` and `:generateContent`."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def path(self, request: ModelRequest, *, stream: bool) -> str:
        name = request.model if "/" in request.model else f"models/{request.model}"
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/{quote(name, safe='/')}:{method}"

    def headers(self, key: str | None, request: ModelRequest | None = None) -> dict[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def body(self, request: ModelRequest, *, stream: bool) -> Json:
        return build(self.provider, request)

    def parser(self, request: ModelRequest) -> GenerateParser:
        return GenerateParser(self.provider, request)

    def error(self, status: int, headers: Mapping[str, str], body: str) -> InteractdError:
        return to_error(self.provider, read_fault(body), status, headers)
