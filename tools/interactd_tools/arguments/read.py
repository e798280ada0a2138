"""The one way in: raw arguments and a tool's model give checked arguments, or an `InvalidArgument`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from interactd.errors import InvalidArgument
from interactd_tools.arguments import guard, problems
from interactd_tools.arguments.schema import at, expected
from interactd_tools.arguments.tidy import tidy

A = TypeVar("A", bound=BaseModel)


def read(model: type[A], schema: dict[str, Any], arguments: object, *, example: str) -> A:
    """Return the arguments as the model has them.

    Args:
        model: the tool's arguments.
        schema: its polished schema (with the `x-expected` phrases).
        arguments: whatever the client sent.
        example: a call that would be right, for the repair.

    Raises:
        InvalidArgument: with every problem in one line.
    """
    repair = f"Next: {example}"
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise InvalidArgument(f"arguments: expected an object, got {problems.shown(arguments)}", repair=repair)
    given = {str(name): value for name, value in cast("Mapping[Any, Any]", arguments).items()}
    found = {name: _no_such(name, schema) for name in given if name not in schema["properties"]}
    known = {name: value for name, value in given.items() if name not in found}
    found |= guard.bad_values(known)
    tidied = tidy({name: value for name, value in known.items() if name not in found}, schema)
    # What came as JSON text is only seen now.
    found |= guard.bad_values(tidied)
    try:
        checked = model.model_validate({name: value for name, value in tidied.items() if name not in found})
    except ValidationError as error:
        meant = {text.partition("did you mean ")[2].rstrip("?") for text in found.values()}
        said = {*found, *meant}
        found |= {where: text for where, text in _sentences(error, schema).items() if where not in said}
    else:
        if not found:
            return checked
    if len(found) == 1 and (alone := next(iter(found.values()))).endswith("no such argument"):
        names = ", ".join(schema["properties"]) or "none"
        found = {"": f"{alone}; there are {names}"}
    raise InvalidArgument(problems.one_line(list(found.values())), repair=repair)


def _no_such(name: str, schema: dict[str, Any], where: str = "") -> str:
    known = list(schema.get("properties", {}))
    shown = problems.shorten(problems.printable(where + name), 40)
    if meant := problems.did_you_mean(name, known):
        return f"{shown}: no such argument, did you mean {meant}?"
    return f"{shown}: no such argument" + (f"; there are {', '.join(known)}" if where and known else "")


def _sentences(error: ValidationError, schema: dict[str, Any]) -> dict[str, str]:
    out: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = _path(item["loc"], schema)
        where = _written(path)
        kind = item["type"]
        if kind == "refused":
            out.setdefault(where, f"{where}: {item['msg']}")
        elif kind == "extra_forbidden":
            name = str(path[-1])
            out.setdefault(where, _no_such(name, at(schema, path[:-1]), where[: -len(name)]))
        elif kind == "missing":
            out.setdefault(where, f"{where}: expected {expected(at(schema, path))}, got nothing")
        else:
            got = problems.shown(item["input"])
            out.setdefault(where, f"{where}: expected {expected(at(schema, path))}, got {got}")
    return out


def _path(loc: tuple[str | int, ...], schema: dict[str, Any]) -> tuple[str | int, ...]:
    """Return the location without the names pydantic adds for the branches of a type."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(part, str) and path and not at(schema, tuple(path)).get("properties") and "[" in part:
            continue
        path.append(part)
    return tuple(path)


def _written(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return problems.printable(text)
