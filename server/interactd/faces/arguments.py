"""Calls of engine methods by name and JSON object: names checked, values turned into the types of the port."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from interactd.errors import InvalidArgument
from interactd.nouns import Json


def closest(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for a near miss, else the empty string."""
    found = difflib.get_close_matches(given[:80], list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


class Arguments:
    """The parameters of one function, without `self` and `caller`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = get_type_hints(function)
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._required: list[str] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name in {"self", "caller"}:
                continue
            self._adapters[name] = TypeAdapter(hints[name], config=ConfigDict(extra="forbid"))
            if parameter.default is inspect.Parameter.empty:
                self._required.append(name)

    def bind(self, params: Json) -> Json:
        """Return `params` as keyword arguments.

        Raises:
            InvalidArgument: a name is unknown or missing, or a value has the wrong type.
        """
        for name in params:
            if name not in self._adapters:
                raise InvalidArgument(f"unknown parameter {name!r}{closest(name, self._adapters)}", field=name)
        for name in self._required:
            if name not in params:
                raise InvalidArgument(f"{name}: is required", field=name)
        return {name: self._value(name, value) for name, value in params.items()}

    def _value(self, name: str, value: Any) -> Any:
        try:
            return self._adapters[name].validate_python(value)
        except ValidationError as error:
            raise InvalidArgument(f"{name}: {first_problem(error)}", field=name) from None


@cache
def arguments_of(function: Callable[..., Any]) -> Arguments:
    """Return the (cached) `Arguments` of a function; building the validators takes a few milliseconds."""
    return Arguments(function)


def first_problem(error: ValidationError, depth: int = 0) -> str:
    """Return the first problem of a validation in one readable line, without the value.

    Args:
        error: what pydantic raised.
        depth: how many leading parts of the location to leave out.
    """
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"][depth:])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
