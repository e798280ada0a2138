"""YAML to plain values with line numbers: the safe, small part of YAML that a manifest needs.

PyYAML's scanner and parser do the syntax; the values are ours, by YAML 1.2's core schema. So `no`, `on`, `12:30` and
`2026-09-01` are the text that they look like, where YAML 1.1 makes a boolean, a number and a date of them. No anchors,
aliases, tags or further documents: what a file says is what stands in it, and it cannot grow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

import yaml

from interactd.agents.documents import MAX_DEPTH, MAX_NODES, Document, Fault, FieldPath, Stop
from interactd.agents.documents.text import printable, shown, unprintable

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MAX_DIGITS = 30
_parse = cast("Callable[..., Iterator[Any]]", vars(yaml)["parse"])  # its stubs are only half typed


def read(text: str, *, first_line: int = 1) -> Document:
    """Read one document.

    Args:
        text: printable text (`text.decode`).
        first_line: the number of its first line in the file (front matter starts at 2).
    """
    return _Reader(first_line).read(text)


class _Reader:
    def __init__(self, first_line: int) -> None:
        self._first = first_line
        self._out = Document()
        self._nodes = 0

    def read(self, text: str) -> Document:
        out = self._out
        try:
            out.value = self._document(_parse(text, Loader=yaml.SafeLoader))
        except Stop:
            out.value = None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            out.value = None
            self._fault(_syntax(error), mark.line + self._first if mark else None)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # The scanner hands an escape such as "\U00110000" to chr() as it is.
            out.value = None
            line = max(out.lines.values(), default=self._first)
            self._fault(f"this is no YAML: {printable(str(error), 160)}", line)
        return out

    def _document(self, events: Iterator[Any]) -> Any:
        value: Any = None
        found = False
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found:
                    self._stop("expected one document, got another `---`", self._line(event))
                found = True
            elif isinstance(event, yaml.NodeEvent):
                self._out.lines.setdefault((), self._line(event))
                value = self._node(event, events, (), 0)
        return value

    def _node(self, event: Any, events: Iterator[Any], path: FieldPath, depth: int) -> Any:
        line = self._line(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(f"more than {MAX_NODES} values", line, path)
        if depth > MAX_DEPTH:
            self._stop(f"nested deeper than {MAX_DEPTH}", line, path)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            name = shown(f"{sign}{event.anchor}")
            self._stop(f"anchors and aliases are not read ({name}); write the value out", line, path)
        tag: Any = event.tag  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        if tag is not None:
            self._stop(f"tags are not read ({shown(tag)}); leave it out", line, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path, depth)
        return self._mapping(events, path, depth)

    def _sequence(self, events: Iterator[Any], path: FieldPath, depth: int) -> list[Any]:
        out: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            at = (*path, len(out))
            self._out.lines[at] = self._line(event)
            out.append(self._node(event, events, at, depth + 1))
        return out

    def _mapping(self, events: Iterator[Any], path: FieldPath, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = self._line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self._stop("expected a plain name before the colon", line, path)
            if event.anchor is not None or event.tag is not None:
                self._stop("anchors and tags are not read; leave them out", line, path)
            key: str = event.value
            at = (*path, key)
            if not key:
                self._stop("expected a name before the colon, got nothing", line, path)
            if wrong := unprintable(key):
                self._stop(f"expected a name, got {wrong[1]} in it", line, path)
            if key in out:
                self._fault(f"stands here twice, first in line {self._out.lines[at]}; keep one", line, at)
            else:
                self._out.lines[at] = line
            value = self._node(next(events), events, at, depth + 1)
            out.setdefault(key, value)
        return out

    def _scalar(self, event: Any, path: FieldPath, line: int) -> Any:
        text: str = event.value
        if wrong := unprintable(text):
            self._fault(f"expected text, got {wrong[1]}", line, path)
            return "".join(c for c in text if not unprintable(c))
        if event.style:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                self._fault(f"expected a number, got one of {len(text)} digits", line, path)
                return 0
            return int(text, 8 if text[:2] == "0o" else 16 if text[:2] == "0x" else 10)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _line(self, event: Any) -> int:
        return event.start_mark.line + self._first

    def _fault(self, message: str, line: int | None, path: FieldPath = ()) -> None:
        self._out.faults.append(Fault(message, line, path))

    def _stop(self, message: str, line: int, path: FieldPath = ()) -> NoReturn:
        self._fault(message, line, path)
        raise Stop


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = printable(error.problem or "unreadable", 160)
    context = f" {printable(error.context, 80)}" if error.context else ""
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = "; a text with a colon in it needs quotes around it"
    elif "cannot start any token" in problem:
        hint = "; indent with spaces, and put such a text in quotes"
    return f"this is no YAML:{context} {problem}{hint}" if context else f"this is no YAML: {problem}{hint}"
