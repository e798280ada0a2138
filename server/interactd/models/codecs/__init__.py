"""Pure codecs between our nouns and the wires that providers speak."""

from __future__ import annotations

from collections.abc import Callable

from interactd.errors import ConfigError
from interactd.models.codecs.base import Codec, Parser
from interactd.models.codecs.chat import ChatCodec
from interactd.models.codecs.generate import GenerateCodec
from interactd.models.codecs.messages import MessagesCodec
from interactd.models.codecs.responses import ResponsesCodec

__all__ = ["KINDS", "Codec", "Parser", "codec"]

KINDS: dict[str, Callable[[str], Codec]] = {
    "openai-chat": ChatCodec,
    "openai-responses": ResponsesCodec,
    "anthropic": MessagesCodec,
    "gemini": GenerateCodec,
}


def codec(kind: str, provider: str) -> Codec:
    """Return the codec for a kind of wire.

    Args:
        kind: `openai-chat`, `openai-responses`, `anthropic` or `gemini`.
        provider: our configured name of the provider (`openai`, `ollama` ...): picks the dialect, and marks the
            opaque state of steps so that it is replayed to this provider only.

    Raises:
        ConfigError: no such kind.
    """
    make = KINDS.get(kind)
    if make is None:
        raise ConfigError(f"no wire of kind {kind!r}", repair=f"Use one of {', '.join(KINDS)}.", kind=kind)
    return make(provider)
