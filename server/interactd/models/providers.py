"""Which providers there are, built in and configured, with the key and address that a caller's environment gives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from interactd import config
from interactd.config import Config, Kind, check_base_url
from interactd.envnames import MAX_VALUE
from interactd.errors import MissingKey
from interactd.models.http.urls import from_ollama_host, is_loopback
from interactd.models.keys import KeyRing


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    kind: Kind
    base_url: str
    key_names: tuple[str, ...] = ()
    url_name: str | None = None


_BUILT_IN: Final[Mapping[str, _BuiltIn]] = {
    "openai": _BuiltIn("openai-responses", "https://api.openai.com", ("OPENAI_API_KEY",), "OPENAI_BASE_URL"),
    "anthropic": _BuiltIn("anthropic", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL"),
    "gemini": _BuiltIn(
        "gemini",
        "https://generativelanguage.googleapis.com",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "GOOGLE_GEMINI_BASE_URL",
    ),
    "ollama": _BuiltIn("openai-chat", "http://127.0.0.1:11434", url_name="OLLAMA_HOST"),
    "lmstudio": _BuiltIn("openai-chat", "http://127.0.0.1:1234"),
    "vllm": _BuiltIn("openai-chat", "http://127.0.0.1:8000"),
    "llamacpp": _BuiltIn("openai-chat", "http://127.0.0.1:8080"),
}


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider as one caller sees it. `key` is `None` when none was found (or none is needed)."""

    name: str
    kind: Kind
    base_url: str
    settings: config.Provider
    key_names: tuple[str, ...] = ()
    """Where a key may come from; empty for a server that needs none."""
    key: str | None = field(default=None, repr=False)
    key_from: str | None = None
    """The variable or file that the key came from."""
    given: bool = False
    """Its address was given (in the file or the environment), not assumed: somebody says that there is a provider."""
    problem: str | None = None
    """Why it must not be called as it is set up, and what to do; `None` when it may."""

    @property
    def keyed(self) -> bool:
        """Whether it needs a key; the others are servers that are asked whether they are there."""
        return bool(self.key_names) or self.settings.api_key_file is not None

    @property
    def probed(self) -> bool:
        """Whether it is asked what it has: a server without a key, and anything on this machine, which may be a
        gateway that stands in for a hosted provider, with or without a key."""
        return not self.keyed or self.local

    @property
    def local(self) -> bool:
        return is_loopback(self.base_url)

    @property
    def wanted_key(self) -> str:
        """What is missing, for messages: `OPENAI_API_KEY`, `GEMINI_API_KEY or GOOGLE_API_KEY`, or a file."""
        return " or ".join(self.key_names) or f"key in {self.settings.api_key_file}"


def providers(settings: Config, ring: KeyRing, connection: str | None) -> dict[str, Provider]:
    """Return all enabled providers by name, configured ones first in the file's order, then the built-in ones.

    Keys from files are not read here (see `with_key_file`).
    """
    names = [*settings.providers, *(name for name in _BUILT_IN if name not in settings.providers)]
    found = {name: _one(name, settings.providers.get(name), ring, connection) for name in names}
    return {name: provider for name, provider in found.items() if provider.settings.enabled}


def _one(name: str, table: config.Provider | None, ring: KeyRing, connection: str | None) -> Provider:
    settings = table or config.Provider()
    built_in = _BUILT_IN.get(name)
    if settings.api_key_file:
        key_names: tuple[str, ...] = ()
    elif settings.api_key_env:
        key_names = (settings.api_key_env,)
    else:
        key_names = built_in.key_names if built_in else ()
    url_name = built_in.url_name if built_in else None
    # Key and address must come from one environment: a host's address never gets the daemon's key, nor the reverse.
    together = (*key_names, *([url_name] if url_name and not settings.base_url else []))
    env = ring.environment(together, connection)
    key_from = next((key for key in key_names if env.get(key)), None)
    base_url, problem = settings.base_url or "", None
    if not base_url and url_name and (told := env.get(url_name)):
        try:
            base_url = check_base_url(from_ollama_host(told) if url_name == "OLLAMA_HOST" else told)
        except ValueError as error:
            problem = f"{url_name}: {error}"
    given = bool(base_url)
    base_url = (base_url or (built_in.base_url if built_in else "")).rstrip("/")
    kind = settings.kind or (built_in.kind if built_in else "openai-chat")
    if name == "openai" and not settings.kind and urlsplit(base_url).hostname != "api.openai.com":
        # Few servers that copy OpenAI's API have /responses; all have /chat/completions.
        kind = "openai-chat"
    key = env.get(key_from) if key_from else None
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        problem = problem or f"{key_from} holds characters that no key has"
    keyed = bool(key) or settings.api_key_file is not None
    if keyed and base_url.startswith("http:") and not is_loopback(base_url) and not settings.allow_http:
        problem = problem or (
            f"{base_url} is plain http to another machine, where anybody on the way could read the key: use https, or "
            f"set allow_http = true under [providers.{name}]"
        )
    return Provider(name, kind, base_url, settings, key_names, key, key_from, given, problem)


async def with_key_file(provider: Provider, ring: KeyRing, settings: Config) -> Provider:
    """Read the provider's `api_key_file`, if it has one; it is read anew each time, so that keys can be rotated.

    Raises:
        MissingKey: the file cannot be read or is empty.
    """
    given = provider.settings.api_key_file
    if given is None or provider.key is not None:
        return provider
    folder = Path(settings.file).parent if settings.file else Path()
    path = folder / Path(given).expanduser()
    try:
        key = await asyncio.to_thread(_read_small, path)
    except OSError as error:
        raise MissingKey(
            f"{provider.name} needs a key, and {path} cannot be read: {error.strerror or 'it is not a plain file'}",
            repair=f"Put the key into {path}, or correct api_key_file under [providers.{provider.name}].",
            provider=provider.name,
        ) from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise MissingKey(
            f"{provider.name} needs a key, and {path} does not hold one line with a key",
            repair=f"Put the key, and nothing else, into {path}.",
            provider=provider.name,
        )
    ring.remember(key)
    return replace(provider, key=key, key_from=str(path))


def _read_small(path: Path) -> str:
    # A pipe or a device would block for ever.
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    with path.open("rb") as file:
        return file.read(MAX_VALUE).decode("utf-8", "replace").strip()
