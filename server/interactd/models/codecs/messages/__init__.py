"""Anthropic messages."""

from __future__ import annotations

from collections.abc import Mapping

from interactd.errors import InteractdError
from interactd.models.codecs.faults import read_fault, to_error
from interactd.models.codecs.messages.parser import MessagesParser
from interactd.models.codecs.messages.request import BINDING_BETA, betas, build
from interactd.models.port import ModelRequest
from interactd.nouns import Json

VERSION = "2023-06-01"


class MessagesCodec:
    """Codec for `POST /v1/messages`."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def path(self, request: ModelRequest, *, stream: bool) -> str:
        return "/v1/messages"

    def headers(self, key: str | None, request: ModelRequest | None = None) -> dict[str, str]:
        out = {"anthropic-version": VERSION}
        if key:
            out["x-api-key"] = key
        # Without the request nobody can tell whether its body needs the beta; announcing it does no harm, a body
        # that uses it unannounced is refused.
        if used := [BINDING_BETA] if request is None else betas(request):
            out["anthropic-beta"] = ",".join(used)
        return out

    def body(self, request: ModelRequest, *, stream: bool) -> Json:
        return build(self.provider, request, stream=stream)

    def parser(self, request: ModelRequest) -> MessagesParser:
        return MessagesParser(self.provider, request)

    def error(self, status: int, headers: Mapping[str, str], body: str) -> InteractdError:
        return to_error(self.provider, read_fault(body), status, headers)
