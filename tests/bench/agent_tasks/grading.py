"""What a run left behind, and strict questions about it: whole files, whole numbers, steps that were really made."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from interactd.nouns import Step

Files = Mapping[str, str]
_CODE_READS = r"""open\(\s*f?["'](?:/workspace/|\./)?{0}["']\s*(?:,\s*(?:mode\s*=\s*)?["']r[bt]?["'])?\s*[,)]"""
_OTHER_READS = r"(?:\bcat|\bhead|\btail|<)\s+[\"']?(?:/workspace/|\./)?{0}\b|{0}[\"']\)\.read_(?:text|bytes)\("


@dataclass(frozen=True)
class Work:
    """A run's files (those it was given, as they are now, and those it made), names of all that is there, its answer
    and its steps."""

    files: Files
    names: Sequence[str]
    answer: str
    steps: Sequence[Step]

    def text(self, name: str) -> str | None:
        """A file without the white space around it."""
        return self.files[name].strip() if name in self.files else None

    def number(self, name: str, value: float) -> bool:
        """Whether the file holds exactly this number and nothing else, however it is written."""
        try:
            return float(self.files[name].strip().replace(",", "")) == value
        except (KeyError, ValueError):
            return False

    def lines(self, name: str) -> list[str]:
        return [line.strip() for line in self.files.get(name, "").strip().splitlines()]

    def rows(self, name: str) -> list[list[str]]:
        rows = csv.reader(io.StringIO(self.files.get(name, "").strip()))
        return [[cell.strip() for cell in row] for row in rows]

    def json(self, name: str) -> object:
        try:
            return json.loads(self.files.get(name, ""))
        except ValueError:
            return None

    def says(self, *values: str) -> bool:
        """Whether the answer has one of these numbers or words, standing by itself, whatever its case; 3.0 is 3."""
        said = re.sub(r"(?<=\d),(?=\d\d\d)", "", self.answer).lower()
        return any(re.search(rf"(?<![\w.]){re.escape(v.lower())}(?:\.0+)?(?![\w]|\.\d)", said) for v in values)

    def counts(self, value: int) -> bool:
        """Whether the answer has this number and no other one."""
        words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        said = re.sub(r"\S+\.\w+", "", self.answer.replace(",", "")).lower()
        numbers = {int(found) for found in re.findall(r"(?<![\w.])\d+(?![\w]|\.\d)", said)}
        numbers |= {n for n, word in enumerate(words) if n != 1 and re.search(rf"\b{word}\b", said)}
        return numbers == {value} or (value == 1 and not numbers and "one" in said)

    def read_back(self, name: str, text: str) -> bool:
        """Whether a step opened this file for reading, after it was there, and showed this text."""
        name_ = re.escape(name)
        reads = re.compile(f"{_CODE_READS.format(name_)}|{_OTHER_READS.format(name_)}")
        calls = {str(step.body.get("id")): step for step in self.steps if step.type.endswith("_call")}
        for step in self.steps:
            call = calls.get(str(step.body.get("call_id")))
            if call is None or step.body.get("is_error") or text not in _words(step.body.get("result")):
                continue
            arguments: dict[str, Any] = call.body.get("arguments") or {}
            if call.body.get("name") == "view_file" and str(arguments.get("path", "")).split("/")[-1] == name:
                return True
            if call.type == "code_execution_call" and reads.search(str(arguments.get("code", ""))):
                return True
        return False

    def printed(self, text: str) -> bool:
        """Whether a program that was run printed this line."""
        return any(
            step.type == "code_execution_result"
            and not step.body.get("is_error")
            and text in [line.strip() for line in _words(step.body.get("result")).splitlines()]
            for step in self.steps
        )


@dataclass(frozen=True)
class Task:
    """What is asked, what lies in the workspace before, and what must be true after. Files that were given must be as
    they were, but for those that the task says to change."""

    name: str
    text: str
    grade: Callable[[Work], bool]
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    changes: tuple[str, ...] = ()

    def solved(self, work: Work) -> bool:
        kept = all(work.files.get(name) == text for name, text in self.files.items() if name not in self.changes)
        return kept and self.grade(work)


def _words(result: object) -> str:
    if isinstance(result, list):
        return "\n".join(str(part.get("text", "")) for part in cast("list[dict[str, Any]]", result))
    return str(result)
