"""All providers together: finds a model by its name, and says what is reachable and why the rest is not."""

from __future__ import annotations

import builtins
import difflib
import logging
from collections.abc import Iterable
from dataclasses import replace

from interactd.config import BUILT_IN, Config
from interactd.errors import ConfigError, InteractdError, MissingKey, ProviderUnavailable, UnknownModel
from interactd.models import known
from interactd.models.auto import Choice, EmbeddedModels, Missed, choose, default_of, not_set_up
from interactd.models.codecs import codec
from interactd.models.http.clients import Clients
from interactd.models.http.failures import start_hint
from interactd.models.keys import KeyRing
from interactd.models.local import Found, Servers
from interactd.models.port import Model, ModelInfo
from interactd.models.providers import Provider, providers, with_key_file
from interactd.models.report import report
from interactd.models.transport import HttpModel

log = logging.getLogger(__name__)

MAX_NAME = 256
EMBEDDED = "embedded"


class ModelCatalog:
    """The catalog of one daemon (see `port.Catalog`).

    Args:
        settings: the configuration.
        ring: where keys are looked up.
        embedded: the embedded model, or `None` where there is none.
        config_file: shown in messages that tell people what to edit.
    """

    def __init__(
        self,
        settings: Config,
        ring: KeyRing,
        embedded: EmbeddedModels | None = None,
        *,
        config_file: str = "the configuration file",
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._embedded = embedded if settings.embedded.enabled else None
        self._clients = Clients()
        self._servers = Servers(self._clients)
        self._file = settings.file or config_file

    async def resolve(self, name: str, *, connection: str | None = None) -> Model:
        """Find a model (see `port.Catalog`)."""
        wanted = name.strip()
        if not wanted or len(wanted) > MAX_NAME or not wanted.isprintable():
            shown = ascii(wanted[:40]) + ("..." if len(wanted) > 40 else "")
            raise UnknownModel(
                f"model: expected a name such as openai/gpt-5.5 or auto, got {shown}",
                repair="list_agents (or `interactd models`) shows what is reachable.",
                field="model",
            )
        if wanted.lower() == "auto":
            return await self._auto(connection)
        found = await self._providers(connection)
        head, slash, rest = wanted.partition("/")
        head = head.lower()
        if head == EMBEDDED:
            return await self._embedded_model(rest if slash else "auto")
        if head in found:
            if slash and rest:
                return await self._of(found[head], rest)
            if not slash:
                return await self._default_of(found[head])
        elif head in self._settings.providers or (slash and head in BUILT_IN):
            raise UnknownModel(
                f"{head} is switched off (enabled = false under [providers.{head}])",
                repair=f"Switch it on in {self._file}, or use another model.",
                suggestions=[],
            )
        return await self._bare(wanted, found, connection)

    async def list(self, *, connection: str | None = None, refresh: bool = False) -> list[ModelInfo]:
        """What is reachable and why the rest is not (see `port.Catalog`)."""
        if refresh:
            self._servers.forget()
        found = await self._providers(connection)
        lines = await report(found, self._servers, self._clients, self._ring, self._embedded, refresh=refresh)
        choice = await choose(self._settings, found, self._servers, self._embedded)
        picked = choice.label if isinstance(choice, Choice) else None
        # The embedded model marks its own default, which counts only when it is what auto means.
        on_embedded = picked in (EMBEDDED, f"{EMBEDDED}/auto")
        return [
            replace(line, default=line.available and (line.id == picked or (on_embedded and line.default)))
            for line in lines
        ]

    async def explain_auto(self, *, connection: str | None = None) -> str:
        """One sentence: which model `auto` picks now and why."""
        choice = await self._choose(connection)
        if isinstance(choice, Missed):
            error = not_set_up(choice, self._file)
            return f"auto: {error.message}. {error.repair}"
        return f"auto is {choice.label}, because {choice.why}."

    async def aclose(self) -> None:
        """Close connections and stop children."""
        await self._servers.aclose()
        await self._clients.aclose()
        if self._embedded is not None:
            await self._embedded.aclose()

    # -- by name ---------------------------------------------------------------------------------------------

    async def _choose(self, connection: str | None) -> Choice | Missed:
        return await choose(self._settings, await self._providers(connection), self._servers, self._embedded)

    async def _auto(self, connection: str | None) -> Model:
        choice = await self._choose(connection)
        if isinstance(choice, Missed):
            raise not_set_up(choice, self._file)
        log.info("auto is %s, because %s", choice.label, choice.why)
        return await self.resolve(choice.label, connection=connection)

    async def _of(self, provider: Provider, name: str) -> Model:
        """A model of a known provider."""
        ready = await self._ready(provider)
        allowed = [*ready.settings.models, *filter(None, [ready.settings.default_model])]
        if ready.settings.models and name not in allowed:
            raise self._unknown(f"{ready.name}/{name}", [f"{ready.name}/{each}" for each in allowed], ready.name)
        window = ready.settings.context_window
        if ready.probed:
            seen = await self._servers.look(ready, patient=True)
            listed = seen.match(name)
            if listed is not None:
                name, window = listed.name, window or listed.window
            elif seen.state == "down" or not (name in allowed or self._trusted(ready, seen)):
                raise self._absent(ready, name, seen)
        elif not ready.local:
            window = window or known.window(name)
        return HttpModel(ready, name, codec(ready.kind, ready.name), self._clients, self._ring, context_window=window)

    @staticmethod
    def _trusted(provider: Provider, seen: Found) -> bool:
        """Whether a name that a server does not list may be tried: gateways pass on more than they list, and some
        servers that somebody configured list nothing."""
        return provider.given and (provider.keyed or seen.state == "other")

    async def _default_of(self, provider: Provider) -> Model:
        """A provider's name alone: its default model."""
        seen = None
        if provider.probed and not provider.problem:
            seen = await self._servers.look(provider, patient=True)
        name = default_of(provider, seen)
        if name is not None:
            return await self._of(provider, name)
        if seen is not None and seen.state != "here":
            raise self._absent(provider, "", seen)
        listed = [f"{provider.name}/{model.name}" for model in seen.models] if seen else []
        raise UnknownModel(
            f"{provider.name} is a provider, and it has no default model",
            repair=f"Name a model as {provider.name}/NAME, or set default_model under [providers.{provider.name}].",
            suggestions=listed[:5],
        )

    async def _bare(self, wanted: str, found: dict[str, Provider], connection: str | None) -> Model:
        """A name without a provider: one that lists it, or whose family it belongs to."""
        seen = await self._servers.look_all(p for p in found.values() if p.probed and not p.problem)
        names: dict[str, Provider] = {}
        hits: dict[str, Provider] = {}
        for provider in found.values():
            listed = seen[provider.name].models if provider.name in seen else []
            settings = provider.settings
            own = [*settings.models, *filter(None, [settings.default_model]), *(model.name for model in listed)]
            names.update({f"{provider.name}/{each}": provider for each in own})
            matches = provider.name in seen and seen[provider.name].match(wanted) is not None
            if wanted in own or matches:
                hits[f"{provider.name}/{wanted}"] = provider
        usable = {label: one for label, one in hits.items() if one.probed or one.key or one.settings.api_key_file}
        hits = usable or hits
        embedded = [line.id for line in await self._embedded.list()] if self._embedded else []
        mine = f"{EMBEDDED}/{wanted}"
        if mine in embedded and not hits:
            return await self._embedded_model(wanted)
        if len(hits) + (mine in embedded) > 1:
            several = [*hits, *([mine] if mine in embedded else [])]
            raise UnknownModel(
                f"{wanted!r} is known to more than one provider: {', '.join(several)}",
                repair="Name one of them with its provider.",
                suggestions=several[:5],
            )
        if hits:
            label, provider = next(iter(hits.items()))
            return await self._of(provider, label.removeprefix(f"{provider.name}/"))
        if (of := known.family(wanted)) is not None and of in found:
            return await self._of(found[of], wanted)
        hosted = [f"{name}/{model}" for name, model in known.DEFAULTS.items() if name in found]
        raise self._unknown(wanted, [*names, *embedded, *hosted], None, providers_known=list(found))

    async def _embedded_model(self, name: str) -> Model:
        if self._embedded is None:
            raise UnknownModel(
                "the embedded model is switched off (enabled = false under [embedded])",
                repair=f"Switch it on in {self._file}, or use another model.",
                suggestions=[],
            )
        return await self._embedded.resolve(name or "auto")

    # -- what stands in the way --------------------------------------------------------------------------------

    async def _ready(self, provider: Provider) -> Provider:
        """The provider with its key, or the error that says what it lacks."""
        ready = await with_key_file(provider, self._ring, self._settings)
        if ready.problem:
            raise ConfigError(
                f"{ready.name}: {ready.problem}",
                repair=f"Correct the environment or {self._file}.",
                provider=ready.name,
            )
        if ready.keyed and ready.key is None and not ready.probed:
            raise MissingKey(
                f"{ready.name} needs a key, and there is no {ready.wanted_key} in the environment of the host or of "
                "the daemon",
                repair=(
                    f"Set {ready.wanted_key} where the host starts interactd (the `env` of its configuration), or name "
                    f"another variable with api_key_env under [providers.{ready.name}] in {self._file}; or use a model "
                    "that is reachable."
                ),
                provider=ready.name,
                variable=ready.key_names[0] if ready.key_names else None,
            )
        return ready

    async def _providers(self, connection: str | None) -> dict[str, Provider]:
        """All providers with their keys; a key file that cannot be read is that provider's own problem."""
        out: dict[str, Provider] = {}
        for provider in providers(self._settings, self._ring, connection).values():
            try:
                out[provider.name] = await with_key_file(provider, self._ring, self._settings)
            except MissingKey as error:
                out[provider.name] = replace(provider, problem=error.message)
        return out

    def _absent(self, provider: Provider, name: str, seen: Found) -> InteractdError:
        if seen.state != "here":
            return ProviderUnavailable(
                f"{provider.name}: {seen.detail}", repair=start_hint(provider.name), provider=provider.name
            )
        listed = [f"{provider.name}/{model.name}" for model in seen.models]
        error = self._unknown(f"{provider.name}/{name}", listed, provider.name)
        if provider.name == "ollama":
            error.repair = f"Run `ollama pull {name}`. " + (error.repair or "")
        return error

    def _unknown(
        self, wanted: str, labels: builtins.list[str], provider: str | None, providers_known: Iterable[str] = ()
    ) -> UnknownModel:
        """An unknown name, with what may have been meant."""
        near = _near(wanted, labels, providers_known)
        who = f"{provider} does not list" if provider else "no provider knows"
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        return UnknownModel(
            f"{who} a model {wanted!r}",
            repair=f"{hint}Names are provider/name; list_agents (or `interactd models`) shows what is reachable.",
            suggestions=near,
        )


def _near(wanted: str, labels: builtins.list[str], heads: Iterable[str]) -> builtins.list[str]:
    word = wanted.lower()
    keys = {label.lower(): label for label in labels}
    for label in labels:
        keys.setdefault(label.partition("/")[2].lower(), label)
    head, slash, rest = word.partition("/")
    if slash:
        # A misspelt provider: the rest of the name may be right.
        for close in difflib.get_close_matches(head, list(heads), n=1, cutoff=0.6):
            keys.setdefault(f"{close}/{rest}", f"{close}/{wanted.partition('/')[2]}")
    near = [keys[key] for key in difflib.get_close_matches(word, list(keys), n=5, cutoff=0.6)]
    return list(dict.fromkeys(near))[:3]
