"""hooks.json: commands or addresses that are asked before and after a tool runs.

    {"guard": {"enabled": true, "pre_tool_execution": [{
        "matcher": "code_execution|delete_file",
        "hooks": [{"type": "command", "command": "python3 hooks/check.py", "timeout": 30}]}]}}

A command runs in the sandbox with the agent's folder as its working directory.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from interactd.agents.documents import Document, Fault, FieldPath, json_text, text
from interactd.agents.manifest.explain import check, did_you_mean, wrong
from interactd.agents.manifest.schema import Section
from interactd.nouns import Json

NAME: Final = "hooks.json"
MAX_BYTES: Final = 65_536
EVENTS: Final = ("pre_tool_execution", "post_tool_execution")
MAX_HOOKS: Final = 32
_NOT_RE2 = re.compile(r"\(\?[=!<]|\\[1-9]|\(\?P=|\(\?\(|\(\?>|[*+?}]\+")
_NESTED_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*[*+{](?:[^()\\]|\\.)*\)[*+{]")


def _matcher(pattern: str) -> str:
    if pattern == "*":
        return pattern
    if _NOT_RE2.search(pattern):
        raise ValueError("expected a regular expression of the RE2 kind, without look-around or back-references")
    if _NESTED_REPEAT.search(pattern):
        raise ValueError("expected a regular expression without a repeat inside a repeat")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression ({text.printable(str(error))})") from None
    return pattern


def _url(address: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not host
        or not address.isprintable()
        or " " in address
    ):
        raise ValueError("expected an address such as https://example.org/hook")
    return address


def _command(line: str) -> str:
    if not line.strip():
        raise ValueError("expected a command line")
    return line


Timeout = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]


class Group(Section):
    """A named set of hooks that can be switched off together."""

    enabled: bool = True
    pre_tool_execution: Annotated[list[Any], Field(max_length=MAX_HOOKS)] = Field(default_factory=list[Any])
    post_tool_execution: Annotated[list[Any], Field(max_length=MAX_HOOKS)] = Field(default_factory=list[Any])


class Rule(Section):
    """Which tools (by a regular expression on the name; empty is all) and what to ask."""

    matcher: Annotated[str, Field(max_length=256), AfterValidator(_matcher)] = ""
    hooks: Annotated[list[Any], Field(min_length=1, max_length=MAX_HOOKS)]


class CommandHook(Section):
    """A command that gets the call on its standard input and prints `{"decision": "allow"|"deny", "reason"}`."""

    type: Literal["command"]
    command: Annotated[str, Field(max_length=8192), AfterValidator(_command)]
    timeout: Timeout = 30


class HttpHook(Section):
    """An address that is posted the call and answers the same."""

    type: Literal["http"]
    url: Annotated[str, Field(max_length=2048), AfterValidator(_url)]
    headers: Annotated[dict[str, str], Field(max_length=32)] | None = None
    timeout: Timeout = 30


def read(data: bytes, *, trusted: bool) -> tuple[Json | None, Document]:
    """Read a hooks.json.

    Args:
        data: the file.
        trusted: False for a project's: its hooks are commands in the sandbox only, since an address would be a way
            out beside the environment's network rules.

    Returns:
        The groups as they stand (None when there are faults) and the document with every fault.
    """
    plain, faults = text.decode(data)
    if faults:
        return None, Document(faults=faults)
    document = json_text.read(plain)
    if document.value is None and document.faults:
        return None, document
    if not isinstance(cast("object", document.value), dict):
        wrong(document, (), "an object of groups of hooks", document.value)
        return None, document
    groups = cast("Json", document.value)
    for name, group in groups.items():
        if not name.strip() or not name.isprintable() or len(name) > 128:
            wrong(document, (name,), "a group's name of 1 to 128 printable characters", name)
        if not isinstance(group, dict):
            wrong(document, (name,), f"an object with {' or '.join(EVENTS)}{_event_hint(name)}", group)
            continue
        if check(Group, group, document, (name,)) is None:
            continue
        for event in EVENTS:
            for number, rule in enumerate(cast("Json", group).get(event, [])):
                _rule(rule, document, (name, event, number), trusted=trusted)
    return None if document.faults else groups, document


def _rule(rule: Any, document: Document, at: FieldPath, *, trusted: bool) -> None:
    if check(Rule, rule, document, at) is None:
        return
    for number, hook in enumerate(cast("Json", rule)["hooks"]):
        here: FieldPath = (*at, "hooks", number)
        if not isinstance(hook, dict):
            wrong(document, here, "an object with type and command or url", hook)
            continue
        kind = cast("Json", hook).get("type")
        if kind not in ("command", "http"):
            hint = did_you_mean(kind, ("command", "http")) if isinstance(kind, str) else ""
            message = f"expected type command or http, got {text.shown(kind)}{hint}"
            where = (*here, "type") if "type" in hook else here
            document.faults.append(Fault(message, document.line(where), where))
            continue
        check(CommandHook if kind == "command" else HttpHook, hook, document, here)
        if kind == "http" and not trusted:
            message = "a project's hooks are commands; an address would go past the environment's network rules"
            document.faults.append(Fault(message, document.line(here), here))


def _event_hint(name: str) -> str:
    return "; the events go inside a named group" if name in EVENTS else ""
