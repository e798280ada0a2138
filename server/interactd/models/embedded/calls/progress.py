"""How far an agent's turn has come, read from its steps: what was done of what was asked, and what may come next.

A small model loses the thread after one call: it repeats it, answers before anything is done, or writes its own
result into the file. What a task plainly asks for can be seen in its words (`asked`), and what was done in the calls;
so the grammar leaves out what makes no sense next, and a result says what is missing. Nothing here knows a task, and
every demand ends after a few calls, since words can mislead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, cast

from interactd.models.embedded.calls.asked import Asked, asked
from interactd.models.embedded.calls.call import Call
from interactd.nouns import Json, Step

MAX_CALLS: Final = 10
"""Calls in one turn after which the model must answer: a small one has lost the thread by then."""
_DEMANDS: Final = 7
"""Calls after which nothing is demanded any more."""
_RETRIES: Final = 3
_QUOTED: Final = 40
"""Characters of a result that an answer has to quote."""
ANY: Final = "*"
_NUMBERED: Final = re.compile(r"^ *\d+\t", re.MULTILINE)
_MISSING_MODULE: Final = re.compile(r"No module named")
Missing = Literal[
    "nothing done",
    "not made",
    "not changed",
    "not deleted",
    "not run",
    "not seen",
    "no number",
    "empty",
    "not empty",
    "lines",
    "not exact",
]


@dataclass
class Turn:
    """What the user asks for now, and the calls made for it, oldest first."""

    task: str = ""
    calls: list[Call] = field(default_factory=list[Call])

    @cached_property
    def asked(self) -> Asked:
        return asked(self.task)

    @property
    def last(self) -> Call | None:
        return self.calls[-1] if self.calls else None

    @property
    def good(self) -> list[Call]:
        return [call for call in self.calls if not call.failed]

    def written(self, name: str) -> bool:
        """Whether a file that is to be made or changed was."""
        surely = name in self.asked.changed
        return any(call.writes(name, surely=surely) for call in self.calls)

    def seen(self, name: str) -> bool:
        """Whether a file was shown after it was last written."""
        for call in reversed(self.calls):
            if call.reads(name):
                return True
            if call.writes(name):
                return False
        return False

    @property
    def missing(self) -> Missing | None:
        """What the task plainly asks for and was not done yet; None when nothing is, or it was asked for in vain."""
        ask = self.asked
        if len(self.calls) >= _DEMANDS or not ask.acts:
            return None
        if not self.calls:
            return "nothing done"
        good = self.good
        if not good and len(self.calls) >= _RETRIES:
            return None
        if any(not self.written(name) for name in ask.made):
            return "not made"
        if any(not self.written(name) for name in ask.changed):
            return "not changed"
        if any(not any(call.concerns(name) for call in good) for name in ask.deleted):
            return "not deleted"
        if any(not any(call.ran and call.concerns(name) for call in good) for name in ask.runs):
            return "not run"
        if not good:
            return "nothing done"
        return self._missing_in_results()

    def _missing_in_results(self) -> Missing | None:
        ask = self.asked
        if not (ask.made or ask.changed):
            unread = [name for name in ask.read if not any(call.concerns(name) for call in self.good)]
            if unread or (ask.computes and not ask.deleted and not any(c.ran for c in self.good)):
                return "nothing done"
            if ask.number and not any(call.ran and _one_number(call.output or "") for call in self.good):
                return "no number"
        if any(not self.seen(name) for name in self.to_see):
            return "not seen"
        return self._wrong_in_files()

    def _wrong_in_files(self) -> Missing | None:
        """What is wrong with a file that was made, as it was last shown."""
        ask = self.asked
        for name in ask.changed:
            shown = [call.output for call in self.calls if call.reads(name)]
            if len(shown) > 1 and shown[0] == shown[-1]:
                return "not changed"
        for name in ask.made:
            held = self._held(name)
            if (not held.strip()) != ask.empty:
                return "not empty" if ask.empty else "empty"
            count = self.lines_of(name)
            if ask.lines and (count != ask.count if ask.count else count == 1):
                return "lines"
            if ask.number and not ask.lines and not _one_number(held):
                return "no number"
            if self.exact(name):
                return "not exact"
        return None

    @property
    def in_vain(self) -> bool:
        """Whether a program ran well and what was asked for is not there yet."""
        return self.last is not None and self.last.ran and self.missing not in (None, "not seen")

    @property
    def to_see(self) -> list[str]:
        """Files that are looked at when they are made: always, since a program that ran well may have written
        anything; but not those that it is not worth looking at."""
        return [*self.asked.made, *self.asked.changed][:2]

    def exact(self, name: str) -> str | None:
        """A text of the task as it stands there, where a file has the same in other letters and nothing is computed."""
        if self.asked.computes or self.asked.read:
            return None
        for line in map(str.strip, self._held(name).splitlines()):
            if line not in self.task and (at := self.task.lower().find(line.lower())) >= 0:
                return self.task[at : at + len(line)]
        return None

    def exact_begin(self, name: str) -> str | None:
        """As `exact`, where it is the file's first line that is wrong."""
        exact = self.exact(name)
        begin = self._held(name).strip().partition("\n")[0].strip()
        return exact if exact and exact.lower() == begin.lower() else None

    def lines_of(self, name: str) -> int:
        """How many lines a file had when it was last shown."""
        return len(self._held(name).rstrip().splitlines())

    def _held(self, name: str) -> str:
        """What a file held when it was last shown."""
        shown = next((call.output or "" for call in reversed(self.calls) if call.reads(name)), "")
        if shown.endswith(" is empty."):
            return ""
        return _NUMBERED.sub("", shown)

    @property
    def result(self) -> str:
        """What the work came to, if that is one short line that a program printed or a file holds; else empty."""
        last = self.last
        if last is None or last.failed or self.missing or last.name not in ("code_execution", "view_file"):
            return ""
        text = (last.output or "").strip()
        if last.name == "view_file":
            number, tab, text = text.partition("\t")
            text = text if tab and number == "1" else ""
        return text if 0 < len(text) <= _QUOTED and text.isprintable() and text != "(no output)" else ""

    def stuck(self) -> bool:
        """Whether calls have come to nothing new: the same one twice in a row without an error, or too many."""
        made = [(call.name, call.text) for call in self.calls]
        if len(made) >= MAX_CALLS:
            return True
        if len(made) >= 2 and made[-1] == made[-2] and not self.calls[-1].failed and not self.in_vain:
            return True
        return len(made) >= 3 and made[-1] == made[-2] == made[-3]

    def sensible(self) -> set[str]:
        """Return the names of the tools that may be called next, and "answer" if that may come next."""
        last, ask, missing = self.last, self.asked, self.missing
        if self.stuck():
            return {"answer"}
        if last is None:
            return self._first()
        if last.failed:
            return self._again(last, missing)
        match missing:
            case "not seen":
                return {"view_file"}
            case "not run" | "no number" | "not changed" | "not deleted" | "empty" | "not empty":
                return {"code_execution"}
            case "not exact":
                return {"write_file"}
            case "lines":
                return {"code_execution", *(["write_file"] if self._literal() else [])}
            case "not made" | "nothing done":
                offered = {"code_execution", "url_fetch", *(["view_file"] if self.readable() else [])}
                if last.name not in ("list_dir", "view_file"):
                    offered.add("list_dir")
                return {*offered, "write_file"} if self.writable() and self._literal() else offered
            case None:
                pass
        if ask.acts and (ask.files or ask.computes or ask.folder):
            return {"answer"}
        offered = {"code_execution", "url_fetch", "answer", *(["view_file"] if self.readable() else [])}
        return offered if last.name in ("list_dir", "view_file") else {*offered, "list_dir"}

    def _first(self) -> set[str]:
        ask = self.asked
        if not ask.acts:
            both = {"code_execution", "url_fetch", "list_dir", "write_file", "answer"}
            return {*both, "view_file"} if self.readable() else both
        if self.readable() and not (ask.made or ask.changed or ask.deleted):
            return {"code_execution" if ask.computes else "view_file"}
        if ask.changed:
            # What it was like before is needed to change it, and to see that it was.
            return {"view_file"}
        if self._literal() and ask.made and not ask.by_program:
            return {"write_file", *(["code_execution"] if re.search(r"\d", self.task) else [])}
        first = {"code_execution", "url_fetch", *(["view_file"] if self.readable() else [])}
        if ask.source:
            first.add("write_file")
        return first if ask.files or ask.computes else {*first, "list_dir"}

    def _again(self, last: Call, missing: Missing | None) -> set[str]:
        """What may come after an error."""
        no_module = _MISSING_MODULE.search(last.output or "") is not None
        again = {"code_execution"}
        if not no_module:
            again |= {"view_file"} if self.readable() else set[str]()
            again |= {"list_dir"} if last.name != "list_dir" else set[str]()
        if self.asked.runs:
            # What is wrong may be in the program that it wrote.
            again.add("write_file")
        return again if missing else {*again, "answer"}

    def _literal(self) -> bool:
        """Whether what is to be written can be taken from the task's own words."""
        ask = self.asked
        return ask.source or not (ask.computes or ask.read)

    def writable(self) -> list[str]:
        """Return the files that may be written as they stand in the task; "*" for any."""
        ask = self.asked
        if not ask.acts:
            return [ANY]
        broken = ask.runs if self.last is not None and self.last.failed else []
        names = [name for name in ask.made if not self.written(name) or self.exact(name) or name in broken]
        return [_inside(ask.folder, name) for name in names]

    def readable(self) -> list[str]:
        """Return the task's files that no READ has shown and that can be there, "*" for any if it names none.

        Without a name a small model makes one up, so it must have looked around first.
        """
        ask = self.asked
        if not ask.files:
            return [ANY] if self.good and self.last in self.good else []
        if self.missing == "not seen":
            return [_inside(ask.folder, name) for name in self.to_see if not self.seen(name)]
        there = [name for name in ask.files if name not in ask.made or self.written(name)]
        return [_inside(ask.folder, name) if name in ask.made else name for name in there if not self._read(name)]

    def _read(self, name: str) -> bool:
        return any(call.name == "view_file" and call.concerns(name) for call in self.calls)


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
    """Leave out a turn's calls that failed or came to nothing, once one was made twice: a model that reads its mistake
    copies it."""
    now = turn(steps)
    calls = now.calls
    if len(calls) < 2 or calls[-1].text != calls[-2].text or not (calls[-1].failed or now.in_vain):
        return list(steps)
    start = max(number for number, step in enumerate(steps) if step.type == "user_input")
    made = [step for step in steps[start:] if step.type == "function_call"]
    in_vain = now.in_vain
    dead = {
        str(step.body.get("id"))
        for step, call in zip(made, calls, strict=True)
        if call.failed or (in_vain and call.name == "code_execution")
    }
    key = {"function_call": "id", "function_result": "call_id"}
    return [
        step
        for number, step in enumerate(steps)
        if number < start or step.type not in key or str(step.body.get(key[step.type])) not in dead
    ]


def _words(result: Any) -> str:
    if isinstance(result, list):
        parts = cast("list[Any]", result)
        return "\n".join(str(cast("Json", part).get("text", "")) for part in parts if isinstance(part, dict)).strip()
    return result.strip() if isinstance(result, str) else json.dumps(result, default=str)


def _one_number(output: str) -> bool:
    """Whether a program printed what may be the one number that was asked for, and not a list of things."""
    return re.search(r"\d", output) is not None and len(output.strip().splitlines()) <= 2


def _inside(folder: str | None, name: str) -> str:
    return f"{folder}/{name}" if folder and "/" not in name else name
