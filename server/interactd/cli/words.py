"""What a terminal may be sent, and what the daemon's sentences mean for somebody who has commands instead of tools."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_AGAIN = re.compile(r"(list_agents|list_sessions) \(?or `interactd \w+`\)?")
_COMMANDS = {
    "list_agents": "interactd models",
    "list_sessions": "interactd sessions",
    "get_session": "interactd show",
    "get_interaction": "interactd show",
    "cancel_interaction": "interactd cancel",
    "search_history": "interactd search",
    "fork_session": "interactd fork",
    "delete_session": "interactd delete",
    "create_session": "interactd chat",
    "server_status": "interactd status",
    "list_environments": "interactd environments",
    "get_environment": "interactd environments show",
    "delete_environment": "interactd environments delete",
    "list_triggers": "interactd triggers",
    "update_trigger": "interactd triggers edit",
    "delete_trigger": "interactd triggers delete",
    "list_executions": "interactd triggers executions",
    "create_webhook": "interactd webhooks create",
    "list_webhooks": "interactd webhooks",
    "update_webhook": "interactd webhooks edit",
    "delete_webhook": "interactd webhooks delete",
    "list_deliveries": "interactd webhooks deliveries",
}
_TOOL = re.compile(rf"`?\b({'|'.join(_COMMANDS)})\b(?:\([^()]*\))?`?")


def safe(text: str) -> str:
    """Return the text without what would steer a terminal (escapes, bells, carriage returns); newline and tab stay."""
    return _CONTROL.sub("", text)


def for_people(sentence: str) -> str:
    """Return a sentence of the daemon with the commands that do what the tools it names do."""
    sentence = _AGAIN.sub(lambda found: found[1], sentence)
    return _TOOL.sub(lambda found: f"`{_COMMANDS[found[1]]}`", sentence)


def repair(code: str, sentence: str | None, interaction_id: object) -> str:
    """Return what to do next at a command line about an error of this code."""
    if code == "conflict" and isinstance(interaction_id, str):
        return f"`interactd show {interaction_id}` shows how far it is; or go on in a copy with `interactd fork`."
    return for_people(sentence or "")
