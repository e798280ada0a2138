"""What is known about hosted models without asking: defaults, families, context windows.

Checked on 22 November 2026. A default is a generally available model in the middle of its provider's range; the
newest and the dearest are for people to choose (`[defaults] model`, `[providers.NAME] default_model`). Windows are what
a request may hold: where a provider counts input and output together, its largest output is taken off.
"""

from __future__ import annotations

from typing import Final

from interactd.models.codecs.thinking import claude

DEFAULTS: Final = {
    "openai": "gpt-5.5",
    "anthropic": "claude-sonnet-5",
    "gemini": "gemini-3.5-flash",
}

# Longest prefix first wins. gpt-oss is not here: it runs on people's own servers.
_FAMILIES: Final = {
    "gpt-": "openai",
    "chatgpt-": "openai",
    "codex-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4-": "openai",
    "claude-": "anthropic",
    "gemini-": "gemini",
}
_NOT_HOSTED: Final = ("gpt-oss", "gpt-j", "gpt-neo", "gpt2")

_WINDOWS: Final = {
    "gpt-3.5": 16_385,
    "gpt-4": 8_192,
    "gpt-4-turbo": 128_000,
    "gpt-4o": 128_000,
    "gpt-4.1": 1_000_000,
    "gpt-5": 272_000,
    "gpt-5.3": 128_000,
    "gpt-5.3-codex": 272_000,
    "gpt-5.4": 922_000,
    "gpt-5.4-mini": 272_000,
    "gpt-5.4-nano": 272_000,
    "gpt-5.5": 872_000,
    "gpt-5.6": 922_000,
    "gpt-6": 922_000,
    "chatgpt-4o": 128_000,
    "codex-mini": 200_000,
    "o1": 200_000,
    "o1-mini": 128_000,
    "o1-preview": 128_000,
    "o3": 200_000,
    "o4-mini": 200_000,
    "claude-": 200_000,
    "claude-opus-4-6": 1_000_000,
    "claude-opus-4-7": 1_000_000,
    "claude-opus-4-8": 1_000_000,
    "claude-opus-5": 1_000_000,
    "claude-sonnet-4-6": 1_000_000,
    "claude-sonnet-5": 1_000_000,
    "claude-haiku-5": 1_000_000,
    "claude-fable-5": 1_000_000,
    "claude-mythos-5": 1_000_000,
    "gemini-": 1_000_000,
    "gpt-oss": 131_072,
}

# The most that one answer can hold, thoughts counted in.
_OUTPUTS: Final = {
    "gpt-3.5": 4_096,
    "gpt-4": 8_192,
    "gpt-4-turbo": 4_096,
    "gpt-4o": 16_384,
    "gpt-4.1": 32_768,
    "gpt-5": 128_000,
    "gpt-6": 128_000,
    "chatgpt-4o": 16_384,
    "codex-mini": 100_000,
    "o1": 100_000,
    "o1-mini": 65_536,
    "o1-preview": 32_768,
    "o3": 100_000,
    "o4-mini": 100_000,
    "gemini-": 65_536,
    "gemini-1.5": 8_192,
    "gemini-2.0": 8_192,
}

_NO_CHAT: Final = ("embed", "bge-", "minilm", "rerank", "whisper", "tts", "clip-", "stable-diffusion")


def family(name: str) -> str | None:
    """Return the provider that a bare model name such as `claude-sonnet-5` belongs to, if its prefix tells."""
    word = name.lower()
    if word.startswith(_NOT_HOSTED):
        return None
    return _FAMILIES.get(_longest(word, _FAMILIES))


def window(name: str) -> int | None:
    """Return how many tokens a hosted model can read, if known. Vendor prefixes (`meta/…`) are looked past."""
    word = name.lower().rpartition("/")[2]
    return _WINDOWS.get(_longest(word, _WINDOWS))


def output(name: str) -> int | None:
    """Return the most tokens that one answer of a hosted model can have, thoughts included, if known."""
    word = name.lower().rpartition("/")[2]
    if "claude" in word:
        return claude(word).max_output
    return _OUTPUTS.get(_longest(word, _OUTPUTS))


def chats(name: str) -> bool:
    """Whether a model on a local server looks like one to talk to (not an embedding or speech model)."""
    word = name.lower()
    return not any(part in word for part in _NO_CHAT)


def _longest(word: str, table: dict[str, str] | dict[str, int]) -> str:
    return max((prefix for prefix in table if word.startswith(prefix)), key=len, default="")
