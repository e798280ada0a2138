"""JSON to plain values with line numbers. Python's own decoder tells neither lines of fields nor repeated names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, cast

from interactd.agents.documents import MAX_DEPTH, MAX_NODES, Document, Fault, FieldPath, Stop
from interactd.agents.documents.text import shown, unprintable

_scan_string = cast("Callable[[str, int, bool], tuple[str, int]]", vars(json.decoder)["scanstring"])
_SPACE = re.compile(r"[ \t\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?(?![0-9A-Za-z.])")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_MAX_DIGITS = 30


def read(text: str) -> Document:
    """Read one JSON document of printable text (`text.decode`)."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nodes = 0
        self._counted = 0
        self._lines = 1
        self._out = Document()

    def read(self) -> Document:
        try:
            self._skip()
            self._out.lines[()] = self._line()
            self._out.value = self._value((), 0)
            self._skip()
            if self._at < len(self._text):
                self._stop(f"expected the end, got {self._here()}")
        except Stop:
            self._out.value = None
        return self._out

    def _value(self, path: FieldPath, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(f"more than {MAX_NODES} values", path)
        if depth > MAX_DEPTH:
            self._stop(f"nested deeper than {MAX_DEPTH}", path)
        match self._text[self._at : self._at + 1]:
            case "{":
                return self._object(path, depth)
            case "[":
                return self._array(path, depth)
            case '"':
                return self._string(path)
            case _:
                return self._plain(path)

    def _object(self, path: FieldPath, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        self._at += 1
        while not self._closes("}", path, first=not out):
            if self._text[self._at : self._at + 1] != '"':
                self._stop(f"expected a name in double quotes, got {self._here()}", path)
            line = self._line()
            key = self._string(path)
            at = (*path, key)
            if key in out:
                self._fault(f"stands here twice, first in line {self._out.lines[at]}; keep one", line, at)
            else:
                self._out.lines[at] = line
            self._skip()
            if self._text[self._at : self._at + 1] != ":":
                self._stop(f"expected a colon, got {self._here()}", at)
            self._at += 1
            self._skip()
            out.setdefault(key, self._value(at, depth + 1))
        return out

    def _array(self, path: FieldPath, depth: int) -> list[Any]:
        out: list[Any] = []
        self._at += 1
        while not self._closes("]", path, first=not out):
            at = (*path, len(out))
            self._out.lines[at] = self._line()
            out.append(self._value(at, depth + 1))
        return out

    def _closes(self, end: str, path: FieldPath, *, first: bool) -> bool:
        """Step over what is between two items; True at the end."""
        self._skip()
        if self._text.startswith(end, self._at):
            self._at += 1
            return True
        if first:
            return False
        if not self._text.startswith(",", self._at):
            self._stop(f"expected a comma or {end}, got {self._here()}", path)
        self._at += 1
        self._skip()
        if self._text.startswith(end, self._at):
            self._stop(f"expected nothing between the comma and {end}; take the comma away", path)
        return False

    def _string(self, path: FieldPath) -> str:
        line = self._line()
        try:
            text, self._at = _scan_string(self._text, self._at + 1, True)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._stop(f"this is no JSON: {error.msg}", path)
        if wrong := unprintable(text):
            self._fault(f"expected text, got {wrong[1]}", line, path)
            text = "".join(c for c in text if not unprintable(c))
        return text

    def _plain(self, path: FieldPath) -> Any:
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            self._stop(f"expected a value, got {self._here()}", path)
        self._at = found.end()
        if len(found.group()) > _MAX_DIGITS:
            self._stop(f"expected a number, got one of {len(found.group())} digits", path)
        return float(found.group()) if found[1] or found[2] else int(found.group())

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _line(self) -> int:
        # Counted on from the last time: counting from the start makes a long text quadratic.
        if self._at > self._counted:
            self._lines += self._text.count("\n", self._counted, self._at)
            self._counted = self._at
        return self._lines

    def _here(self) -> str:
        rest = self._text[self._at : self._at + 12].split("\n", 1)[0]
        return shown(rest) if rest else "the end of the line" if self._at < len(self._text) else "the end"

    def _fault(self, message: str, line: int, path: FieldPath) -> None:
        self._out.faults.append(Fault(message, line, path))

    def _stop(self, message: str, path: FieldPath = ()) -> NoReturn:
        self._fault(message, self._line(), path)
        raise Stop
