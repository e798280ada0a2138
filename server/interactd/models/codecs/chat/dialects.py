"""How the servers that speak chat completions differ. The provider's configured name picks the dialect; a name
nobody knows gets what most of them understand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """One server's habits."""

    max_tokens: str = "max_tokens"
    stream_usage: bool = True
    """Takes `stream_options: {include_usage}`; the others send usage by themselves."""
    required: bool = True
    """Takes `tool_choice: "required"`."""
    seed: str | None = "seed"
    cache_key: bool = False
    alternates: bool = True
    """Its chat templates may refuse a conversation that does not begin with the user."""
    key_header: str = "authorization"
    call_id: str = r"[A-Za-z0-9_.:|-]{1,64}"
    id_prefix: str = "call_"
    id_digits: int = 24
    files: bool = False
    """Takes audio and file parts."""


_DEFAULT = Dialect()
_DIALECTS = {
    "openai": Dialect(
        "max_completion_tokens", cache_key=True, alternates=False, call_id=r"[A-Za-z0-9_-]{1,40}", files=True
    ),
    "azure": Dialect("max_completion_tokens", alternates=False, key_header="api-key", call_id=r"[A-Za-z0-9_-]{1,40}"),
    "openrouter": Dialect(alternates=False, files=True),
    "mistral": Dialect(
        stream_usage=False, seed="random_seed", call_id=r"[A-Za-z0-9]{9}", id_prefix="", id_digits=9, alternates=False
    ),
    "groq": Dialect(alternates=False),
    "cerebras": Dialect("max_completion_tokens", alternates=False),
    "xai": Dialect(alternates=False),
    "deepseek": Dialect(required=False, alternates=False),
    "moonshot": Dialect(required=False, alternates=False),
    "moonshotai": Dialect(required=False, alternates=False),
}


def dialect(provider: str) -> Dialect:
    """The habits of a configured provider, by its name."""
    return _DIALECTS.get(provider.lower(), _DEFAULT)
