"""Which of an agent's calls may be made now, which have to be asked about, and which not at all.

Read from the journal and the policies alone, so that a run that is taken up again decides as the one before it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from interactd.agents.port import AgentDefinition
from interactd.approvals import Layer, Verdict, decide, parse
from interactd.builtins.port import Outcome
from interactd.builtins.tools import GROUPS
from interactd.engine.agents.steps import QUESTION, answer_of, arguments_of, function_of, own_result
from interactd.engine.approvals.standing import standing
from interactd.engine.core import Core
from interactd.engine.run.outcome import unanswered
from interactd.nouns import Interaction, Session, Step
from interactd.sandbox.environments_port import Environment

LOOKS: Final = frozenset({"view_file", "list_dir", "search_files"})
"""Tools that only look at the workspace: what `read_only` means in a rule."""
_GROUP: Final = {name: group for group, names in GROUPS.items() for name in names}

_FREE: Final = Verdict("allow")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of an open call. `open`: it was asked about, and nobody has answered."""

    what: Literal["allow", "ask", "deny", "open"]
    verdict: Verdict = _FREE


class Gate:
    """The policies that hold for one run."""

    def __init__(self, layers: Sequence[Layer], session: Session) -> None:
        self._layers = layers
        self._session = session

    def ruling(self, call: Step, own: Sequence[Step]) -> Ruling:
        """What becomes of one of the run's calls, given its steps so far."""
        call_id = str(call.body["id"])
        if any((step.state or {}).get(QUESTION) == call_id for step in unanswered(own)):
            return Ruling("open")
        if answer := answer_of(own, call_id):
            return Ruling("allow") if answer.allow else _denied(answer.reason, answer.by_default)
        name = function_of(call) or ""
        names = (name, _GROUP[name]) if name in _GROUP else (name,)
        verdict = decide(self._layers, names, arguments_of(call), read_only=name in LOOKS)
        if verdict.decision != "ask":
            return Ruling(verdict.decision, verdict)
        if answer := standing(name, own, self._session):
            return Ruling("allow") if answer.allow else _denied(answer.reason, by_default=False)
        return Ruling("ask", verdict)

    def ready(self, calls: Sequence[Step], own: Sequence[Step]) -> list[Step]:
        """The calls that may be made now: all in front of the first that waits for a word.

        What comes behind it may rely on it, and is made after it or not at all.
        """
        ready: list[Step] = []
        for call in calls:
            ruling = self.ruling(call, own)
            if ruling.what in ("ask", "open"):
                break
            if ruling.what == "allow":
                ready.append(call)
        return ready

    def asked(self, calls: Sequence[Step], own: Sequence[Step]) -> list[tuple[Step, Verdict]]:
        """Every call that has to be asked about and was not."""
        rulings = [(call, self.ruling(call, own)) for call in calls]
        return [(call, ruling.verdict) for call, ruling in rulings if ruling.what == "ask"]

    def refused(self, calls: Sequence[Step], own: Sequence[Step]) -> list[Step]:
        """The results of calls that are not made, with the reason for the model."""
        made: list[Step] = []
        for call in calls:
            ruling = self.ruling(call, own)
            if ruling.what == "deny":
                made.append(own_result(call, Outcome(_sentence(ruling.verdict), is_error=True)))
        return made


def gate_for(
    core: Core,
    definition: AgentDefinition,
    environment: Environment,
    session: Session,
    interaction: Interaction,
) -> Gate:
    """The gate of a run, from all places that may have a policy."""
    layers: list[Layer] = []
    if core.settings.approvals:
        layers.append(Layer("your configuration", parse(core.settings.approvals), configuration=True))
    for kept in definition.approvals:
        layers.append(Layer(f"agent {definition.id}", parse(kept), replaceable=True))
    for kept in environment.approvals:
        layers.append(Layer("its environment", parse(kept), replaceable=True))
    if session.approvals:
        layers.append(Layer("the session", parse(session.approvals)))
    if interaction.approvals:
        layers.append(Layer("the turn", parse(interaction.approvals)))
    return Gate(layers, session)


def _denied(reason: str, by_default: bool) -> Ruling:
    said = "Nobody answered in time whether it may run" if by_default else "The user did not allow this call"
    return Ruling("deny", Verdict("deny", f"{said}.{f' Reason: {reason}' if reason and not by_default else ''}"))


def _sentence(verdict: Verdict) -> str:
    if not verdict.by:
        return verdict.reason
    reason = f" Reason: {verdict.reason}" if verdict.reason else ""
    return f"This call is not allowed by the policy of {' and '.join(verdict.by)}.{reason} Find another way."
