"""Sessions and interactions as Markdown, for a person or a model to read. Pure: nouns in, text out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from interactd.engine.port import Result
from interactd.faces.mcp.resources.uris import session_uri
from interactd.faces.wire import iso
from interactd.nouns import Interaction, Session, Step
from interactd.store.port import Turn

MAX_CHARS = 60_000
"""Of one read: about 15,000 tokens, under the cuts of all hosts that are known."""
MAX_STEP_CHARS = 20_000
_CALLS = ("function_call", "code_execution_call", "google_search_call", "url_context_call")


def session_markdown(session: Session, turns: Sequence[Turn]) -> str:
    """Return a session's head and its turns, oldest first; what does not fit is named with the URI that has it."""
    title = session.title or session.id
    facts = [f"- session: `{session.id}` ({session.state})", f"- model: {session.model or session.agent or 'auto'}"]
    facts.append(f"- turns: {session.turns}")
    if session.forked_from:
        facts.append(f"- forked from: `{session.forked_from}` at `{session.forked_at}`")
    if session.expires_at is not None:
        facts.append(f"- expires: {iso(session.expires_at)}")
    if session.system_instruction:
        facts.append(f"- instruction: {_clip(session.system_instruction, 2000)}")
    head = f"# {title}\n\n" + "\n".join(facts) + "\n"

    kept: list[str] = []
    size = len(head)
    for turn in reversed(turns):
        text = turn_markdown(turn.interaction, turn.steps)
        if kept and size + len(text) > MAX_CHARS:
            break
        kept.append(_clip(text, MAX_CHARS))
        size += len(text)
    shown = turns[len(turns) - len(kept) :]
    earlier = ""
    if shown and shown[0].interaction.previous_interaction_id:
        earlier = f"\nEarlier turns: {session_uri(session.id, shown[0].interaction.id)}\n"
    elif not turns:
        earlier = "\nNo turns yet.\n"
    return head + earlier + "".join(f"\n{text}" for text in reversed(kept))


def interaction_markdown(result: Result) -> str:
    """Return one interaction with all its steps and what it still streams."""
    text = turn_markdown(result.interaction, result.steps)
    if result.partial_text:
        text += f"\n**model** (still writing)\n\n{_clip(result.partial_text, MAX_STEP_CHARS)}\n"
    if result.printed:
        text += f"\n**running code has printed** (the end of it)\n\n{_clip(result.printed, MAX_STEP_CHARS)}\n"
    return _clip(text, MAX_CHARS) + f"\nSession: {session_uri(result.session.id)}\n"


def turn_markdown(interaction: Interaction, steps: Sequence[Step]) -> str:
    """Return one turn: a line about it, then its steps."""
    about = [f"`{interaction.id}`", interaction.status, iso(interaction.created_at) or ""]
    if interaction.model:
        about.append(interaction.model)
    usage = interaction.usage.as_dict() if interaction.usage else {}
    if "total_tokens" in usage:
        about.append(f"{usage['total_tokens']} tokens")
    parts = [f"## {', '.join(about)}\n"]
    parts.extend(step_markdown(step) for step in steps)
    if interaction.error:
        error = interaction.error
        parts.append(
            f"\n**error** `{error.get('code')}`: {error.get('message')} {error.get('repair') or ''}".rstrip() + "\n"
        )
    return "".join(parts)


def step_markdown(step: Step) -> str:
    """Return one step under the name of who made it."""
    body = step.body
    if step.type in {"user_input", "model_output", "thought"}:
        who = {"user_input": "user", "model_output": "model", "thought": "thought"}[step.type]
        text = _content(body.get("content") or body.get("summary") or [])
        return f"\n**{who}**\n\n{_clip(text, MAX_STEP_CHARS)}\n" if text else ""
    if step.type in _CALLS:
        return f"\n**{step.type}** `{body.get('name') or body.get('id') or ''}`\n\n{_fenced(body.get('arguments'))}\n"
    if step.type == "function_result":
        name = f"`{body.get('name') or body.get('call_id') or ''}`" + (" (error)" if body.get("is_error") else "")
        return f"\n**function_result** {name}\n\n{_fenced(body.get('result'))}\n"
    return f"\n**{step.type}**\n\n{_fenced(body)}\n"


def _content(parts: Sequence[dict[str, Any]]) -> str:
    shown: list[str] = []
    for part in parts:
        if part.get("type") == "text":
            shown.append(part.get("text") or "")
        else:
            # Base64 helps no reader and fills every window.
            where = part.get("uri") or "inline data"
            shown.append(f"[{part.get('type', 'content')} {part.get('mime_type') or ''}: {where}]")
    return "".join(shown)


def _fenced(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
    text = _clip(text, MAX_STEP_CHARS)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _clip(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[... {len(text) - limit} more characters; get_session with detailed output has them]"
