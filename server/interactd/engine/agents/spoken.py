"""Calls that a model wrote into its text instead of making them: servers without a parser for a model's own notation
hand them through. Pure.

Understood are the notations of the common open models, and only for functions that there are: `<tool_call>{...}
</tool_call>` (Hermes, Qwen), `<function=name>` with `<parameter=...>` or JSON (Qwen Coder, Llama), `[TOOL_CALLS][...]`
(Mistral), and a text that is nothing but such a JSON object. They must end the text: what is talked about is no call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from interactd.nouns import Json

_TAGGED: Final = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_FUNCTION: Final = re.compile(r"<function=([\w.:-]+)>\s*(.*?)\s*(?:</function>|\Z)", re.DOTALL)
_PARAMETER: Final = re.compile(r"<parameter=([\w.-]+)>\n?(.*?)\n?(?:</parameter>|\Z)", re.DOTALL)
_LISTED: Final = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])\s*\Z", re.DOTALL)
_FENCED: Final = re.compile(r"```(?:json|tool_call|tool_code)?\s*\n(.*?)\n?```", re.DOTALL)
_MOST: Final = 32

Known = Callable[[str], str | None]
"""The function that is meant by a name; `None` if there is none."""


def spoken_calls(text: str, known: Known) -> list[tuple[str, Json]]:
    """Return the calls that this text ends with, as names and arguments; empty if it is an ordinary text."""
    text = text.strip().removeprefix("<|python_tag|>").strip()
    if not text or ("{" not in text and "<function=" not in text):
        return []
    for read in (_tagged, _functions, _listed, _bare):
        if (found := read(text, known)) is not None:
            return found[:_MOST]
    return []


def _tagged(text: str, known: Known) -> list[tuple[str, Json]] | None:
    found = list(_TAGGED.finditer(text))
    if not found or text[found[-1].end() :].strip():
        return None
    calls: list[tuple[str, Json]] = []
    for each in found:
        inner = _functions(each[1], known) if each[1].startswith("<function=") else _objects(_loaded(each[1]), known)
        if not inner:
            return None
        calls += inner
    return calls


def _functions(text: str, known: Known) -> list[tuple[str, Json]] | None:
    found = list(_FUNCTION.finditer(text))
    if not found or text[found[-1].end() :].strip():
        return None
    calls: list[tuple[str, Json]] = []
    for each in found:
        name, inner = known(each[1]), each[2]
        arguments = _loaded(inner) if inner.startswith("{") else {n: v for n, v in _PARAMETER.findall(inner)}
        if name is None or not isinstance(arguments, dict):
            return None
        calls.append((name, cast("Json", arguments)))
    return calls


def _listed(text: str, known: Known) -> list[tuple[str, Json]] | None:
    found = _LISTED.search(text)
    return _objects(_loaded(found[1]), known) if found else None


def _bare(text: str, known: Known) -> list[tuple[str, Json]] | None:
    fenced = _FENCED.fullmatch(text)
    return _objects(_loaded(fenced[1] if fenced else text), known)


def _objects(value: Any, known: Known) -> list[tuple[str, Json]] | None:
    """Read one call, or a list of them; `None` if anything in it is none."""
    calls: list[tuple[str, Json]] = []
    given = cast("Sequence[Any]", value if isinstance(value, list) else [value])
    for each in given:
        if not isinstance(each, dict):
            return None
        one = cast("Json", each)
        inner: Any = one.get("function")
        one = cast("Json", inner) if isinstance(inner, dict) else one
        name = one.get("name") or one.get("tool") or one.get("tool_name")
        arguments = next((one[key] for key in ("arguments", "parameters", "args", "input") if key in one), None)
        if isinstance(arguments, str):
            arguments = _loaded(arguments)
        meant = known(name) if isinstance(name, str) else None
        if meant is None or not isinstance(arguments, dict):
            return None
        calls.append((meant, cast("Json", arguments)))
    return calls or None


def _loaded(text: str) -> Any:
    try:
        # Line breaks as they are inside strings: the mistake that is made most.
        return json.loads(text, strict=False)
    except ValueError:
        return None
