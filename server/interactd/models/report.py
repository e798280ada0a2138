"""The lines of `interactd models`: every provider, what it offers, and why it cannot be used when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

from interactd.errors import InteractdError
from interactd.models import known
from interactd.models.auto import EmbeddedModels, default_of
from interactd.models.codecs import codec
from interactd.models.http.clients import Clients
from interactd.models.http.failures import broken, start_hint
from interactd.models.keys import KeyRing
from interactd.models.listing import NoListing, fetch
from interactd.models.local import Servers
from interactd.models.port import ModelInfo
from interactd.models.providers import Provider

REFRESH_S = 10.0
_MAX_ERROR = 300


async def report(
    found: Mapping[str, Provider],
    servers: Servers,
    clients: Clients,
    ring: KeyRing,
    embedded: EmbeddedModels | None,
    *,
    refresh: bool,
) -> list[ModelInfo]:
    """Return one line a model, or one a provider that cannot be used.

    Providers with a key are asked over the network only with `refresh` (all at once, 10 s each); servers without
    one are probed as always.
    """

    async def lines(provider: Provider) -> list[ModelInfo]:
        if provider.problem:
            return [_not(provider, provider.problem)]
        if provider.probed:
            return await _probed(provider, servers, patient=refresh)
        if provider.key is None:
            return [_not(provider, f"no {provider.wanted_key} in the environment or config")]
        if refresh:
            return await _asked(provider, clients, ring)
        return _told(provider, f"key from {provider.key_from}; ask it for all its models with refresh")

    groups = await asyncio.gather(*(lines(provider) for provider in found.values()))
    out = [line for group in groups for line in group]
    return out + (await embedded.list() if embedded is not None else [])


def _not(provider: Provider, why: str) -> ModelInfo:
    return ModelInfo(provider.name, provider.name, available=False, detail=why, local=provider.local)


def _told(provider: Provider, detail: str) -> list[ModelInfo]:
    """What is known about a provider with a key, without asking it."""
    settings = provider.settings
    names = [*settings.models, *filter(None, [settings.default_model, known.DEFAULTS.get(provider.name)])]
    if settings.models:
        names = [*settings.models, *filter(None, [settings.default_model])]
    if not names:
        return [ModelInfo(f"{provider.name}/NAME", provider.name, True, detail, provider.local)]
    return [_line(provider, name, detail, None) for name in dict.fromkeys(names)]


async def _probed(provider: Provider, servers: Servers, *, patient: bool) -> list[ModelInfo]:
    seen = await servers.look(provider, patient=patient)
    if seen.state == "here" and seen.models:
        return [_line(provider, model.name, seen.detail, model.window) for model in seen.models]
    names = [*provider.settings.models, *filter(None, [default_of(provider, seen)])]
    if seen.state == "other" and provider.given and names:
        return [_line(provider, name, seen.detail, None) for name in dict.fromkeys(names)]
    return [_not(provider, seen.detail if seen.state == "here" else f"{seen.detail}. {start_hint(provider.name)}")]


async def _asked(provider: Provider, clients: Clients, ring: KeyRing) -> list[ModelInfo]:
    """Ask a provider for its models; an error is a line, not the end of the list."""
    wire = codec(provider.kind, provider.name)
    try:
        client = await clients.get(provider.name, provider.base_url)
        models = await fetch(client, provider, wire.headers(provider.key), REFRESH_S)
    except NoListing as error:
        why = str(error)
        if error.status >= 400:
            refused = wire.error(error.status, error.headers, error.body)
            why = f"{refused.message}. {refused.repair or ''}"
    except TimeoutError:
        why = f"did not list its models within {REFRESH_S:g} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        failed = broken(provider, error).error
        why = f"{failed.message}. {failed.repair or ''}"
    except InteractdError as error:
        why = f"{error.message}. {error.repair or ''}"
    else:
        detail = f"key from {provider.key_from}"
        allowed = provider.settings.models
        kept = [model for model in models if not allowed or model.name in allowed]
        return [_line(provider, model.name, detail, model.window) for model in kept] or _told(provider, detail)
    return [_not(provider, ring.scrub(why).strip()[:_MAX_ERROR])]


def _line(provider: Provider, name: str, detail: str, window: int | None) -> ModelInfo:
    if not provider.local:
        window = window or known.window(name)
    return ModelInfo(
        f"{provider.name}/{name}",
        provider.name,
        available=True,
        detail=detail,
        local=provider.local,
        context_window=provider.settings.context_window or window,
    )
