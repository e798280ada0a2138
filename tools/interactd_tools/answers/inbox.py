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


def nothing_unread(found: Inbox, session_id: str | None) -> ToolResult:
    """Return the answer to a question for unread results when there are none, and none will come."""
    where = " of this session" if session_id else ""
    following: Json = {"tool": "list_sessions", "arguments": {}}
    waits = ""
    if found.waiting:
        one = found.waiting[0].interaction.id
        following = {"tool": "get_interaction", "arguments": {"interaction_id": one}}
        waits = f"{plural(found.waiting_total, 'interaction')} waiting for an answer of yours, {one} the longest."
    then = call(following["tool"], following["arguments"])
    return ToolResult(
        answer(f"No unread background results{where}, and nothing runs in the background.", waits, f"Next: {then}"),
        {"unread": 0, "waiting": found.waiting_total, "next": following},
    )


def at_work(found: Inbox) -> str:
    """Return the oldest background run that is at work, or else the first in the line."""
    return next((one.id for one in found.running if one.status == "in_progress"), found.running[0].id)


def picked(found: Inbox, session_id: str | None, *, asks: bool) -> tuple[str, str]:
    """Return which interaction to show to whom asked for none, and a note about the others.

    Args:
        found: has something unread, or that runs, or asks.
        session_id: what was asked for.
        asks: the first of `waiting` began to ask while the caller waited.
    """
    where = " of this session" if session_id else ""
    if found.unread:
        more = found.unread_total - 1
        return found.unread[0].id, f"The oldest unread result{where}; {more} more after it." if more else ""
    if asks:
        return found.waiting[0].interaction.id, "It ran in the background, and wants an answer before it goes on."
    if found.running_total == 1:
        return found.running[0].id, f"No background result{where} was unread; this one was under way."
    again = call("get_interaction", {"session_id": session_id} if session_id else {})
    return at_work(found), (
        f"No background result{where} was unread; {found.running_total} runs were under way, of which this is one."
        f" {again} waits for whichever ends first."
    )
