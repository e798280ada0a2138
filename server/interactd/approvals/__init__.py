"""What may be done unasked: the shape of a policy, and what it says about one call. Pure, and known to every layer.

`shape` reads a policy as people and programs write it, `matching` compares a rule with a call, `deciding` puts the
policies of several places over each other.
"""

from __future__ import annotations

from interactd.approvals.deciding import Layer, Verdict, decide
from interactd.approvals.shape import POLICIES, Malformed, Policy, Rule, clean, parse

__all__ = ["POLICIES", "Layer", "Malformed", "Policy", "Rule", "Verdict", "clean", "decide", "parse"]
