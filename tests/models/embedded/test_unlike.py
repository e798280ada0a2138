"""The grammar of lines that begin with none of some words."""

from __future__ import annotations

import re

import pytest

from interactd.models.embedded.calls.gbnf import unlike

_TOKEN = re.compile(r'"((?:\\.|[^"\\])*)"|(\[(?:\\.|[^\]\\])*\])|(rest)|([()|?])|( +)')


def as_pattern(expression: str) -> re.Pattern[str]:
    """The same expression as a regular one: literals, classes, groups and choices are all it has."""
    out = ""
    for literal, chars, rest, mark, _ in _TOKEN.findall(expression):
        out += (
            re.escape(literal.encode().decode("unicode_escape")) if literal else chars or mark or "[^\\n]*" * bool(rest)
        )
    assert "".join(found.group() for found in _TOKEN.finditer(expression)) == expression
    return re.compile(out)


WORDS = ["```", "import pandas", "import numpy", "from pandas", "RUN\n", "READ "]


@pytest.mark.parametrize("line", ["import csv", "import panda", "from p", "RUNNING", "READ", "reader", "`a`", "x", "i"])
def test_other_lines_may_be_written(line: str) -> None:
    assert as_pattern(unlike(WORDS, "rest")).fullmatch(line)


@pytest.mark.parametrize("line", ["```", "```python", "import pandas", "import pandas as pd", "RUN", "READ a.txt"])
def test_lines_that_begin_with_one_of_the_words_may_not(line: str) -> None:
    assert not as_pattern(unlike(WORDS, "rest")).fullmatch(line)


def test_empty_lines_and_first_characters_are_as_asked() -> None:
    assert as_pattern(unlike(WORDS, "rest")).fullmatch("")
    strict = as_pattern(unlike(WORDS, "rest", also=" \\t", empty=False))
    assert not strict.fullmatch("")
    assert not strict.fullmatch(" x")
    assert strict.fullmatch("x y")


def test_characters_that_mean_something_in_a_class_are_only_themselves() -> None:
    odd = as_pattern(unlike(["]x", "^x", "-x", "\\x", "[x"], "rest"))
    assert not any(odd.fullmatch(line) for line in ("]x", "^x", "-x", "\\x", "[x"))
    assert all(odd.fullmatch(line) for line in ("]y", "^", "-", "ax", "[y"))
