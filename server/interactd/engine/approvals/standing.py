"""Answers that hold for more than one call: for the rest of a run, or of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from interactd.engine.agents.steps import Answer, answer_in, is_result, questions
from interactd.nouns import Json, Session, Step

STANDING: Final = "standing"
"""Where a session's `approvals` keep them: `{tool: {"decision", "reason"?, "interaction_id", "at"}}`."""


def standing(name: str, own: Sequence[Step], session: Session) -> Answer | None:
    """What was said of all calls of a tool, the latest first; `None` when nothing was."""
    asked = questions(own)
    for step in reversed(own):
        question = asked.get(str(step.body.get("call_id"))) if is_result(step) else None
        if question is not None and question.body["arguments"]["name"] == name:
            answer = answer_in(step)
            if answer.scope != "call":
                return answer
    kept: Json = (session.approvals or {}).get(STANDING, {})
    if name not in kept:
        return None
    return Answer(kept[name]["decision"] == "allow", kept[name].get("reason", ""), "session")


def with_standing(session: Session, answers: dict[str, Json], interaction_id: str, now: float) -> Json:
    """Return the session's approvals with what was answered for all of it.

    Args:
        session: whose approvals they are.
        answers: tool to answer.
        interaction_id: whose question was answered.
        now: when.
    """
    approvals: Json = dict(session.approvals or {})
    kept: Json = dict(approvals.get(STANDING, {}))
    for name, answer in answers.items():
        said = {key: answer[key] for key in ("decision", "reason") if key in answer}
        kept[name] = {**said, "interaction_id": interaction_id, "at": now}
    return {**approvals, STANDING: kept}


def without_standing(approvals: Json | None) -> Json | None:
    """Return the policy alone: what was allowed in one session was not in another."""
    if approvals is None:
        return None
    return {name: value for name, value in approvals.items() if name != STANDING} or None
