"""How sessions, their transcripts and what was found in them read."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Literal

from interactd.engine.port import Standing
from interactd.nouns import Json, Session, Step
from interactd.store.port import Hit, Receipt, Turn
from interactd_tools.answers.interaction import render
from interactd_tools.answers.text import call, compact, cut, iso, one_line, plural, span, tokens, when

Format = Literal["concise", "detailed"]
_SAID = 240
_EMBEDDED = "embedded/"


def line(session: Session, *, unread: list[str] | None = None, now_at: Standing | None = None) -> str:
    """Return one session of a list, with what it is at just now."""
    now = time.time()
    parts = [session.id]
    if session.state != "active":
        parts.append(session.state)
    if session.title:
        parts.append(compact(one_line(session.title, 80)))
    parts += [
        who(session),
        plural(session.turns, "turn"),
        f"active {span(now - session.updated_at)} ago",
    ]
    if session.state == "active" and session.expires_at is not None:
        parts.append(f"expires in {span(session.expires_at - now)}")
    if session.labels:
        parts.append(one_line(compact(session.labels), 160))
    text = "- " + " · ".join(parts)
    if now_at is not None:
        why = f": {now_at.queue_reason}" if now_at.queue_reason else ""
        text += f"\n  now: {now_at.interaction.id} {now_at.interaction.status}{why}"
    if unread:
        text += "\n  unread: " + ", ".join(unread)
    return text


def who(session: Session) -> str:
    """Say who takes the session's turns."""
    names = [f"agent {session.agent}" if session.agent else "", session.model or ""]
    return " on ".join(name for name in names if name) or "no model"


def head(session: Session) -> str:
    """Return the status line of a session."""
    agent = f" · agent {session.agent}" if session.agent else ""
    model = f"{agent} · model {session.model}" if session.model else agent
    title = f" · {compact(one_line(session.title, 80))}" if session.title else ""
    return f"{session.state} · session {session.id}{model}{title}"


def lifetime(session: Session) -> str:
    """Say how long the session is kept."""
    if session.expires_at is None:
        return "Kept until it is deleted."
    ttl = f", {span(session.ttl_s)} after its last turn" if session.ttl_s else ""
    return f"Kept until {when(session.expires_at)}{ttl}."


def about_model(model: str | None) -> str:
    """Warn where the model is only the offline fallback."""
    if not (model or "").startswith(_EMBEDDED):
        return ""
    return (
        "This is the small offline fallback model: expect simple answers. list_agents() shows what else is reachable."
    )


def fields(session: Session) -> Json:
    """Return the small structured form."""
    out: Json = {"session_id": session.id, "state": session.state, "turns": session.turns}
    if session.agent:
        out["agent"] = session.agent
    if session.model:
        out["model"] = session.model
    if isinstance(session.environment, str):
        out["environment_id"] = session.environment
    if session.expires_at is not None:
        out["expires_at"] = iso(session.expires_at)
    if session.head:
        out["last_interaction_id"] = session.head
    return out


def pages(turns: list[Turn], form: Format, max_tokens: int) -> tuple[list[str], int]:
    """Return the blocks of as many of the newest turns as `max_tokens` holds, oldest first, and how many.

    The newest one is always there, cut if it must be, with the call that reads on.
    """
    blocks: list[str] = []
    left = max_tokens
    for turn in reversed(turns):
        block = _detailed(turn, left if not blocks else None) if form == "detailed" else _concise(turn)
        cost = tokens(block)
        if blocks and cost > left:
            break
        blocks.append(block)
        left -= cost
    return blocks[::-1], len(blocks)


def _label(turn: Turn) -> str:
    one = turn.interaction
    return f"{one.id} · {one.status} · {when(one.created_at)}"


def _concise(turn: Turn) -> str:
    said = " ".join(step.text for step in turn.steps if step.type == "user_input")
    answered = " ".join(step.text for step in turn.steps if step.type == "model_output")
    calls = [step for step in turn.steps if step.type in ("function_call", "code_execution_call")]
    lines = [_label(turn), f"user: {one_line(said, _SAID) or _other(turn.steps, 'user_input')}"]
    if calls:
        names = Counter(str(step.body.get("name") or "code_execution") for step in calls)
        lines.append("calls: " + ", ".join(name if n == 1 else f"{name} ({n} times)" for name, n in names.items()))
    if answered:
        lines.append(f"model: {one_line(answered, _SAID)}")
    elif turn.interaction.error:
        lines.append(f"error: {one_line(str(turn.interaction.error.get('message')), _SAID)}")
    return "\n".join(lines)


def _other(steps: list[Step], kind: str) -> str:
    contents: list[list[Json]] = [step.body.get("content") or [] for step in steps if step.type == kind]
    parts = [part for content in contents for part in content]
    return f"({', '.join(str(part.get('type')) for part in parts)})" if parts else "(nothing)"


def _detailed(turn: Turn, max_tokens: int | None) -> str:
    text = render(turn.steps)
    if max_tokens is not None:
        piece = cut(text, max_tokens)
        if piece.cut:
            arguments = {"interaction_id": turn.interaction.id, "offset": piece.end, "response_format": "detailed"}
            text = f"{piece.text}\n\n[cut: {piece.more_tokens:,} more tokens; {call('get_interaction', arguments)}]"
    error = turn.interaction.error
    trouble = f"\n\n[error]\n{error.get('code')}: {error.get('message')}" if error else ""
    return f"{_label(turn)}\n{text}{trouble}"


def hit(number: int, found: Hit) -> str:
    """Return one search result."""
    title = f" · {compact(one_line(found.session_title, 60))}" if found.session_title else ""
    where = f"{number}. {found.session_id} · {found.interaction_id} · {found.type} · {when(found.created_at)}{title}"
    return f"{where}\n   {one_line(found.snippet, 300)}"


def _count(names: str, count: int) -> str:
    if count == 1:
        names = names.removesuffix("ies") + "y" if names.endswith("ies") else names.removesuffix("s")
    return f"{count:,} {names}"


def removed(receipt: Receipt) -> str:
    """Say what a delete took away and what it had to leave."""
    counts = ", ".join(_count(name.replace("_", " "), count) for name, count in receipt.removed.items() if count)
    text = f"Removed: {counts or 'nothing but the session itself'}."
    if receipt.kept:
        ids: list[Any] = receipt.kept.get("sessions") or []
        sessions = [str(one) for one in ids]
        turns = plural(int(receipt.kept.get("interactions") or 0), "interaction")
        text += f"\nKept, because a fork goes through them: {turns}, now in {', '.join(sessions) or 'the fork'}."
    if receipt.pending:
        text += (
            "\nPending: its last bytes go from the disk when the server is idle; asked again, the receipt says when."
        )
    return text
