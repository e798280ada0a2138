"""docs/tools.md, made from the tools themselves: `python -m interactd_tools.docs docs/tools.md` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from interactd_tools import TOOLS, select
from interactd_tools.arguments.fields import DEFAULT_TOKENS, MAX_TOKENS
from interactd_tools.context import Tool
from interactd_tools.deadlines import DEFAULT_S

BYTES_PER_TOKEN = 4.1
"""Of `tools/list`, as the tokenizers of current models count it (Qwen2.5: 4.2); text has fewer bytes a token."""

_HEAD = """# Tools

<!-- Made by `python -m interactd_tools.docs docs/tools.md`; a test holds the two equal. -->

The MCP tools that interactd publishes: {count}, {bytes:,} bytes of `tools/list`, about {tokens:,} tokens. Further sets
({sets}) are listed where they are asked for: `--toolsets {first}`.

Every tool answers within its client's deadline ({deadline:g} s unless the client was seen to wait less) with the result
or with a handle and the exact next call. A result is a status line with ids, at most {default:,} tokens of content
(`max_tokens` up to {most:,}; what is cut says how to read on), the cost, and `Next:`. `structuredContent` has only ids,
status, figures and the next call; for hosts that would show it to their model in place of the text it is in
`_meta["interactd/result"]` instead. Errors are `isError` results: `code: what was wrong. What to do next.`

Ids may be shortened to a unique prefix. Arguments may come as hosts send them: numbers and booleans as text, objects
and lists as JSON text, null or blank for what is left out. An argument that does not exist is an error that says which
one was meant.
"""


def size(tools: list[Tool]) -> int:
    """Return the bytes of `tools/list` for these tools, as compact JSON."""
    listed = [tool.as_dict() for tool in tools]
    return len(json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode())


def estimate(count: int) -> int:
    """Estimate the tokens of so many bytes."""
    return round(count / BYTES_PER_TOKEN)


def render() -> str:
    """Return the whole page."""
    listed = size(select())
    sets = sorted({tool.toolset for tool in TOOLS.values()} - {"core"})
    head = _HEAD.format(
        count=len(select()),
        sets=", ".join(sets),
        first=sets[0],
        bytes=listed,
        tokens=estimate(listed),
        deadline=DEFAULT_S,
        default=DEFAULT_TOKENS,
        most=MAX_TOKENS,
    )
    return "\n".join([head, *(_tool(tool) for tool in TOOLS.values())])


def _tool(tool: Tool) -> str:
    hints = [name.removesuffix("Hint") for name, on in tool.annotations.as_dict().items() if on]
    only = "" if tool.toolset == "core" else f" Only with `--toolsets {tool.toolset}`."
    lines = [f"## {tool.name}", "", tool.description, "", f"Hints: {', '.join(hints) or 'none'}.{only}", ""]
    properties: dict[str, dict[str, Any]] = tool.input_schema["properties"]
    if not properties:
        return "\n".join([*lines, "No arguments.", ""])
    lines += ["| argument | type | what |", "|---|---|---|"]
    required: list[str] = tool.input_schema.get("required", [])
    for name, schema in properties.items():
        lines.append(f"| `{name}`{' (required)' if name in required else ''} | {_type(schema)} | {_what(schema)} |")
    return "\n".join([*lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{choice}`" for choice in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if fields := schema.get("properties"):
        return "object: " + ", ".join(f"`{name}`" for name in fields)
    return str(schema["type"])


def _what(schema: dict[str, Any]) -> str:
    bounds = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = f"Default {schema['default']}." if "default" in schema else ""
    limits = f"{' '.join(bounds).capitalize()}." if bounds else ""
    return " ".join(part for part in (schema.get("description", ""), limits, default) if part)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
