"""The price list that genai-prices brings: read as it was released, never fetched. Imported when first needed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from interactd.models.prices.price import Price, Rates, nano

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

RELEASED: Final = {"0.2.3": "2026-11-10"}
"""The day each release of the list that we have seen came out: how old its figures are."""
_OURS: Final = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
_ADDRESSES: Final = {
    "openai": "https://api.openai.com",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}


def find(provider: str, model: str, base_url: str | None) -> Price | None:
    """Return the list's price of a model now; `None` where it has none.

    The address decides, because that is who sends the bill: a provider of the user's own naming is looked up by it, and
    a built-in one that was pointed elsewhere is not taken for the original. Takes a quarter of a second the first time.
    """
    listed = _provider(provider, base_url)
    if listed is None:
        return None
    from genai_prices.data import providers

    info = listed.find_model(model.lower(), all_providers=providers)
    return None if info is None else _price(info, model)


def version() -> str:
    """Return the version of the list."""
    from importlib.metadata import version as of

    return of("genai-prices")


def _provider(name: str, base_url: str | None) -> Provider | None:
    from genai_prices.data import providers

    address = base_url or _ADDRESSES.get(name)
    if address is None:
        return None
    at_home = _ADDRESSES.get(name)
    if at_home is not None and f"{address}/".startswith(f"{at_home}/"):
        return next((one for one in providers if one.id == _OURS[name]), None)
    return next((one for one in providers if one.models and _is_at(one.api_pattern, address)), None)


def _is_at(pattern: str, address: str) -> bool:
    """Whether an address is a provider's, and not one that only begins like it."""
    found = re.match(pattern, address)
    if found is None:
        return False
    return found.end() == len(address) or address[found.end()] in "/:" or address[found.end() - 1] in "/."


def _price(info: ModelInfo, model: str) -> Price | None:
    prices = info.get_prices(datetime.now(tz=UTC))
    base = _rates(prices, None)
    if base is None:
        return None
    starts = sorted({tier.start for part in _parts(prices) if not isinstance(part, Decimal) for tier in part.tiers})
    tiers = [(start, rates) for start in starts if (rates := _rates(prices, start)) is not None]
    release = version()
    per_thousand = prices.requests_kcount
    return Price(
        base,
        f"genai-prices {release}",
        RELEASED.get(release),
        tuple(tiers),
        nano(per_thousand / 1000) if isinstance(per_thousand, Decimal) else 0,
        None if info.id == model.lower() else info.id,
    )


def _parts(prices: ModelPrice) -> list[Decimal | TieredPrices]:
    every = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    return [part for part in every if part is not None]


def _rates(prices: ModelPrice, above: int | None) -> Rates | None:
    """The rates of a request longer than `above`; `None` where the list says nothing, which does not mean free."""

    def figure(part: Decimal | TieredPrices | None) -> int | None:
        if part is None or isinstance(part, Decimal):
            return None if part is None else nano(part)
        reached = [tier.price for tier in part.tiers if above is not None and tier.start <= above]
        return nano(reached[-1] if reached else part.base)

    given, made = figure(prices.input_mtok), figure(prices.output_mtok)
    if given is None or made is None:
        return None
    return Rates(given, made, figure(prices.cache_read_mtok), figure(prices.cache_write_mtok))
