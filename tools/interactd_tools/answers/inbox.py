"""How what waits for somebody reads."""

from __future__ import annotations

from interactd.engine.port import Inbox
from interactd.nouns import Json
from interactd_tools.answers.text import answer, call, plural
from interactd_tools.context import ToolResult


def line(found: Inbox) -> str:
    """Return one line about what waits, with the calls that deal with it; empty for nothing."""
    parts: list[str] = []
    if found.unread_total:
        parts.append(f"{plural(found.unread_total, 'unread background result')}: {call('get_interaction', {})}")
    if found.waiting:
        one = found.waiting[0].interaction.id
        more = f" and {found.waiting_total - 1} more" if found.waiting_total > 1 else ""
        parts.append(f"{call('get_interaction', {'interaction_id': one})}{more} waits for an answer")
    return "; ".join(parts)


def nothing_unread(found: Inbox) -> ToolResult:
    """Return the answer to a question for unread results when there are none."""
    following: Json = {"tool": "list_sessions", "arguments": {}}
    waits = ""
    if found.waiting:
        one = found.waiting[0].interaction.id
        following = {"tool": "get_interaction", "arguments": {"interaction_id": one}}
        waits = f"{plural(found.waiting_total, 'interaction')} waiting for an answer of yours, {one} the longest."
    then = call(following["tool"], following["arguments"])
    return ToolResult(
        answer("No unread background results.", waits, f"Next: {then}"),
        {"unread": 0, "waiting": found.waiting_total, "next": following},
    )
