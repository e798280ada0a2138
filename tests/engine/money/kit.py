"""Prices of the scripted model, and engines with money."""

from __future__ import annotations

from interactd.config.schema import Price
from interactd.engine.money.money import MoneySettings
from interactd.models.prices import Prices
from interactd.nouns import Json

DOLLAR_A_TOKEN = Price(input=1e6, output=1e6)
"""So that a figure of tokens is one of dollars."""


def money(day: Json | None = None, **prices: Price) -> MoneySettings:
    """Every scripted model at a dollar a token, unless others are given."""
    given = prices or {"scripted": DOLLAR_A_TOKEN}
    return MoneySettings(Prices(given), dict(day or {}))
