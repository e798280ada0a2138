"""What all places together say about one call.

The agent, its environment, the session and the turn can each only make it stricter: the strictest of them holds. The
user's own configuration is the exception: what it says takes the place of what agent and environment say, whether that
is stricter or not, and session and turn can make it stricter again.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from interactd.approvals.matching import BadPattern, TooLong
from interactd.approvals.shape import Decision, Policy

DEADLINE_S: Final = 24 * 3600.0
_STRICTNESS: Final[Mapping[Decision, int]] = {"allow": 0, "ask": 1, "deny": 2}


@dataclass(frozen=True, slots=True)
class Layer:
    """One place's policy. `name` is for people: `the session`."""

    name: str
    policy: Policy
    replaceable: bool = False
    """Whether the user's configuration takes its place where that says something."""
    configuration: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a call. For `ask`: how long to wait for the answer, and what holds when none came."""

    decision: Decision
    reason: str = ""
    by: tuple[str, ...] = ()
    """The places that say so."""
    deadline_s: float = DEADLINE_S
    default: Literal["allow", "deny"] = "deny"


@dataclass(frozen=True, slots=True)
class _Said:
    layer: Layer
    decision: Decision
    reason: str


def decide(layers: Sequence[Layer], names: Sequence[str], arguments: Mapping[str, Any], *, read_only: bool) -> Verdict:
    """Decide about one call.

    Args:
        layers: every place that may have a policy, the general ones first.
        names: the tool's name, and its group's.
        arguments: as the tool takes them.
        read_only: whether the tool only looks.
    """
    said = [one for layer in layers if (one := _said(layer, names, arguments, read_only)) is not None]
    if any(one.layer.configuration for one in said):
        said = [one for one in said if not one.layer.replaceable]
    if not said:
        return Verdict("allow")
    strictest = max(said, key=lambda one: _STRICTNESS[one.decision]).decision
    those = [one for one in said if one.decision == strictest]
    reason = next((one.reason for one in those if one.reason), "")
    by = tuple(one.layer.name for one in those)
    if strictest != "ask":
        return Verdict(strictest, reason, by)
    general = next((layer.policy for layer in layers if layer.configuration), Policy())
    usual = general.deadline_s or DEADLINE_S
    # Each place that wants to be asked has its own patience; the shortest holds, and one no is a no.
    deadline = min(one.layer.policy.deadline_s or usual for one in those)
    defaults = {one.layer.policy.default or general.default or "deny" for one in those}
    return Verdict("ask", reason, by, deadline, "allow" if defaults == {"allow"} else "deny")


def _said(layer: Layer, names: Sequence[str], arguments: Mapping[str, Any], read_only: bool) -> _Said | None:
    """What one place says about the call; `None` when it says nothing."""
    word = layer.policy.word_for(names)
    if word is None:
        return None
    if word != "auto":
        return _Said(layer, "allow" if word == "always_allow" else "ask", "")
    for rule in layer.policy.rules:
        if rule.tools and not any(_fits(pattern, name) for pattern in rule.tools for name in names):
            continue
        try:
            holds = rule.conditions.hold(arguments, read_only=read_only)
        except TooLong:
            return _Said(layer, "ask", "its arguments are too long to be checked by rules")
        except BadPattern as error:
            return _Said(layer, "ask", f"a rule cannot be checked: {error}")
        if holds:
            return _Said(layer, rule.decision, rule.reason)
    return _Said(layer, "ask", "")


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) if "*" in pattern else pattern == name
