"""Asks a provider which models it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2

from interactd.models.http.urls import join, root_of
from interactd.models.providers import Provider

MAX_BYTES = 4 * 1024 * 1024
MAX_MODELS = 2000
OURS = "x-interactd"
"""A response header of our own server, which must not be taken for a model server behind itself."""


class NoListing(Exception):
    """The server answered, but not with a list of models. `status` is the HTTP status, `body` its first part."""

    def __init__(self, why: str, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers
        self.body = body


class Ourselves(NoListing):
    """It is our own server: calling it would be calling ourselves."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that a provider says it has. `loaded`: it is in a local server's memory now."""

    name: str
    window: int | None = None
    loaded: bool = False


async def fetch(
    client: httpx2.AsyncClient, provider: Provider, headers: Mapping[str, str], timeout_s: float
) -> list[Listed]:
    """Get the provider's models, in its own order.

    Raises:
        NoListing: it answered with something else.
        TimeoutError: not within `timeout_s`, whatever it was doing.
        httpx2.HTTPError: it could not be reached.
    """
    path = {"anthropic": "/v1/models?limit=1000", "gemini": "/v1beta/models?pageSize=1000"}.get(
        provider.kind, "/v1/models"
    )
    headers = {**provider.settings.headers, **headers}
    more = asyncio.create_task(_extra(client, provider, headers))
    try:
        async with asyncio.timeout(timeout_s):
            url = join(provider.base_url, path, provider.kind)
            found = await _get(client, url, headers)
            extra = await more
    finally:
        more.cancel()
        await asyncio.gather(more, return_exceptions=True)
    out: list[Listed] = []
    for row in _rows(found)[:MAX_MODELS]:
        listed = _listed(row)
        if listed is None:
            continue
        window, loaded = extra.get(listed.name) or extra.get("") or (None, False)
        out.append(Listed(listed.name, window or listed.window, loaded))
    return out


async def _get(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> Any:
    try:
        return await _get_once(client, url, headers)
    except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
        # A kept connection that the server closed in this very moment says nothing about the server.
        return await _get_once(client, url, headers)


async def _get_once(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> Any:
    async with client.stream("GET", url, headers=dict(headers)) as response:
        got = bytearray()
        async for chunk in response.aiter_bytes():
            got += chunk
            if len(got) > MAX_BYTES:
                raise NoListing("its answer is too large", response.status_code, response.headers, "")
    text = got[: 64 * 1024].decode("utf-8", "replace")
    if OURS in response.headers:
        raise Ourselves("interactd itself", response.status_code, response.headers, "")
    if response.status_code != 200:
        why = f"HTTP {response.status_code}"
        if response.status_code in (401, 403):
            why += ": it wants a key"
        raise NoListing(why, response.status_code, response.headers, text)
    try:
        return json.loads(got)
    except (ValueError, RecursionError):
        raise NoListing("its answer is not JSON", 200, response.headers, text) from None


def _rows(document: Any) -> list[Any]:
    """The list in `{"data": [...]}` (OpenAI, Anthropic) or `{"models": [...]}` (Gemini)."""
    if isinstance(document, dict):
        table = cast("dict[str, Any]", document)
        rows = table.get("data")
        if rows is None:
            rows = table.get("models")
        # Ollama with no models says null.
        if isinstance(rows, list):
            return cast("list[Any]", rows)
        if rows is None and table.get("object") == "list":
            return []
    raise NoListing("its answer is no list of models", 200, {}, "")


def _listed(row: Any) -> Listed | None:
    if not isinstance(row, dict):
        return None
    table = cast("dict[str, Any]", row)
    if table.get("owned_by") == "interactd":
        return None
    methods = table.get("supportedGenerationMethods")
    if isinstance(methods, list) and "generateContent" not in methods:
        return None
    name = table.get("id") or table.get("name")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 256:
        return None
    window = next((table[key] for key in ("max_model_len", "inputTokenLimit", "context_length") if key in table), None)
    return Listed(name.removeprefix("models/"), window if _is_window(window) else None)


async def _extra(
    client: httpx2.AsyncClient, provider: Provider, headers: Mapping[str, str]
) -> dict[str, tuple[int | None, bool]]:
    """What local servers tell at addresses of their own: the window really set up, and what is loaded.

    Returns window and loaded by model name; the name "" stands for all.
    """
    asks = {"ollama": "/api/ps", "llamacpp": "/props", "lmstudio": "/api/v0/models"}
    path = asks.get(provider.name)
    if path is None:
        return {}
    try:
        answer = await _get(client, root_of(provider.base_url) + path, headers)
    except (NoListing, httpx2.HTTPError, OSError):
        # A nicety: the listing itself decides whether the server is there.
        return {}
    if not isinstance(answer, dict):
        return {}
    table = cast("dict[str, Any]", answer)
    if provider.name == "llamacpp":
        settings: Any = table.get("default_generation_settings")
        size: Any = cast("dict[str, Any]", settings).get("n_ctx") if isinstance(settings, dict) else None
        return {"": (size, True)} if _is_window(size) else {}
    out: dict[str, tuple[int | None, bool]] = {}
    rows: Any = table.get("models") if provider.name == "ollama" else table.get("data")
    for row in cast("list[Any]", rows) if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        one = cast("dict[str, Any]", row)
        name = one.get("name") or one.get("id")
        size = one.get("context_length") or one.get("loaded_context_length")
        if isinstance(name, str):
            out[name] = (size if _is_window(size) else None, provider.name == "ollama" or one.get("state") == "loaded")
    return out


def _is_window(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 256
