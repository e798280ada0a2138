"""What became of a reserved call, and how much of an answer a budget still pays for. Pure."""

from __future__ import annotations

from typing import Final

from interactd.errors import (
    ConfigError,
    ContextOverflow,
    InteractdError,
    InvalidArgument,
    KeyRefused,
    MissingKey,
    NotSetUp,
    ProviderRejected,
    QuotaExceeded,
    RateLimited,
    UnknownModel,
)
from interactd.models.prices import Price
from interactd.nouns import Usage
from interactd.store.ledger_port import Outcome, Shortfall

PLAUSIBLE: Final = 10_000_000
"""No call has more tokens of a kind; a provider that says so does not know."""
ENDLESS: Final = 1 << 40
_NOT_MADE: Final = (
    ConfigError,
    ContextOverflow,
    InvalidArgument,
    KeyRefused,
    MissingKey,
    NotSetUp,
    ProviderRejected,
    QuotaExceeded,
    RateLimited,
    UnknownModel,
)
_MAYBE_MADE: Final = (408, 504, 524)
"""A gateway gave up waiting for an answer that somebody may have made."""


def unpaid(error: InteractdError, *, produced: bool) -> bool:
    """Whether it is known that a call that failed so was not made, so that nobody charges for it: it never left, or the
    provider refused it."""
    if produced:
        return False
    if isinstance(error, _NOT_MADE):
        return True
    if error.fields.get("sent") is False or error.fields.get("setting") == "connect_timeout_s":
        return True
    status = error.fields.get("status")
    return isinstance(status, int) and 300 <= status <= 599 and status not in _MAYBE_MADE


def outcome_of(
    reserved: Outcome, usage: Usage | None, price: Price | None, most_input: int, most_output: int, *, said: bool
) -> Outcome:
    """Settle a call that ended as it should.

    Args:
        reserved: its reservation.
        usage: what the provider says; figures that are missing or cannot be are taken at their worst.
        price: `None` where nobody knows it.
        most_input: the most that its input can have been.
        most_output: the most that its output can have been, thoughts included.
        said: whether it gave any text, so that no output at all cannot be.
    """
    # No request is empty.
    given = _figure(usage and usage.input) or None
    thought = _figure(usage and usage.thought)
    made = _figure(usage and usage.output)
    absurd = usage is not None and usage.thought is not None and thought is None
    if absurd or (said and not (made or thought)):
        made = None
    counted = Usage(
        input=most_input if given is None else given,
        output=max(0, most_output - (thought or 0)) if made is None else made,
        thought=thought,
        cached=_figure(usage and usage.cached),
        cache_write=_figure(usage and usage.cache_write),
        tool_use=_figure(usage and usage.tool_use),
    )
    tokens = sum(figure or 0 for figure in (counted.input, counted.output, counted.thought, counted.tool_use))
    if given is not None and made is not None:
        return Outcome(reserved.id, "settled", usage, None if price is None else price.cost(counted), tokens)
    worst = None
    if price is not None:
        worst = price.most(counted.input or 0, (counted.output or 0) + (counted.thought or 0))
    return Outcome(reserved.id, "unknown", usage, worst, tokens)


def room(short: Shortfall, price: Price | None, most_input: int, *, held: bool) -> int:
    """Return how long an answer the budget still pays for, in tokens; below 0 when it does not even pay for the input.

    Args:
        held: whether to count what others have reserved; without, it is what there may be when they are done.
    """
    left = short.limit - short.spent - (short.held if held else 0)
    if short.unit == "usd":
        return -1 if price is None else price.output_for(most_input, left)
    if short.unit == "tokens":
        return left - most_input
    return ENDLESS if left > 0 else -1


def _figure(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= PLAUSIBLE else None
