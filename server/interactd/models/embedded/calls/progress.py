"""How far an agent's turn has come, read from its steps: what was asked for, what was done, what may come next.

A small model loses the thread after one call: it repeats it, answers before anything is done, or writes its own
result into the file. What a task plainly asks for (files it names, a computation) can be seen in its words, and what
was done in the calls; so the grammar leaves out what makes no sense next. Nothing here knows a task, and every
demand ends after a few calls, since words can mislead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from interactd.nouns import Json, Step

MAX_CALLS = 10
"""Calls in one turn after which the model must answer: a small one has lost the thread by then."""
_DEMANDS = 6
"""Calls after which nothing is demanded any more."""
_RETRIES = 3
_MISSING_MODULE = re.compile(r"No module named")
_TO = (
    r"\b(?:to|into|as|named|called|mak(?:e|es|ing)|creat(?:e|es|ing)|writes?)"
    r"(?: (?:the|a|an|new|empty|file|named|called))* "
)
_ABOUT_FILES = re.compile(r"\b(files?|folders?|director\w+|data|table|then)\b|\.\w", re.IGNORECASE)
ANY = "*"
_URL = re.compile(r"https?://\S+")
_FILE = re.compile(r"(?<![\w./@-])(?:/workspace/)?((?:[\w-]+/)*[\w-]*\w\.[A-Za-z]\w{0,5})(?![\w/@])")
_NO_FILES = frozenset({"e.g", "i.e", "a.m", "p.m"})
_SOURCE = re.compile(r"\.(py|sh|js|ts|html?|css|md|c|go|rs|java)$", re.IGNORECASE)
_COMPUTED = re.compile(
    r"\b(comput|calculat|count|how many|how much|sum\b|total|average|mean\b|median|sort|revers|convert|transform"
    r"|replac|renam|filter|remov|delet|merg|split|append|extract|largest|smallest|longest|shortest|maximum|minimum"
    r"|multipl|divid|upper ?case|lower ?case|first \d+|python|bash|shell|script|program|run\b|execut"
    r"|all (the )?\w+ (numbers|below|between|from))",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\b(write|creat|make|save|store|put|add|read|show|open|print|view|look|list|edit|chang|updat|fix|correct|use"
    r"|file|folder|(in|of|from|to|into|does|is) \S+\.\w)",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"\b(edit|chang|updat|fix|correct|replac|renam|add|append|remov|delet)", re.IGNORECASE)
_WRITTEN = re.compile(r"\b(write|writ|creat|make|save|store|put)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """A call and what came of it; `output` is None while it has no result."""

    name: str
    arguments: Json
    failed: bool = False
    output: str | None = None

    @property
    def silent(self) -> bool:
        """Whether a program ran well and printed nothing."""
        return self.name == "code_execution" and not self.failed and self.output in ("", "(no output)")

    @property
    def text(self) -> str:
        """The arguments in one string, the same for the same call."""
        return json.dumps(self.arguments, sort_keys=True, default=str, ensure_ascii=False)


@dataclass(slots=True)
class Turn:
    """What the user asks for now, and the calls made for it, oldest first."""

    task: str = ""
    calls: list[Call] = field(default_factory=list[Call])

    @property
    def files(self) -> list[str]:
        """Names of files in the task, in its order, without the workspace's own path."""
        found = [name for name in _FILE.findall(_URL.sub(" ", self.task)) if name.lower() not in _NO_FILES]
        return list(dict.fromkeys(found))

    @property
    def left(self) -> list[str]:
        """Files of the task that no call which went well has had to do with."""
        return [name for name in self.files if not any(_concerns(call, name) for call in self.calls if not call.failed)]

    @property
    def computes(self) -> bool:
        """Whether the task asks for what only a program finds out."""
        return _COMPUTED.search(self.task) is not None

    @property
    def acts(self) -> bool:
        """Whether the task asks for anything to be done at all."""
        return self.computes or bool(self.files and _ASKED.search(self.task))

    @property
    def unfinished(self) -> bool:
        """Whether something that the task plainly asks for was not tried yet."""
        if len(self.calls) >= _DEMANDS or not self.acts:
            return False
        if not self.calls:
            return True
        good = [call for call in self.calls if not call.failed]
        if not good and len(self.calls) >= _RETRIES:
            return False
        changed = any(call.name in ("code_execution", "write_file", "replace_in_file") for call in good)
        looked = any(call.name == "list_dir" for call in good) and not self.files
        if (self.computes or _CHANGED.search(self.task)) and not (changed or looked):
            return True
        return bool(self.left) or not good

    @property
    def complete(self) -> bool:
        """Whether a file or program was made for all files that the task names, and nothing is missing."""
        last = self.calls[-1] if self.calls else None
        if last is None or last.failed or self.unfinished or not self.files:
            return False
        return any(call.name in ("code_execution", "write_file") and not call.failed for call in self.calls)

    @property
    def outputs(self) -> list[str]:
        """Files of the task that it says are to be made."""
        return [
            name
            for name in self.files
            if re.search(rf"{_TO}(?:/workspace/)?{re.escape(name)}(?!\w)", self.task, re.IGNORECASE)
        ]

    def stuck(self) -> bool:
        """Whether calls have come to nothing new: the same one twice in a row without an error, or too many."""
        made = [(call.name, call.text) for call in self.calls]
        if len(made) >= MAX_CALLS:
            return True
        if len(made) >= 2 and made[-1] == made[-2] and not self.calls[-1].failed:
            return True
        return len(made) >= 3 and made[-1] == made[-2] == made[-3]

    def sensible(self) -> set[str]:
        """Return the names of the tools that may be called next, and "answer" if that may come next."""
        if self.stuck():
            return {"answer"}
        last = self.calls[-1] if self.calls else None
        if last is None:
            return self._first()
        looks = {"view_file"} if self.readable() else set[str]()
        if last.failed:
            missing = _MISSING_MODULE.search(last.output or "") is not None
            again = {"code_execution", *(set[str]() if missing else looks)}
            if last.name != "list_dir" and not missing:
                again.add("list_dir")
            return again if self.unfinished else {*again, "answer"}
        if self._told():
            return {"answer"}
        if self.complete:
            return {"answer", *looks, *(["code_execution"] if last.silent and not looks else [])}
        offered = {"code_execution", "url_fetch", *looks}
        if last.name not in ("list_dir", "view_file"):
            offered.add("list_dir")
        ran = any(call.name == "code_execution" and not call.failed for call in self.calls)
        if (ran or not self.computes) and self.writable():
            offered.add("write_file")
        return offered if self.unfinished else {*offered, "answer"}

    def _told(self) -> bool:
        """Whether a program has printed what was asked for, and the task is not about files."""
        last = self.calls[-1]
        ran = last.name == "code_execution" and not last.silent
        return ran and self.computes and not self.unfinished and not _ABOUT_FILES.search(self.task)

    def _first(self) -> set[str]:
        first = {"code_execution", "url_fetch", *(["view_file"] if self.readable() else [])}
        if not self.files:
            first.add("list_dir")
        if not self.computes or any(_SOURCE.search(name) for name in self.files):
            first.add("write_file")
        return first if self.acts else {*first, "list_dir", "write_file", "answer"}

    def writable(self) -> list[str]:
        """Return the task's files that may still be written, "*" for any; once a file was written, not it again."""
        wanted = self.outputs or self.left
        return [name for name in wanted if name in self.left] or (
            [] if any(call.name == "write_file" for call in self.calls) else [ANY]
        )

    def readable(self) -> list[str]:
        """Return the task's files that no READ has shown and that can be there, "*" for any if it names none.

        Without a name a small model makes one up, so it must have looked around first.
        """
        if not self.files:
            return [ANY] if any(not call.failed for call in self.calls) and not self.calls[-1].failed else []
        seen = [call for call in self.calls if call.name == "view_file"]
        absent = [name for name in self.outputs if name in self.left]
        names = [name for name in self.files if name not in absent]
        return [name for name in names if not any(_concerns(call, name) for call in seen)]


def turn(steps: Sequence[Step]) -> Turn:
    """Read the newest turn of a conversation."""
    now = Turn()
    results = {str(step.body.get("call_id")): step for step in steps if step.type == "function_result"}
    for step in steps:
        if step.type == "user_input":
            # What is sent while a turn runs belongs to it; only an answer ends a turn.
            now = Turn(step.text)
        elif step.type == "function_call":
            result = results.get(str(step.body.get("id")))
            now.calls.append(
                Call(
                    str(step.body.get("name")),
                    cast("Json", step.body.get("arguments") or {}),
                    bool(result and result.body.get("is_error")),
                    None if result is None else _words(result.body.get("result")),
                )
            )
    return now


def without_dead_end(steps: Sequence[Step]) -> list[Step]:
    """Leave out the failed calls of a turn once one was made twice: a model that reads its mistake copies it."""
    now = turn(steps).calls
    if len(now) < 2 or not now[-1].failed or not now[-2].failed or now[-1].text != now[-2].text:
        return list(steps)
    start = max(number for number, step in enumerate(steps) if step.type == "user_input")
    failed = {
        str(step.body.get("call_id"))
        for step in steps[start:]
        if step.type == "function_result" and step.body.get("is_error")
    }
    dead = {"function_call": "id", "function_result": "call_id"}
    return [
        step
        for number, step in enumerate(steps)
        if number < start or step.type not in dead or str(step.body.get(dead[step.type])) not in failed
    ]


def _words(result: Any) -> str:
    if isinstance(result, list):
        parts = cast("list[Any]", result)
        return "\n".join(str(cast("Json", part).get("text", "")) for part in parts if isinstance(part, dict)).strip()
    return result.strip() if isinstance(result, str) else json.dumps(result, default=str)


def _concerns(call: Call, name: str) -> bool:
    base = name.rpartition("/")[2]
    return call.name != "list_dir" and re.search(rf"(?<![\w-]){re.escape(base)}(?!\w)", call.text) is not None
