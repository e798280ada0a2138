"""Who is asked for a price, in which order: the user's figures, what is free, the price list; then nobody knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, Protocol

from interactd.models.http.urls import is_loopback
from interactd.models.prices import snapshot
from interactd.models.prices.price import FREE, Price, Rates, nano

KEPT_S: Final = 600.0
"""How long an answer is kept: prices change at hours of the day with some providers."""
MANY: Final = 1_000


class Override(Protocol):
    """The user's own price of a model or provider, in dollars for a million tokens."""

    @property
    def input(self) -> float: ...

    @property
    def output(self) -> float: ...

    @property
    def cached(self) -> float | None: ...

    @property
    def cache_write(self) -> float | None: ...


class Prices:
    """Prices of one configuration. `overrides` is by `provider/model`, or by provider for all of its models."""

    def __init__(self, overrides: Mapping[str, Override] | None = None) -> None:
        self._own = {name.lower(): _own(given) for name, given in (overrides or {}).items()}
        self._known: dict[tuple[str, str, str | None], tuple[float, Price | None]] = {}

    async def of(self, provider: str, model: str, base_url: str | None) -> Price | None:
        """Return what a model costs, `None` when nobody knows.

        Args:
            provider: as it is named here.
            model: the provider's own name for it.
            base_url: where it is called; `None` for the address that the provider's name stands for.
        """
        if (given := self.settled(provider, model, base_url)) is not None:
            return given
        key = (provider, model, base_url)
        now = time.monotonic()
        found = self._known.get(key)
        if found is None or now - found[0] > KEPT_S:
            # Importing the list takes a quarter of a second of CPU, which nobody else should wait for.
            found = (now, await asyncio.to_thread(snapshot.find, provider, model, base_url))
            if len(self._known) >= MANY:
                self._known.clear()
            self._known[key] = found
        return found[1]

    def settled(self, provider: str, model: str, base_url: str | None) -> Price | None:
        """Return the price that needs no list: the user's own figures, or nothing for what runs on this machine."""
        own = self._own.get(f"{provider}/{model}".lower()) or self._own.get(provider.lower())
        if own is not None:
            return own
        if provider == "embedded" or (base_url is not None and is_loopback(base_url)):
            return Price(FREE, "local")
        return None


def _own(given: Override) -> Price:
    def figure(usd: float | None) -> int | None:
        return None if usd is None else nano(usd)

    rates = Rates(nano(given.input), nano(given.output), figure(given.cached), figure(given.cache_write))
    return Price(rates, "config")
