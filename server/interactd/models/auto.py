"""`model: "auto"`: which model it means now, and why.

The chain: the model named in the configuration; a provider whose key is there; a model server that answers; the
embedded model. Each step is tried only when those before it gave nothing: a machine with a key is never probed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from interactd.config import Config
from interactd.errors import NotSetUp
from interactd.models import known
from interactd.models.local import Found, Servers
from interactd.models.port import Model, ModelInfo
from interactd.models.providers import Provider


class EmbeddedModels(Protocol):
    """What the catalog needs of the embedded model."""

    async def resolve(self, name: str = "auto") -> Model: ...

    async def list(self) -> list[ModelInfo]: ...

    def ready(self) -> bool: ...

    def why_not(self) -> str | None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` means: `provider/name`, and a clause that completes "because"."""

    label: str
    why: str


@dataclass(slots=True)
class Missed:
    """Nothing is usable; what was looked at and why it would not do."""

    reasons: list[str] = field(default_factory=list[str])


async def choose(
    settings: Config, found: Mapping[str, Provider], servers: Servers, embedded: EmbeddedModels | None
) -> Choice | Missed:
    """Go through the chain."""
    named = settings.defaults.model
    if named.lower() != "auto":
        return Choice(named, "[defaults] model names it in the configuration")
    missed = Missed()
    for provider in found.values():
        if provider.probed:
            continue
        if provider.problem:
            missed.reasons.append(f"{provider.name}: {provider.problem}")
        elif provider.key is None and provider.settings.api_key_file is None:
            missed.reasons.append(f"no {provider.wanted_key}")
        elif (name := default_of(provider, None)) is None:
            missed.reasons.append(f"{provider.name} has a key but no default_model")
        else:
            source = provider.key_from or f"the key in {provider.settings.api_key_file}"
            return Choice(f"{provider.name}/{name}", f"{source} is set" if provider.key_from else f"{source} is there")
    asked = [provider for provider in found.values() if provider.probed and not provider.problem]
    seen = await servers.look_all(asked)
    silent: list[str] = []
    for provider in asked:
        name = default_of(provider, seen[provider.name])
        if name is not None:
            return Choice(f"{provider.name}/{name}", f"no key is set and {provider.name} {seen[provider.name].detail}")
        silent.append(provider.name)
    if silent:
        missed.reasons.append(f"no model server answers ({', '.join(silent)})")
    if embedded is not None and settings.embedded.enabled:
        if embedded.ready():
            return Choice("embedded/auto", "no key is set, no model server answers, and the embedded model is set up")
        missed.reasons.append("the embedded model is not set up")
    return missed


def default_of(provider: Provider, seen: Found | None) -> str | None:
    """Return the model that a provider's bare name means: the configured one, else one that is known or listed.

    Of a server's models the loaded one comes first, since another would have to be read from disk.
    """
    if provider.probed and (seen is None or seen.state == "down"):
        return None
    if provider.settings.default_model:
        return provider.settings.default_model
    if provider.settings.models:
        return provider.settings.models[0]
    if seen is not None:
        if seen.state == "other":
            # A gateway without a list of models: what the real provider has is the best guess.
            return known.DEFAULTS.get(provider.name) if provider.key else None
        fit = [model for model in seen.models if known.chats(model.name)]
        return min(fit, key=lambda model: not model.loaded).name if fit else None
    return known.DEFAULTS.get(provider.name)


def not_set_up(missed: Missed, file: str) -> NotSetUp:
    """The error when nothing is usable."""
    return NotSetUp(
        f"no model is usable: {'; '.join(missed.reasons) or 'none is configured'}",
        repair=(
            "Run `interactd setup` to fetch the embedded model, or set a provider's key (such as OPENAI_API_KEY) where "
            f"the host starts interactd, or start a local server, or configure one in {file}."
        ),
    )
