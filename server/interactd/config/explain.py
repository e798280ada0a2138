"""Says what is wrong with a configuration: where, what was expected, what came. Never repeats what may be a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel

_SECRET = re.compile(r"key|token|secret|password|passwd|credential|header|base_url|auth", re.I)
_EXPECTED = {
    "string_type": 'text in quotes ("...")',
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": 'a list (["...", "..."])',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def problem(error: Any, root: type[BaseModel]) -> tuple[list[str], str]:
    """Turn one pydantic error into the path of the field and a phrase such as `expected ..., got ...`."""
    path = [str(part) for part in error["loc"]]
    kind, ctx = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return path, _unknown(path, root)
    if kind == "missing":
        return path, "is missing"
    if kind == "value_error":
        plain = isinstance(error.get("input"), str | int | float)
        return path, str(ctx.get("error", error["msg"])) + (_got(path, error.get("input")) if plain else "")
    if kind == "literal_error":
        return path, f"expected {ctx['expected']}" + _got(path, error.get("input"))
    if kind in _BOUNDS:
        name, word = _BOUNDS[kind]
        return path, f"expected a number of {word} {ctx[name]:g}" + _got(path, error.get("input"))
    expected = _EXPECTED.get(kind)
    return path, (f"expected {expected}" if expected else error["msg"]) + _got(path, error.get("input"))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of what is known when nothing is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def known_fields(path: Sequence[str], root: type[BaseModel]) -> list[str]:
    """Return the keys that the table at `path` may hold; empty where any key is fine."""
    here = root
    for part in path:
        inner = _model_in(here.model_fields[part].annotation) if part in here.model_fields else None
        # The key of a dictionary of tables (`providers.NAME`) stays at the table's own model.
        here = inner or here
        if inner is None and part in here.model_fields:
            return []
    return [name for name in here.model_fields if name != "file"]


def find_line(text: str, path: Sequence[str]) -> int | None:
    """Find the line (from 1) that sets `path` in a TOML text, or the nearest enclosing table's line."""
    best: tuple[int, int] | None = None
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        header = re.match(r"\[\[?\s*(.*?)\s*\]\]?\s*(#.*)?$", bare)
        if header:
            table = _keys(header[1])
            at = table
        elif setting := re.match(
            r"""((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""", bare
        ):
            at = table + _keys(setting[1])
        else:
            continue
        depth = min(len(at), len(path))
        if depth and list(path[:depth]) == at[:depth] and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None


def _keys(text: str) -> list[str]:
    return [part[0] or part[1] or part[2] for part in re.findall(r"""([A-Za-z0-9_-]+)|"([^"]*)"|'([^']*)'""", text)]


def _unknown(path: list[str], root: type[BaseModel]) -> str:
    word = path[-1]
    shown = repr(word if len(word) <= 40 else word[:37] + "...")
    if re.search(r"^(api_?)?(key|token|secret)$", word, re.I):
        return (
            f"unknown key {shown}: keys are not kept in this file. Name the environment variable that holds it in "
            "api_key_env, or a file in api_key_file"
        )
    return f"unknown key {shown}" + did_you_mean(word, known_fields(path[:-1], root))


def _got(path: Sequence[str], value: Any) -> str:
    if any(_SECRET.search(part) for part in path[-2:]):
        return ""
    if isinstance(value, list | dict):
        return ", got a list" if isinstance(value, list) else ", got a table"
    if not isinstance(value, str | int | float):
        return ""
    shown = ("true" if value else "false") if isinstance(value, bool) else repr(value)
    return f", got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section's model inside an annotation such as `dict[str, Provider]`."""
    if isinstance(annotation, type):
        return cast("type[BaseModel]", annotation) if issubclass(cast("type[Any]", annotation), BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
