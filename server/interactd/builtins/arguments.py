"""Reading what a model wrote as arguments: forgiving about names and number-words, exact in what it then says."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from interactd.nouns import Json

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "path": ("file_path", "filename", "file_name", "file", "target_file", "filepath", "directory", "dir", "folder"),
    "content": ("contents", "file_text", "text", "file_content", "data"),
    "old_string": ("old_str", "old_text", "old", "search", "target_content", "find"),
    "new_string": ("new_str", "new_text", "new", "replace", "replacement", "replacement_content"),
    "code": ("source", "script", "command", "cmd", "program", "input"),
    "language": ("lang",),
    "pattern": ("query", "regex"),
    "url": ("uri", "link", "address"),
    "start_line": ("offset", "line", "from_line"),
    "end_line": ("to_line",),
}
"""Names that models know from other tools for the same argument."""


class BadArguments(Exception):
    """What the model must change about its call, in a sentence for it."""


def read_arguments(declaration: Json, given: Mapping[str, Any]) -> Json:
    """Return the arguments under their declared names and types.

    Args:
        declaration: the tool's declaration, with flat parameters.
        given: what the model wrote. Known other names are understood, `"5"` is read as 5, what is null is left out.

    Raises:
        BadArguments: something is missing, unknown or of the wrong kind; the sentence shows the right shape.
    """
    schema: Json = declaration["parameters"]
    known: dict[str, Json] = schema["properties"]
    taken: Json = {}
    for name, value in given.items():
        declared = _declared(name, known, given)
        if declared is None:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadArguments(f"unknown argument {name[:80]!r}.{hint} {usage(declaration)}")
        if value is not None:
            taken[declared] = _value(declared, value, known[declared], declaration)
    for name in cast("list[str]", schema.get("required", [])):
        if name not in taken:
            raise BadArguments(f"the argument {name!r} is missing. {usage(declaration)}")
    return taken


def usage(declaration: Json) -> str:
    """One line that shows how the tool is called: `Call it as view_file({"path": string, "start_line"?: integer}).`"""
    schema: Json = declaration["parameters"]
    required: list[str] = schema.get("required", [])
    parts = [
        f'"{name}"{"" if name in required else "?"}: {_kind(sub)}'
        for name, sub in cast("dict[str, Json]", schema["properties"]).items()
    ]
    return f"Call it as {declaration['name']}({{{', '.join(parts)}}})."


def _declared(name: str, known: Mapping[str, Json], given: Mapping[str, Any]) -> str | None:
    if name in known:
        return name
    for declared, others in ALIASES.items():
        if declared in known and declared not in given and name.lower() in others:
            return declared
    return None


def _kind(schema: Json) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    return str(schema.get("type", "any"))


def _value(name: str, value: Any, schema: Json, declaration: Json) -> Any:
    kind = schema.get("type")
    if kind == "string":
        if isinstance(value, dict | list | int | float) and not isinstance(value, bool) and name == "content":
            # A JSON file written as JSON instead of as text: what is meant is clear.
            value = json.dumps(value, ensure_ascii=False, indent=2)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
            if "enum" not in schema or value in schema["enum"]:
                return value
            if value.strip().lower() in schema["enum"]:
                return value.strip().lower()
    elif kind == "integer":
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
    raise BadArguments(f"{name!r} must be {_kind(schema)}. {usage(declaration)}")
