"""Function calls for models too small for JSON tool calling: a text protocol, held by a grammar.

The model writes `ANSWER` and its text, or `CALL name`, a line of JSON arguments, and each long text argument in
a Markdown fence: code inside a JSON string makes a small model write broken one-line programs (8 of 20 tasks solved,
against 13 with fences). One call at a time. Results come back as text.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, cast

from interactd.errors import InvalidArgument
from interactd.models.embedded.calls.gbnf import Grammar, literal, properties, required
from interactd.nouns import Json, Step

CALL = "CALL "
ANSWER = "ANSWER\n"
_FENCE = "```"
_LONG_TEXT = frozenset({"code", "content", "contents", "text", "script", "source", "body", "command", "patch", "query"})
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_DESCRIPTION = 300
_RESULT = 4000
_HOW = """The first line of your reply is ANSWER or CALL.

Small talk, thanks, and questions you can answer yourself:
ANSWER
Hello! How can I help you?

Only when the user asks for what a tool below does:
CALL tool_name
{"argument": "value"}

After a RESULT, reply with ANSWER and tell the user what the result says."""


def check(tools: list[Json]) -> None:
    """Raises:
    InvalidArgument: a tool is not a function with a plain name and an object of parameters.
    """
    for number, tool in enumerate(tools):
        if tool.get("type", "function") != "function":
            raise InvalidArgument(
                f"tools[{number}]: the embedded model has function tools only, not {tool.get('type')!r}.",
                repair="Leave the tool out, or use a hosted model.",
                field="tools",
            )
        if not isinstance(tool.get("name"), str) or not _NAME.fullmatch(tool["name"]):
            raise InvalidArgument(
                f"tools[{number}].name: expected letters, digits and _ . : -, at most 128.", field="tools"
            )
        if not isinstance(tool.get("parameters"), dict | None):
            raise InvalidArgument(f"tools[{number}].parameters: expected a JSON schema object.", field="tools")


def describe(tools: list[Json]) -> str:
    """Return the part of the system prompt that says which tools there are and how to call one."""
    lines = [_HOW, "", "Tools:"]
    for tool in tools:
        schema = parameters(tool)
        about = " ".join(str(tool.get("description") or "").split())[:_DESCRIPTION]
        fenced = fences(schema)
        plain = {name: sub for name, sub in properties(schema).items() if name not in fenced}
        lines.append(f"- {tool['name']}{f': {about}' if about else ''}")
        lines.append(f"  arguments: {_brief_object(plain, required(schema))}")
        lines += [f"  then a line `{name}:` and the text in a fence of {_FENCE}" for name in fenced]
    return "\n".join(lines)


def grammar(tools: list[Json], choice: Literal["auto", "any"]) -> str:
    """Return the grammar that allows a call of one of the tools with fitting arguments, or (`auto`) an answer."""
    build = Grammar()
    build.rule(r'([^`\n] [^\n]* | "`" ([^`\n] [^\n]*)? | "``" ([^`\n] [^\n]*)?)? "\n"', "line")
    calls: list[str] = []
    for tool in tools:
        schema = parameters(tool)
        fenced = fences(schema)
        body = f"{literal(tool['name'] + chr(10))} {build.arguments(schema, without=frozenset(fenced))}"
        for name in fenced:
            body += f' {literal(f"{chr(10)}{name}:{chr(10)}{_FENCE}")} [a-z]* "\\n" line* {literal(_FENCE)}'
        calls.append(build.rule(body))
    call = f"{literal(CALL)} ({' | '.join(calls)})"
    answer = rf" | {literal(ANSWER)} [^\n] [\x09\x0A\x0D\x20-\U0010FFFF]*" if choice == "auto" else ""
    return f"root ::= {call}{answer}\n{build.text()}"


def parse_call(text: str, tools: list[Json]) -> tuple[str, Json] | None:
    """Read what the model wrote after `CALL `.

    Returns:
        The tool's name and its arguments, or None if the text is not whole (it was cut off).
    """
    name, _, rest = text.partition("\n")
    tool = next((each for each in tools if each["name"] == name), None)
    if tool is None:
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    arguments = cast("Json", found)
    for long in fences(parameters(tool)):
        match = re.compile(rf"\n{re.escape(long)}:\n```[a-z]*\n((?:.*\n)*?)```", re.ASCII).match(rest, end)
        if match is None:
            return None
        arguments[long] = match[1].removesuffix("\n")
        end = match.end()
    return name, arguments


def render_call(step: Step, tools: list[Json]) -> str:
    """Return the text form of a function_call step, as the model itself would have written it."""
    name = str(step.body.get("name", ""))
    arguments: Json = dict(step.body.get("arguments") or {})
    tool = next((each for each in tools if each["name"] == name), None)
    long = {each: str(arguments.pop(each)) for each in (fences(parameters(tool)) if tool else []) if each in arguments}
    lines = [f"{CALL}{name}", json.dumps(arguments, ensure_ascii=False)]
    lines += [f"{each}:\n{_FENCE}\n{text}\n{_FENCE}" for each, text in long.items()]
    return "\n".join(lines)


def render_result(step: Step) -> str:
    """Return the text form of a function_result step; a long one keeps its beginning and end."""
    result: Any = step.body.get("result")
    if isinstance(result, list) and all(isinstance(part, dict) for part in cast("list[Any]", result)):
        parts = cast("list[Json]", result)
        text = "\n".join(str(part.get("text", f"[{part.get('type', 'content')} left out]")) for part in parts)
    else:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    if len(text) > _RESULT:
        gone = len(text) - _RESULT
        text = f"{text[: _RESULT // 2]}\n[{gone} characters left out]\n{text[-_RESULT // 2 :]}"
    name = step.body.get("name") or "the call"
    return f"{'ERROR' if step.body.get('is_error') else 'RESULT'} of {name}:\n{text}"


def parameters(tool: Json) -> Json:
    """Return a tool's JSON schema, empty if it takes nothing."""
    return cast("Json", tool.get("parameters") or {})


def fences(schema: Json) -> list[str]:
    """Return the arguments that are written in a fence: required, free text, and by their name likely to be long."""
    known = properties(schema)
    return [
        name
        for name in known
        if name.lower() in _LONG_TEXT
        and name in required(schema)
        and isinstance(known[name], dict)
        and known[name].get("type") == "string"
        and not {"enum", "const", "pattern", "format", "maxLength"} & set(known[name])
    ]


def _brief_object(known: dict[str, Any], needed: list[str]) -> str:
    inner = ", ".join(
        f'"{name}"{"" if name in needed else " (optional)"}: {_brief(sub)}' for name, sub in known.items()
    )
    return f"{{{inner}}}"


def _brief(schema: Any) -> str:
    """A type in a few words."""
    if not isinstance(schema, dict):
        return "any"
    node = cast("Json", schema)
    if isinstance(node.get("enum"), list):
        return " or ".join(json.dumps(item, ensure_ascii=False) for item in node["enum"][:12])
    kind: Any = node.get("type")
    if kind == "object" and properties(node):
        return _brief_object(properties(node), required(node))
    if kind == "array":
        return f"[{_brief(node.get('items'))}, ...]"
    word = kind if isinstance(kind, str) else "any"
    about = " ".join(str(node.get("description") or "").split())[:80]
    return f"{word} ({about})" if about else word
