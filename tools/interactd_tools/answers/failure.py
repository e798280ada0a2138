"""How errors read: `code: what was wrong. What to do next.`"""

from __future__ import annotations

import contextlib
from typing import Any, cast

from interactd.errors import InteractdError, InvalidArgument
from interactd.ids import PREFIXES, as_given, parse_prefix
from interactd_tools.answers.text import call, clean, one_line
from interactd_tools.arguments.problems import did_you_mean, printable, shorten
from interactd_tools.context import ToolResult

_LONGEST = 1200
_FALLBACK = {
    "not_found": "Next: list_sessions() shows what there is.",
    "expired": "Next: create_session() starts anew; its time was over and it is gone.",
    "deleted": "Next: list_sessions() shows what there is.",
    "ambiguous_id": "Next: the same call with more of the id.",
    "unknown_model": "Next: list_agents() shows the models there are.",
    "missing_key": "Next: list_agents() shows what can be used without it.",
    "sandbox_unavailable": "Next: tell the user; `interactd doctor` says what is missing.",
    "bad_manifest": "Next: tell the user; `interactd agents validate` says all that is wrong.",
    "not_set_up": "Next: list_agents() shows what else can be used.",
    "overloaded": "Next: the same call in a few seconds; nothing was started.",
    "rate_limited": "Next: the same call later.",
    "storage_full": 'Next: delete_session(session_id="ses_...") frees room; or tell the user.',
}
_MISSING = {
    "session": _FALLBACK["not_found"],
    "interaction": _FALLBACK["not_found"],
    "agent": "Next: list_agents() shows those there are.",
    "trigger": "Next: list_triggers() shows those there are.",
    "execution": "Next: list_executions() shows those there are.",
    "webhook": "Next: list_webhooks() shows those there are.",
    "delivery": "Next: list_deliveries() shows those there are.",
}
_SMALL = ("field", "kind", "id", "interaction_id", "session_id", "status", "candidates", "suggestions", "retry_after_s")


def failure(tool: str, error: InteractdError, example: str = "", arguments: object = None) -> ToolResult:
    """Return the `is_error` result for an error. `example` is a right call of the tool, `arguments` are the call's."""
    if error.code == "not_found":
        _name_as_given(error, arguments)
    repair = error.repair or _repair(tool, error)
    if error.code == "not_found" and error.fields.get("kind") == "environment" and tool.endswith("_environment"):
        # Where it stands for a new one anybody may leave it out; who asks for this one cannot.
        repair = "Next: list_environments() shows those there are."
    elif error.code == "invalid_argument" and example and "Next:" not in repair:
        stop = "" if not repair or repair.endswith((".", "!", "?")) else "."
        repair = f"{repair}{stop} Next: {example}".strip()
    message = error.message.strip()
    stop = "" if message.endswith((".", "!", "?")) else "."
    text = one_line(printable(f"{error.code}: {message}{stop} {repair}".strip()), _LONGEST)
    small = {name: error.fields[name] for name in _SMALL if _is_small(error.fields.get(name))}
    return ToolResult(clean(text), {"error": error.code, **small}, is_error=True)


def _repair(tool: str, error: InteractdError) -> str:
    running = error.fields.get("interaction_id")
    if error.code == "conflict" and isinstance(running, str):
        if error.fields.get("status") == "requires_action":
            wait = call("get_interaction", {"interaction_id": running})
            return f"Next: {wait} shows the calls it waits for; answer them with respond, or {_cancel(running)}."
        wait = call("get_interaction", {"interaction_id": running, "wait_s": 30})
        queue = ', or send_turn with if_busy="queue"' if tool == "send_turn" else ""
        return f"Next: {wait} waits for it, {_cancel(running)} stops it{queue}."
    if error.code == "not_found" and "kind" in error.fields:
        return _MISSING.get(str(error.fields["kind"]), "")
    return _FALLBACK.get(error.code, "")


def _name_as_given(error: InteractdError, arguments: object) -> None:
    kind, id = error.fields.get("kind"), error.fields.get("id")
    if kind not in PREFIXES or not isinstance(id, str) or not isinstance(arguments, dict):
        return
    given = [one for one in cast("dict[str, Any]", arguments).values() if isinstance(one, str)]
    for text in given:
        with contextlib.suppress(InvalidArgument):
            if parse_prefix(kind, text) == id:
                as_given(error, id, text)


def _cancel(interaction_id: str) -> str:
    return call("cancel_interaction", {"interaction_id": interaction_id})


def _is_small(value: Any) -> bool:
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return len(items) <= 10 and all(_is_small(item) for item in items)
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 200)


def unknown_tool(name: str, known: list[str]) -> ToolResult:
    """Return the `is_error` result for a tool that is not there."""
    meant = did_you_mean(name, known)
    shown = shorten(printable(name), 60)
    hint = f"Did you mean {meant}?" if meant else f"There are {', '.join(known)}."
    return ToolResult(f"unknown_tool: there is no tool {shown}. {hint}", {"error": "unknown_tool"}, is_error=True)
