"""Reading other people's JSON: typed access that fails in one way, and text that is safe to store."""

from __future__ import annotations

import json
import re
from typing import Any, Never, cast

from interactd.ids import new_ulid
from interactd.nouns import Json


class Misfit(ValueError):
    """A value is not of the shape its wire promises; parsers turn it into StreamMalformed."""


_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def obj(value: Any) -> Json:
    """Return a JSON object; `None` is the empty one.

    Raises:
        Misfit: it is something else.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        return cast("Json", value)
    raise Misfit(f"expected an object, got {type(value).__name__}")


def arr(value: Any) -> list[Any]:
    """Return a JSON array; `None` is the empty one. Raises: Misfit."""
    if value is None:
        return []
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise Misfit(f"expected an array, got {type(value).__name__}")


def objs(value: Any) -> list[Json]:
    """Return a JSON array of objects. Raises: Misfit."""
    return [obj(item) for item in arr(value)]


def text(value: Any) -> str:
    """Return a JSON string; `None` is the empty one. Raises: Misfit."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise Misfit(f"expected a string, got {type(value).__name__}")


def count(value: Any) -> int | None:
    """Return a number of tokens, or `None` when the provider gave none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 <= value < 2**53 else None


def loads(data: str) -> Json:
    """Parse one event's data. Raises: Misfit when it is not a JSON object."""
    try:
        value = json.loads(data, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Misfit(f"not JSON: {error}") from error
    return obj(value)


def has_surrogates(data: str) -> bool:
    """Whether the JSON text may hold half of a surrogate pair (some proxies cut an emoji in two)."""
    return _ESCAPED_SURROGATE.search(data) is not None


def mend(value: str) -> str:
    """Join surrogate pairs and replace what is left alone, so that the text can be written as UTF-8."""
    if value.isascii() or not _SURROGATE.search(value):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mend_all(value: Any) -> Any:
    """`mend` every string of a JSON value."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [mend_all(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {mend(name): mend_all(item) for name, item in cast("Json", value).items()}
    return value


def parse_arguments(raw: Any) -> tuple[Json, str | None]:
    """Read a function call's arguments as a provider gave them.

    Args:
        raw: an object, JSON text of one, nothing at all (no arguments), or something broken.

    Returns:
        The arguments, and the raw text when it could not be read: then the arguments are empty and somebody has
        to tell the model.
    """
    if raw is None or raw == "":
        return {}, None
    if isinstance(raw, dict):
        return cast("Json", raw), None
    if not isinstance(raw, str):
        return {}, json.dumps(raw)
    value: Any = raw
    # Some models encode the object twice; once is harmless to undo.
    for _ in range(2):
        try:
            value = json.loads(value, strict=False, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError):
            return {}, raw
        if isinstance(value, dict):
            return cast("Json", value), None
        if not isinstance(value, str):
            break
    return ({}, None) if value is None or not raw.strip() else ({}, raw)


def dump_arguments(body: Json) -> str:
    """The JSON text of a function_call body's arguments, for wires that want text."""
    return json.dumps(wire_arguments(body), ensure_ascii=False, separators=(",", ":"))


def wire_arguments(body: Json) -> Json:
    """The arguments to replay. What the model wrote and nobody could read goes back to it as it was."""
    raw = body.get("raw_arguments")
    return {"raw_arguments": raw} if raw else obj(body.get("arguments"))


def mint_call_id() -> str:
    """An id for a call that came without one. Fits every wire: 31 letters and digits and an underscore."""
    return "call_" + new_ulid()


def _no_constant(name: str) -> Never:
    # NaN and Infinity are not JSON, and nothing downstream could store or send them.
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if abs(number) != float("inf") else _no_constant(digits)
