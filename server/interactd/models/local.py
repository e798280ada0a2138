"""Finds model servers by asking them: bounded, remembered for half a minute, never asked twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import httpx2

from interactd.errors import InteractdError
from interactd.models.codecs import codec
from interactd.models.http.clients import Clients
from interactd.models.http.urls import host_of, is_loopback
from interactd.models.listing import Listed, NoListing, Ourselves, fetch
from interactd.models.providers import Provider

PROBE_S = 0.2
PROBE_FAR_S = 1.0
PATIENT_S = 3.0
REMEMBER_S = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe saw. `other`: something answers there, but it lists no models."""

    state: Literal["here", "other", "down"]
    detail: str
    models: list[Listed] = field(default_factory=list[Listed])
    late: bool = False
    """It answered before and was too slow this time: believed once more, since a busy machine is not a dead server."""

    def match(self, name: str) -> Listed | None:
        """Find a listed model; Ollama's `:latest` may be left out."""
        wanted = (name, f"{name}:latest")
        return next((model for model in self.models if model.name in wanted), None)


class Servers:
    """The probes and what they found."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._known: dict[tuple[str, str, str | None], tuple[float, Found]] = {}
        self._running: dict[tuple[str, str, str | None], asyncio.Task[Found]] = {}
        self.probes = 0
        """How many were made so far."""

    async def look(self, provider: Provider, *, patient: bool = False) -> Found:
        """Say whether a server is there and what it has.

        With `patient` (somebody named it) a remembered "down" is not believed, and a slow server is waited for 3 s
        instead of 200 ms (1 s when it is on another machine).
        """
        key = (provider.name, provider.base_url, provider.key)
        at, found = self._known.get(key, (float("-inf"), None))
        if found and _now() - at < REMEMBER_S and not (patient and found.state == "down"):
            return found
        task, own = self._running.get(key), False
        if task is None:
            task, own = asyncio.create_task(self._probe(provider, key, patient=patient)), True
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # One caller that gives up must not take the answer from the others.
        found = await asyncio.shield(task)
        # Somebody else's short probe proves nothing to a patient caller.
        return await self.look(provider, patient=True) if patient and not own and found.state == "down" else found

    async def look_all(self, providers: Iterable[Provider]) -> dict[str, Found]:
        """Look at several at once; names in the given order."""
        several = list(providers)
        found = await asyncio.gather(*(self.look(provider) for provider in several))
        return {provider.name: seen for provider, seen in zip(several, found, strict=True)}

    def forget(self) -> None:
        """Ask again next time."""
        self._known.clear()

    async def aclose(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _probe(self, provider: Provider, key: tuple[str, str, str | None], *, patient: bool) -> Found:
        self.probes += 1
        host = host_of(provider.base_url)
        limit = PATIENT_S if patient else PROBE_S if is_loopback(provider.base_url) else PROBE_FAR_S
        try:
            client = await self._clients.get(provider.name, provider.base_url)
            models = await fetch(client, provider, codec(provider.kind, provider.name).headers(provider.key), limit)
            found = Found("here", f"answers on {host}" + ("" if models else ", but has no models"), models)
        except Ourselves:
            found = Found("down", f"no model server answers on {host}, but interactd itself")
        except NoListing as error:
            found = Found("other", f"something answers on {host}, but not as a model server ({error})")
        except TimeoutError:
            before = self._known[key][1] if key in self._known else None
            believed = before is not None and before.state == "here" and not before.late and not patient
            found = (
                replace(before, late=True)
                if before and believed
                else Found("down", f"{host} did not answer within {limit * 1000:g} ms")
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, InteractdError):
            found = Found("down", f"nothing answers on {host}")
        self._known[key] = (_now(), found)
        return found


def _now() -> float:
    return asyncio.get_running_loop().time()
