"""JSON Schema to GBNF, llama.cpp's grammar notation, so that a small model can only write arguments that fit.

Held exactly: types, properties and which of them are required, enum, const, items, minItems, short string lengths,
small integer ranges, anyOf, oneOf, local $ref. Other keywords (pattern, format, wide ranges ...) are not held; where
a schema says nothing, any JSON may stand. Objects are written the way `json.dumps` does, required properties first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from interactd.nouns import Json

_PRIMITIVES = {
    "string": r'"\"" char* "\""',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "natural": '"0" | [1-9] [0-9]{0,15}',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": r'"{" ("\"" char* "\"" ": " value (", " "\"" char* "\"" ": " value)*)? "}"',
    "array": '"[" (value (", " value)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_MAX_DEPTH = 24
_MAX_RANGE = 100
_MAX_LENGTH = 200


def literal(text: str) -> str:
    """Return a GBNF literal that matches exactly `text`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def unlike(words: Sequence[str], rest: str, *, also: str = "", empty: bool = True) -> str:
    """Return a GBNF expression for a line, without its end, that begins with none of `words`.

    Args:
        words: where one ends in a line break, the line must not be just that word.
        rest: the rule for what may follow once the line is unlike them all.
        also: characters that it must not begin with either.
        empty: whether an empty line will do.
    """
    heads = sorted({word[0] for word in words})
    others = "".join(_IN_CLASS.get(char, char) for char in [*(head for head in heads if head != "\n"), *also])
    options = [f"[^\\n{others}] {rest}"]
    for head in heads:
        tails = [word[1:] for word in words if word[0] == head]
        if head != "\n" and all(tails):
            options.append(f"{literal(head)} {unlike(tails, rest)}")
    return f"({' | '.join(options)}){'?' if empty and chr(10) not in heads else ''}"


_IN_CLASS = {"\\": "\\\\", "]": "\\]", "[": "\\[", "^": "\\^", "-": "\\-", "\n": "\\n", "\t": "\\t"}


class Grammar:
    """Collects rules; `text()` is the whole grammar. Rule names are made up here, so no input reaches them."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._refs: dict[str, str] = {}
        self._root: Json = {}

    def rule(self, body: str, name: str | None = None) -> str:
        """Add a rule; return its name."""
        name = name or f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def arguments(self, schema: Json, *, without: frozenset[str] = frozenset()) -> str:
        """Add the rules for an object of arguments, leaving the properties in `without` out; return an expression."""
        self._root, self._refs = schema, {}
        if not without:
            return self._schema(schema if schema.get("type") else {**schema, "type": "object"}, 0)
        kept = {name: sub for name, sub in properties(schema).items() if name not in without}
        return self._object(kept, [name for name in required(schema) if name in kept], closed=True, depth=0)

    def text(self) -> str:
        """Return every rule, one a line."""
        return "\n".join(f"{name} ::= {body}" for name, body in {**_PRIMITIVES, **self._rules}.items()) + "\n"

    def _schema(self, schema: Any, depth: int) -> str:
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return "value"
        node = cast("Json", schema)
        if isinstance(node.get("$ref"), str):
            return self._ref(node["$ref"], depth)
        if "const" in node:
            return literal(json.dumps(node["const"], ensure_ascii=False))
        if isinstance(node.get("enum"), list) and node["enum"]:
            return self.rule(" | ".join(literal(json.dumps(item, ensure_ascii=False)) for item in node["enum"]))
        for word in ("anyOf", "oneOf"):
            if isinstance(node.get(word), list) and node[word]:
                return self.rule(" | ".join(self._schema(option, depth + 1) for option in node[word]))
        kind = node.get("type")
        if isinstance(kind, list):
            kinds = cast("list[Any]", kind)
            return self.rule(" | ".join(self._typed(each, node, depth) for each in kinds) or "value")
        return self._typed(kind or ("object" if "properties" in node else None), node, depth)

    def _typed(self, kind: Any, node: Json, depth: int) -> str:
        match kind:
            case "object":
                return self._object(
                    properties(node), required(node), closed=node.get("additionalProperties") is False, depth=depth
                )
            case "array":
                return self._array(node, depth)
            case "string":
                return self._string(node)
            case "integer":
                return self._integer(node)
            case "number" | "boolean" | "null":
                return kind
            case _:
                return "value"

    def _object(self, known: dict[str, Any], needed: list[str], *, closed: bool, depth: int) -> str:
        if not known:
            return '"{}"' if closed else "object"
        pairs = {
            name: self.rule(f"{literal(json.dumps(name, ensure_ascii=False) + ': ')} {self._schema(sub, depth + 1)}")
            for name, sub in known.items()
        }
        first = ' ", " '.join(pairs[name] for name in known if name in needed)
        optional = [pairs[name] for name in known if name not in needed]
        if first:
            body = first + "".join(f' (", " {pair})?' for pair in optional)
        else:
            # Without a required one to lean on, each optional property may be the first.
            starts = [
                pair + "".join(f' (", " {later})?' for later in optional[n + 1 :]) for n, pair in enumerate(optional)
            ]
            body = f"({' | '.join(starts)})?"
        return self.rule(f'"{{" {body} "}}"')

    def _array(self, node: Json, depth: int) -> str:
        item = self._schema(node.get("items"), depth + 1)
        least = _count(node.get("minItems")) or 0
        most = _count(node.get("maxItems"))
        if most == 0:
            return '"[]"'
        if most is None or most > _MAX_RANGE:
            rest = f'(", " {item})' + (f"{{{least - 1},}}" if 1 < least <= _MAX_RANGE else "*")
        else:
            rest = f'(", " {item}){{{max(0, least - 1)},{max(most, least) - 1}}}'
        full = f"{item} {rest}"
        return self.rule(f'"[" {full if least else f"({full})?"} "]"')

    def _string(self, node: Json) -> str:
        least, most = _count(node.get("minLength")) or 0, _count(node.get("maxLength"))
        if most is not None and least <= most <= _MAX_LENGTH:
            return self.rule(rf'"\"" char{{{least},{most}}} "\""')
        if 0 < least <= _MAX_LENGTH:
            return self.rule(rf'"\"" char{{{least},}} "\""')
        return "string"

    def _integer(self, node: Json) -> str:
        low, high = node.get("minimum"), node.get("maximum")
        if isinstance(low, int) and isinstance(high, int) and 0 <= high - low <= _MAX_RANGE:
            return self.rule(" | ".join(literal(str(number)) for number in range(low, high + 1)))
        return "natural" if isinstance(low, int) and low >= 0 else "integer"

    def _ref(self, ref: str, depth: int) -> str:
        if ref in self._refs:
            return self._refs[ref]
        target: Any = self._root
        for step in ref.removeprefix("#").strip("/").split("/") if ref.startswith("#") else ["\0"]:
            target = cast("Json", target).get(step) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return "value"
        # The name is known before the body, so that a schema may contain itself.
        name = self._refs[ref] = self.rule("value", f"ref{len(self._rules)}")
        self._rules[name] = self._schema(target, depth + 1)
        return name


def properties(schema: Json) -> dict[str, Any]:
    """Return a schema's properties, empty if it has none or they are not an object."""
    found = schema.get("properties")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def required(schema: Json) -> list[str]:
    """Return the names of the properties that must be there."""
    found = schema.get("required")
    return [str(name) for name in cast("list[Any]", found)] if isinstance(found, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
