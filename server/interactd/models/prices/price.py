"""One model's price, and what a call costs at it: whole nano-dollars, always rounded up."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from interactd.nouns import NANO, Json, Usage

MOST_NANO: Final = 1_000_000 * NANO
"""No call costs more: so that any number of them can be added up in 64 bits."""
_MILLION: Final = 1_000_000


def nano(usd: Decimal | float | int | str) -> int:
    """Return dollars as whole nano-dollars, rounded up; at most `MOST_NANO`."""
    exact = Decimal(str(usd)) * NANO
    return min(MOST_NANO, int(exact.to_integral_value(ROUND_CEILING)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars for a million tokens. `None`: the price list has no figure of its own for that kind of token."""

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None

    def as_usd(self) -> Json:
        """Dollars for a million tokens, as people read price lists."""
        figures = {name: getattr(self, name) for name in self.__slots__}
        return {name: value / NANO for name, value in figures.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs.

    Where providers charge long requests more, `tiers` has the length in input tokens above which a whole request is
    charged at other rates, shortest first.
    """

    rates: Rates
    source: str
    """Where the figures are from: `config`, `local`, `genai-prices 0.2.3`."""
    date: str | None = None
    """The day as of which they are right (`2026-11-10`); `None` for what has no date, such as zero."""
    tiers: tuple[tuple[int, Rates], ...] = ()
    per_call: int = 0
    """Nano-dollars for each call, besides its tokens."""
    name: str | None = None
    """What the price list calls the model, where that is not its own name."""

    @property
    def free(self) -> bool:
        """Whether nothing at this price can cost anything."""
        every = [self.rates, *(rates for _, rates in self.tiers)]
        figures = (rate for rates in every for rate in (rates.input, rates.output, rates.cached, rates.cache_write))
        return not self.per_call and not any(figures)

    def at(self, input_tokens: int) -> Rates:
        """Return the rates for a request of this length."""
        return next((rates for above, rates in reversed(self.tiers) if input_tokens > above), self.rates)

    def cost(self, usage: Usage) -> int:
        """Return what a call with this usage cost, in nano-dollars. A figure that is missing counts as none: whoever
        asks has filled in what it may have been.

        Thought tokens are charged as output. Cached tokens and those written to a cache are part of the input, charged
        at rates of their own where there are any.
        """
        given = usage.input or 0
        rates = self.at(given)
        cached = min(usage.cached or 0, given)
        written = min(usage.cache_write or 0, given - cached)
        made = (usage.output or 0) + (usage.thought or 0)
        total = (
            (given - cached - written + (usage.tool_use or 0)) * rates.input
            + cached * (rates.input if rates.cached is None else rates.cached)
            + written * (rates.input if rates.cache_write is None else rates.cache_write)
            + made * rates.output
        )
        return min(MOST_NANO, self.per_call - (-total // _MILLION))

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most that a call of at most this size can cost: none of it cached, all of it written to a cache
        where that is dearer, at the dearest tier that it may reach."""
        total = max(
            input_tokens * max(rates.input, rates.cached or 0, rates.cache_write or 0) + output_tokens * rates.output
            for rates in self._reached(input_tokens)
        )
        return min(MOST_NANO, self.per_call - (-total // _MILLION))

    def output_for(self, input_tokens: int, left: int) -> int:
        """Return how many output tokens `left` nano-dollars pay for after this much input; below 0 when the input alone
        costs more. Unlimited (a very large number) where output costs nothing."""
        left -= self.most(input_tokens, 0)
        if left < 0:
            return -1
        dearest = max(rates.output for rates in self._reached(input_tokens))
        return 1 << 40 if not dearest else left * _MILLION // dearest

    def _reached(self, input_tokens: int) -> list[Rates]:
        # A request that turns out shorter is charged at the rates below.
        return [self.rates, *(rates for above, rates in self.tiers if input_tokens > above)]

    def as_dict(self) -> Json:
        """Return the figures in dollars with their source and date, as the ledger keeps them and people see them."""
        out: Json = {"usd_per_million": self.rates.as_usd(), "source": self.source}
        if self.date:
            out["date"] = self.date
        if self.name:
            out["listed_as"] = self.name
        if self.per_call:
            out["usd_per_call"] = self.per_call / NANO
        if self.tiers:
            out["tiers"] = [{"above_input_tokens": above, **rates.as_usd()} for above, rates in self.tiers]
        return out


FREE: Final = Rates(0, 0)
