"""Everything else a caller may give: tools, generation config, labels, times to live, keys."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from interactd.engine.checks.text import check_json, check_text, kind_of
from interactd.errors import InvalidArgument
from interactd.nouns import THINKING_LEVELS, GenerationConfig, Json
from interactd.store.port import IdempotencyKey

_TOOL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_TOOL_FIELDS: Final = ("type", "name", "description", "parameters")
_MAX_TOOLS: Final = 128
_MAX_TOOLS_BYTES: Final = 1024 * 1024
_MAX_LABELS: Final = 64
_MAX_TTL: Final = 100 * 366 * 86_400.0
MAX_TITLE: Final = 1_000
MAX_INSTRUCTION: Final = 1024 * 1024


def check_tools(tools: Any, field: str = "tools") -> list[Json]:
    """Return function tools sorted by name (a stable order keeps providers' prompt caches warm).

    Raises:
        InvalidArgument: not function objects with legal, different names and object schemas, or too many.
    """
    if not isinstance(tools, list):
        raise InvalidArgument(f"{field}: expected a list, got {kind_of(tools)}", field=field)
    if len(cast("list[Any]", tools)) > _MAX_TOOLS:
        raise InvalidArgument(f"{field}: more than {_MAX_TOOLS} tools", field=field)
    clean: dict[str, Json] = {}
    for at, tool in enumerate(cast("list[Any]", tools)):
        made = _tool(f"{field}[{at}]", tool)
        if made["name"] in clean:
            raise InvalidArgument(f"{field}[{at}].name: {made['name']!r} is there twice", field=f"{field}[{at}].name")
        clean[made["name"]] = made
    if len(json.dumps(clean)) > _MAX_TOOLS_BYTES:
        raise InvalidArgument(f"{field}: more than {_MAX_TOOLS_BYTES:,} bytes of definitions", field=field)
    return [clean[name] for name in sorted(clean)]


def _tool(field: str, tool: Any) -> Json:
    if not isinstance(tool, dict):
        raise InvalidArgument(f"{field}: expected an object, got {kind_of(tool)}", field=field)
    given = cast("dict[Any, Any]", tool)
    if given.get("type", "function") != "function":
        raise InvalidArgument(
            f"{field}.type: {given['type']!r} is not known here",
            repair='Only {"type": "function", "name", "description", "parameters"} tools can be declared.',
            field=f"{field}.type",
        )
    if isinstance(given.get("function"), dict) and "name" not in given:
        # The chat-completions nesting is what many callers have at hand, and it means the same thing.
        given = cast("dict[Any, Any]", given["function"])
    if extra := [name for name in given if name not in (*_TOOL_FIELDS, "strict")]:
        raise InvalidArgument(
            f"{field}: unknown field {extra[0]!r}", repair=f"It may have {', '.join(_TOOL_FIELDS)}.", field=field
        )
    name: Any = given.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{field}.name: {name!r} is not a legal tool name",
            repair="Use 1 to 64 letters, digits, _ or -, starting with a letter or _.",
            field=f"{field}.name",
        )
    made: Json = {"type": "function", "name": name}
    if given.get("description") is not None:
        made["description"] = check_text(f"{field}.description", given["description"], max_bytes=64 * 1024)
    schema: Any = given.get("parameters")
    if schema is None:
        schema = {"type": "object", "properties": {}}
    schema = check_json(f"{field}.parameters", schema)
    if not isinstance(schema, dict) or cast("Json", schema).get("type", "object") != "object":
        raise InvalidArgument(
            f"{field}.parameters: expected a JSON Schema of type object",
            repair='Use {"type": "object", "properties": {...}}.',
            field=f"{field}.parameters",
        )
    properties: Any = cast("Json", schema).get("properties", {})
    if not isinstance(properties, dict):
        raise InvalidArgument(f"{field}.parameters.properties: expected an object", field=f"{field}.parameters")
    made["parameters"] = {"type": "object", **cast("Json", schema)}
    return made


def check_config(config: GenerationConfig | None, field: str = "generation_config") -> GenerationConfig:
    """Return the config (empty for `None`) if every value is in range.

    Raises:
        InvalidArgument: one is not; the message says what may be.
    """
    if config is None:
        return GenerationConfig()
    _choice(f"{field}.thinking_level", config.thinking_level, THINKING_LEVELS)
    _choice(f"{field}.thinking_summaries", config.thinking_summaries, ("auto", "none"))
    _choice(f"{field}.tool_choice", config.tool_choice, ("auto", "any", "none"))
    _number(f"{field}.temperature", config.temperature, 0, 2)
    _number(f"{field}.top_p", config.top_p, 0, 1)
    _number(f"{field}.seed", config.seed, -(2**31), 2**31 - 1, whole=True)
    _number(f"{field}.max_output_tokens", config.max_output_tokens, 1, 10_000_000, whole=True)
    stops: Any = config.stop_sequences
    if stops is not None:
        if not isinstance(stops, list) or len(cast("list[Any]", stops)) > 16:
            raise InvalidArgument(f"{field}.stop_sequences: expected a list of at most 16", field=field)
        for at, stop in enumerate(cast("list[Any]", stops)):
            name = f"{field}.stop_sequences[{at}]"
            if not check_text(name, stop, max_bytes=1_000):
                raise InvalidArgument(f"{name}: is empty", field=name)
    return config


def _choice(field: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InvalidArgument(f"{field}: {value!r} is not one of {', '.join(allowed)}", field=field)


def _number(field: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidArgument(f"{field}: expected {kind} from {low:g} to {high:g}, got {value!r:.40}", field=field)


def check_labels(labels: Any, field: str = "labels") -> dict[str, str]:
    """Return the labels if keys and values follow the Interactions API's rules (63 characters, lower case).

    Raises:
        InvalidArgument: one does not, or there are too many.
    """
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or len(cast("Mapping[Any, Any]", labels)) > _MAX_LABELS:
        raise InvalidArgument(f"{field}: expected an object of at most {_MAX_LABELS} labels", field=field)
    clean: dict[str, str] = {}
    for key, value in cast("Mapping[Any, Any]", labels).items():
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            raise InvalidArgument(
                f"{field}: {key!r:.80} is not a legal key",
                repair="Use up to 63 lower-case letters, digits, _ or -, starting with a letter.",
                field=field,
            )
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidArgument(
                f"{field}.{key}: {value!r:.80} is not a legal value",
                repair="Use up to 63 lower-case letters, digits, _ or -.",
                field=f"{field}.{key}",
            )
        clean[key] = value
    return clean


def check_ttl(ttl_s: Any, default: float, field: str = "ttl_s") -> float | None:
    """Return the time to live in seconds, `None` for ever. `None` in is `default`; 0 in is for ever.

    Raises:
        InvalidArgument: not a number from 1 second to a hundred years.
    """
    if ttl_s is None:
        ttl_s = default
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not (ttl_s == 0 or 1 <= ttl_s <= _MAX_TTL):
        raise InvalidArgument(
            f"{field}: expected 1 to {_MAX_TTL:.0f} seconds, or 0 for ever, got {ttl_s!r:.40}", field=field
        )
    return float(ttl_s) or None


def check_key(key: Any, owner: str, **arguments: Any) -> IdempotencyKey | None:
    """Return the idempotency key with the digest of all other arguments, or `None` without a key.

    Raises:
        InvalidArgument: the key is not 1 to 255 characters.
    """
    if key is None:
        return None
    text = check_text("idempotency_key", key, empty=False)
    if len(text) > 255:
        raise InvalidArgument("idempotency_key: more than 255 characters", field="idempotency_key")
    body = json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=_plain)
    return IdempotencyKey(text, hashlib.sha256(body.encode()).hexdigest(), owner)


def _plain(value: Any) -> Any:
    if isinstance(value, GenerationConfig):
        return value.as_dict()
    raise TypeError(f"{type(value).__name__} in a digest")


def check_limit(limit: Any, most: int, field: str = "limit") -> int:
    """Return a page size from 1 to `most`.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidArgument(f"{field}: expected a whole number from 1 to {most}, got {limit!r:.40}", field=field)
    return limit
