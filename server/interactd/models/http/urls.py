"""Addresses of providers: as people give them, made into what is called."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from interactd.config import Kind

_VERSION = re.compile(r"v\d+[a-z0-9]*", re.I)
# People paste the address of a whole endpoint as often as that of the API.
_ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/messages", "/models")
_DEFAULT_VERSION: dict[Kind, str] = {
    "openai-chat": "v1",
    "openai-responses": "v1",
    "anthropic": "v1",
    "gemini": "v1beta",
}


def join(base: str, path: str, kind: Kind) -> str:
    """Join a base URL, with or without its version and a closing slash, and a path with or without one.

    Args:
        base: such as `http://127.0.0.1:11434`, `https://api.groq.com/openai/v1/`.
        path: such as `/v1/chat/completions` or `/chat/completions`.
        kind: whose version is put in where neither has one.

    Returns:
        The address to call; the base's own version wins over the path's.
    """
    root = base.rstrip("/")
    for ending in _ENDPOINTS:
        root = root.removesuffix(ending)
    first, _, rest = path.lstrip("/").partition("/")
    versioned = _VERSION.fullmatch(first) is not None
    if any(_VERSION.fullmatch(part) for part in urlsplit(root).path.split("/")):
        return f"{root}/{rest if versioned else path.lstrip('/')}"
    return f"{root}/{path.lstrip('/')}" if versioned else f"{root}/{_DEFAULT_VERSION[kind]}/{path.lstrip('/')}"


def root_of(base: str) -> str:
    """Return scheme, host and port only: where a server's own (not OpenAI's) paths live."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}"


def host_of(base: str) -> str:
    """Return `host:port` as shown to people."""
    return urlsplit(base).netloc


def is_loopback(base: str) -> bool:
    """Whether the address can only be this machine."""
    host = (urlsplit(base).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped and mapped.is_loopback)


def from_ollama_host(value: str) -> str:
    """Read `OLLAMA_HOST` as Ollama does: scheme, host and port may each be missing.

    A server listens on 0.0.0.0 or [::]; a client of it on this machine calls 127.0.0.1.
    """
    text = value.strip().rstrip("/")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    parts = urlsplit(f"{scheme}://{rest}")
    host = (parts.hostname or "127.0.0.1") if not parts.username else ""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    default = {"https": 443, "http": 80}.get(scheme, 11434) if separator else 11434
    port = parts.port or default
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{parts.path}"
