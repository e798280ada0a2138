"""When a run stops by itself: too many steps, tokens or seconds. Its work is kept, and the error says how to go on."""

from __future__ import annotations

from dataclasses import dataclass

from interactd.agents.port import RunLimits
from interactd.nouns import Json, Usage

GO_ON = 'Everything it did is kept. Send another turn in this session ("go on") to let it continue'


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has used so far. `steps` are answers of the model, `seconds` only those in which it worked."""

    steps: int
    tokens: int
    seconds: float


def tokens_of(usage: Usage | None) -> int:
    """Input, output and thought tokens together."""
    if usage is None:
        return 0
    return (usage.input or 0) + (usage.output or 0) + (usage.thought or 0)


def exceeded(limits: RunLimits, spent: Spent) -> Json | None:
    """The error of the first limit that is reached; `None` while there is room for another step."""
    if spent.seconds >= limits.seconds:
        return time_exceeded(limits)
    if spent.steps >= limits.steps:
        return _error("steps", f"{limits.steps} steps", "limits.steps")
    if limits.tokens is not None and spent.tokens >= limits.tokens:
        return _error("tokens", f"{limits.tokens:,} tokens (it used {spent.tokens:,})", "limits.tokens")
    return None


def time_exceeded(limits: RunLimits) -> Json:
    return _error("time", f"{limits.seconds:g} seconds", "limits.seconds")


def _error(what: str, limit: str, field: str) -> Json:
    return {
        "code": f"{what}_exceeded",
        "message": f"The agent was stopped at its limit of {limit}.",
        "repair": f"{GO_ON}, or raise {field} in its manifest.",
    }
