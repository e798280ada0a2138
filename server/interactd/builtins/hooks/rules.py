"""Reading `hooks.json`: which hooks guard which tool. What cannot be read guards everything, and denies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from interactd.builtins.tools import OTHER_NAMES

Moment = Literal["pre_tool_execution", "post_tool_execution"]
DEFAULT_TIMEOUT_S: Final = 30.0
MAX_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook. `problem` is set for one that cannot be run: it denies with that."""

    group: str
    type: str = ""
    command: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = DEFAULT_TIMEOUT_S
    problem: str | None = None


def hooks_for(hooks: Mapping[str, Any], moment: Moment, tool: str) -> list[Hook]:
    """The hooks that guard this tool at this moment, in the order of the file."""
    found: list[Hook] = []
    for name, group in hooks.items():
        if not isinstance(group, Mapping):
            found.append(Hook(name, problem=f"hooks.json: {name} is not an object"))
            continue
        settings = cast("Mapping[str, Any]", group)
        if settings.get("enabled", True) is False:
            continue
        entries: Any = settings.get(moment, [])
        if not isinstance(entries, list):
            found.append(Hook(name, problem=f"hooks.json: {name}.{moment} is not a list"))
            continue
        for entry in cast("list[Any]", entries):
            found += _of_entry(name, entry, tool)
    return found


def _of_entry(group: str, entry: Any, tool: str) -> list[Hook]:
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", entry) if isinstance(entry, Mapping) else {}
    given: Any = fields.get("hooks")
    if not isinstance(given, list):
        return [Hook(group, problem=f"hooks.json: an entry of {group} has no list of hooks")]
    if not _matches(fields.get("matcher"), tool):
        return []
    return [_hook(group, one) for one in cast("list[Any]", given)]


def _matches(matcher: Any, tool: str) -> bool:
    if matcher is None or matcher in ("", "*"):
        return True
    if not isinstance(matcher, str):
        return True
    try:
        pattern = re.compile(matcher)
    except re.error:
        # A guard that nobody can read guards everything.
        return True
    return any(pattern.search(name) for name in (tool, OTHER_NAMES.get(tool, tool)))


def _hook(group: str, given: Any) -> Hook:
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {}
    kind: Any = fields.get("type")
    timeout: Any = fields.get("timeout", DEFAULT_TIMEOUT_S)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT_S:
        return Hook(group, problem=f"hooks.json: timeout {timeout!r} in {group} is not 0 to {MAX_TIMEOUT_S:.0f} s")
    command: Any
    url: Any
    headers: Any
    command, url, headers = fields.get("command"), fields.get("url"), fields.get("headers", {})
    if kind == "command" and isinstance(command, str) and command.strip():
        return Hook(group, "command", command=command, timeout_s=float(timeout))
    if kind == "http" and isinstance(url, str) and url.strip() and isinstance(headers, Mapping):
        plain = {str(name): str(value) for name, value in cast("Mapping[Any, Any]", headers).items()}
        return Hook(group, "http", url=url, headers=plain, timeout_s=float(timeout))
    return Hook(group, problem=f"hooks.json: a hook of {group} is neither a command nor an http hook")
