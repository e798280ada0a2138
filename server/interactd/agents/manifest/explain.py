"""From what pydantic says of a value to a fault: what was expected, what came. Never repeats what may be a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from interactd.agents.documents import Document, Fault, FieldPath
from interactd.agents.documents.text import shown

Model = TypeVar("Model", bound=BaseModel)
_SECRET = re.compile(r"^(env|transform|headers|value)$")
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (name: value)",
    "model_type": "a mapping (name: value)",
    "model_attributes_type": "a mapping (name: value)",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "a number of more than"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number of less than"),
    "less_than_equal": ("le", "a number of at most"),
}


def check(model: type[Model], value: Any, document: Document, at: FieldPath = ()) -> Model | None:
    """Validate the part `value` of a document that stands at `at`; faults go to the document.

    Returns:
        The value as the model has it, or None if something is wrong with it.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            document.faults.append(_fault(found, model, document, at))
        return None


def wrong(document: Document, at: FieldPath, expected: str, got: Any = None, *, show: bool = True) -> None:
    """Add the fault `expected ..., got ...` at a field."""
    came = f", got {shown(got)}" if show else ""
    document.faults.append(Fault(f"expected {expected}{came}", document.line(at), at))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?`, or what is known where nothing is near."""
    near = difflib.get_close_matches(word.lower()[:80], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _fault(error: Any, model: type[BaseModel], document: Document, at: FieldPath) -> Fault:
    inner: FieldPath = tuple(error["loc"])
    path = (*at, *inner)
    return Fault(_message(error, model, inner, path), document.line(path), path)


def _message(error: Any, model: type[BaseModel], inner: FieldPath, path: FieldPath) -> str:
    kind, ctx, value = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown field {shown(inner[-1], 40)}{did_you_mean(str(inner[-1]), known_fields(model, inner[:-1]))}"
    got = "" if any(isinstance(part, str) and _SECRET.match(part) for part in path) else f", got {shown(value)}"
    if kind == "value_error":
        return f"{ctx.get('error', error['msg'])}{got}"
    if kind == "literal_error":
        near = difflib.get_close_matches(str(value)[:80].lower(), re.findall(r"'([^']*)'", ctx["expected"]), 1, 0.6)
        return f"expected {ctx['expected']}{got}" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"expected {words} {_number(ctx[name])}{got}"
    if kind in ("string_too_long", "too_long"):
        what = "characters" if kind == "string_too_long" else "items"
        size = len(cast("str | list[Any]", value))
        return f"expected at most {ctx['max_length']} {what}, got {size}"
    if kind in ("string_too_short", "too_short"):
        return f"expected {'text' if kind == 'string_too_short' else 'at least one item'}, got nothing"
    return f"expected {_EXPECTED.get(kind, str(error['msg']))}{got}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def known_fields(model: type[BaseModel], path: FieldPath = ()) -> list[str]:
    """Return the fields of the section at `path` inside a model."""
    here = model
    for part in path:
        field = here.model_fields.get(str(part))
        here = (_model_in(field.annotation) if field else None) or here
    return list(here.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type):
        return cast("type[BaseModel]", annotation) if issubclass(cast("type[Any]", annotation), BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
