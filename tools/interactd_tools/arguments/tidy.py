"""Arguments as hosts send them, made into what the schema says.

Hosts send numbers as strings, objects and lists as JSON text, null for what is absent, and blanks around ids. The
JSON schema of the tool says what was meant; anything that does not plainly mean it is left for validation to name.
"""

from __future__ import annotations

import json
from typing import Any, cast

_WORDS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def tidy(arguments: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with every value brought to its schema's type where that is plain.

    Args:
        arguments: what came; it is not changed.
        schema: an object schema of the shape that `schema.polish` makes.
    """
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    required: list[str] = schema.get("required", [])
    out: dict[str, Any] = {}
    for name, value in arguments.items():
        wanted = properties.get(name)
        if wanted is None:
            if value is not None:
                out[name] = value
            continue
        if name not in required and _absent(value):
            continue
        out[name] = _to(value, wanted)
    return out


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _to(value: Any, wanted: dict[str, Any]) -> Any:
    kind = wanted.get("type")
    if isinstance(value, str):
        if kind == "string":
            return _text(value, wanted)
        if kind == "boolean":
            return _WORDS.get(value.strip().lower(), value)
        if kind in ("integer", "number"):
            return _number(value, whole=kind == "integer")
        if kind == "object":
            value = _decoded(value, dict)
        elif kind == "array":
            decoded = _decoded(value, list, dict)
            # One name where a list of names is meant.
            value = [value] if decoded is value and wanted["items"].get("type") == "string" else decoded
    if kind == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if kind == "array" and isinstance(value, dict | list):
        items = cast("list[Any]", [value] if isinstance(value, dict) else value)
        return [_to(item, wanted.get("items", {})) for item in items]
    if kind == "object" and isinstance(value, dict) and "properties" in wanted:
        return tidy(cast("dict[str, Any]", value), wanted)
    return cast("Any", value)


def _text(value: str, wanted: dict[str, Any]) -> str:
    if "enum" in wanted:
        plain = value.strip().strip("\"'").lower()
        return plain if plain in wanted["enum"] else value
    return value


def _number(value: str, *, whole: bool) -> Any:
    text = value.strip()
    if len(text) > 40:
        return value
    try:
        number = float(text)
    except ValueError:
        return value
    if not whole:
        return number
    try:
        return int(text)
    except ValueError:
        return int(number) if number.is_integer() and abs(number) < 2**53 else value


def _decoded(value: str, *kinds: type) -> Any:
    text = value.strip()
    if not text.startswith(("{", "[")):
        return value
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return decoded if isinstance(decoded, kinds) else value
