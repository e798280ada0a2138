"""What models cost: a table with its date, the user's own figures over it, and nothing where nobody knows."""

from interactd.models.prices.lookup import Prices
from interactd.models.prices.price import Price, Rates, nano

__all__ = ["Price", "Prices", "Rates", "nano"]
