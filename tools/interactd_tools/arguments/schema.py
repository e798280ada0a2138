"""JSON schemas every host accepts: no `$ref`, no `anyOf`, no `title`, closed objects.

Gemini and Codex refuse or rewrite unions and references, and titles cost tokens that say nothing. pydantic's own
schema is flattened here; a field says `json_schema_extra={"schema": {...}}` where that is not what hosts should see.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

_NOISE = {"title", "default", "$defs", "schema", "additionalProperties"}
_READING = ("type", "description", "enum", "minimum", "maximum", "default", "properties", "required")
_KEPT_DEFAULTS = (bool, int, str)


def polish(model: type[BaseModel]) -> dict[str, Any]:
    """Return the flat input schema for a model of arguments; `published` takes out our own `x-expected` phrases."""
    raw = model.model_json_schema()
    return _flat(raw, raw.get("$defs", {}))


def published(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as `tools/list` shows it.

    `x-expected` phrases, defaults of false and what `x-published-without` names go. A field with `x-published` shows
    that schema instead of its own (hosts pay for every word of the list; errors have the rest), one with
    `x-published: None` is taken but not shown.
    """
    node = {key: value for key, value in node.items() if key not in node.get("x-published-without", ())}
    if (other := node.get("x-published")) is not None:
        node = {**other, **{key: node[key] for key in ("description",) if key in node}}
    out: dict[str, Any] = {}
    for key, value in sorted(node.items(), key=lambda item: _READING.index(item[0]) if item[0] in _READING else 9):
        if key.startswith("x-") or (key == "default" and value is False):
            continue
        if key == "properties":
            value = {name: published(inner) for name, inner in value.items() if inner.get("x-published", 0) is not None}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            value = published(cast("dict[str, Any]", value))
        out[key] = value
    return out


def _flat(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "schema" in node:
        given = cast("dict[str, Any]", node["schema"])
        described = {"description": node["description"]} if "description" in node else {}
        return {**given, **described, **_default(node)}
    if "anyOf" in node:
        # Only `X | None` occurs: an optional field is one that may be left out.
        one = next(option for option in node["anyOf"] if option.get("type") != "null")
        return _flat({**one, **{key: value for key, value in node.items() if key != "anyOf"}}, definitions)
    out = {key: value for key, value in node.items() if key not in _NOISE}
    if "properties" in node:
        properties: dict[str, Any] = node["properties"]
        out["properties"] = {name: _flat(inner, definitions) for name, inner in properties.items()}
    if isinstance(node.get("items"), dict):
        out["items"] = _flat(node["items"], definitions)
    if node.get("type") == "object":
        out.setdefault("properties", {}) if node.get("additionalProperties") is False else None
        if "additionalProperties" in node:
            out["additionalProperties"] = node["additionalProperties"]
    return {**out, **_default(node)}


def _default(node: dict[str, Any]) -> dict[str, Any]:
    value = node.get("default")
    return {"default": value} if isinstance(value, _KEPT_DEFAULTS) else {}


def expected(node: dict[str, Any]) -> str:
    """Say in a few words what a field of this schema takes."""
    if phrase := node.get("x-expected"):
        return cast("str", phrase)
    kind = node.get("type")
    if "enum" in node:
        return "one of " + ", ".join(str(choice) for choice in node["enum"])
    low, high = node.get("minimum"), node.get("maximum")
    if kind in ("integer", "number"):
        noun = "a whole number" if kind == "integer" else "a number"
        if low is not None and high is not None:
            return f"{noun} from {_figure(low)} to {_figure(high)}"
        return noun + (
            f" of at least {_figure(low)}"
            if low is not None
            else f" of at most {_figure(high)}"
            if high is not None
            else ""
        )
    if kind == "string":
        longest = node.get("maxLength")
        return f"text of at most {longest:,} characters" if longest else "text"
    if kind == "array":
        longest = node.get("maxItems")
        return f"a list of at most {longest}" if longest else "a list"
    return {"boolean": "true or false", "object": "an object"}.get(str(kind), "a value")


def _figure(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) or not number.is_integer() else f"{int(number):,}"


def at(schema: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """Return the schema of the field at `path`, `{}` where the schema says nothing of it."""
    node: Any = schema
    for part in path:
        inside = cast("dict[str, Any]", node)
        if isinstance(part, int):
            node = inside.get("items", {})
        else:
            node = inside.get("properties", {}).get(part) or inside.get("additionalProperties") or {}
        if not isinstance(node, dict):
            return {}
    return cast("dict[str, Any]", node)
