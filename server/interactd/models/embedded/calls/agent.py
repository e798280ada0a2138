"""Tools of an agent for models too small for JSON: one keyword a reply, code and files in Markdown fences.

`RUN` and a fenced program, `WRITE path` and a fenced file, `READ path`, `LIST`, or `ANSWER` and the text; held by a
grammar, so that nothing else can be written. It stands for the built-in tools that an agent has; functions of the
caller's keep the form of `protocol`. When the model repeats itself, or has called often enough, only ANSWER is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interactd.models.embedded.calls import protocol
from interactd.models.embedded.calls.gbnf import literal, unlike
from interactd.models.embedded.calls.progress import ANY, Turn, turn
from interactd.nouns import Json, Step, text_content

_INSTRUCTIONS = 1_200
_CLIPPED = 600
_LANGUAGES = {"python": "python", "bash": "bash", "sh": "bash"}
_NUMBERED = re.compile(r"^ *\d+\t", re.MULTILINE)
_REMARK = re.compile(r"\n\[You (?:have|made) [^\]\n]*\]")
_ERROR_LINES = 8
_FENCED = re.compile(r"```[a-z]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_DIGITS = re.compile(r"\d+")
_A_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_LINES = "{0,40}"
"""A small model that repeats itself inside a fence would go on for ever."""
_REST = r"rest ::= [^\n]{0,160}"
_WORDS = r"words ::= [^\n]{1,300}"
_PATH = r"path ::= [A-Za-z0-9_./-]{1,120}"
_ABSENT = ("numpy", "pandas", "matplotlib", "scipy", "sklearn", "requests")
"""Modules that small models reach for, and that the sandbox's own Python does not have."""
_BLANK = " \\t"
_KEYWORDS = ("RUN\n", "WRITE ", "READ ", "LIST\n", "FETCH ", "ANSWER\n", "RESULT of ", "ERROR of ")

_HOW = """You work in the folder /workspace. The first word of each reply is {words}.
RUN runs a Python or bash program and shows what it prints. Use only Python's standard library, never pandas or numpy.
{others}
ANSWER ends the work: say the result in one sentence.

Use the exact file names and texts of the task. Compute with RUN, never in your head. A program that computes
something for a file also writes the file, and prints the result."""

_OTHERS = {
    "write_file": ("WRITE", "WRITE makes a file with a text that is known."),
    "view_file": ("READ", "READ shows a file."),
    "list_dir": ("LIST", "LIST shows the files there are."),
    "url_fetch": ("FETCH", "FETCH reads a web page: FETCH https://example.org/"),
}


def fits(tools: list[Json]) -> bool:
    """Whether these are an agent's tools: code to run, and nothing but what has a keyword or can do without."""
    names = {str(tool["name"]) for tool in tools}
    return "code_execution" in names and names <= _KNOWN


_KNOWN = {"code_execution", "replace_in_file", "search_files", "delete_file", *_OTHERS}


def system(instruction: str | None, tools: list[Json]) -> str:
    """Return the whole system prompt: who the agent is, briefly, and how it works.

    Long instructions are written for larger models; of those only the beginning is kept, since every token costs a
    small model time and attention.
    """
    names = [str(tool["name"]) for tool in tools]
    others = [_OTHERS[name] for name in _OTHERS if name in names]
    words = ["RUN", *(word for word, _ in others), "ANSWER"]
    how = _HOW.format(
        words=f"{', '.join(words[:-1])} or {words[-1]}", others="\n".join(["", *(text for _, text in others), ""])
    )
    return f"{_short(instruction)}\n\n{how}"


DONE = "Nothing is missing: ANSWER with the result."
EXAMPLES: tuple[tuple[str, ...], ...] = (
    (
        "Example: Take the dashes out of codes.txt.",
        """RUN
```python
with open("codes.txt") as f:
    text = f.read()
with open("codes.txt", "w") as f:
    f.write(text.replace("-", ""))
```""",
        "RESULT of RUN: it ran well and printed nothing. READ codes.txt to check it.",
        "READ codes.txt",
        f"RESULT of READ:\nAB12\nCD34\n\n{DONE}",
        "ANSWER\nThe codes AB12 and CD34 have no dashes now.",
    ),
    (
        "Example: How many animals in zoo.csv weigh more than 100? It has the columns animal,weight.",
        """RUN
```python
import csv
with open("zoo.csv") as f:
    rows = list(csv.DictReader(f))
heavy = [row for row in rows if float(row["weight"]) > 100]
print(len(heavy))
```""",
        f"RESULT of RUN:\n4\n\n{DONE}",
        "ANSWER\n4 animals weigh more than 100.",
    ),
    (
        "Example: What does plan.txt say?",
        "READ plan.txt",
        f"RESULT of READ:\nbuy milk\n\n{DONE}",
        "ANSWER\nplan.txt says: buy milk",
    ),
    (
        "Example: Compute the area of a circle with the radius 3 and write it to area.txt.",
        """RUN
```python
import math
area = math.pi * 3 ** 2
with open("area.txt", "w") as f:
    f.write(str(area))
print(area)
```""",
        "RESULT of RUN:\n28.274333882308138\n\nREAD area.txt to check it.",
        "READ area.txt",
        f"RESULT of READ:\n28.274333882308138\n\n{DONE}",
        "ANSWER\nThe area of a circle with the radius 3 is 28.274333882308138.",
    ),
)


def examples() -> list[Step]:
    """Earlier exchanges, made up: a small model follows what it sees done better than what it is told."""
    return [
        Step("model_output" if number % 2 else "user_input", {"content": [text_content(text)]})
        for example in EXAMPLES
        for number, text in enumerate(example)
    ]


def _short(instruction: str | None) -> str:
    text = (instruction or "You are an agent that does the user's task itself.").strip()
    if len(text) > _INSTRUCTIONS:
        text = text.split("\n#", 1)[0].strip()[:_CLIPPED]
    return text


def grammar(tools: list[Json], choice: Literal["auto", "any"], steps: Sequence[Step]) -> str:
    """Return the grammar of the next reply, given the steps of the conversation so far."""
    names = {str(tool["name"]) for tool in tools}
    now = turn(steps)
    sensible = now.sensible() & {*names, "answer"}
    if choice == "any" and not now.calls:
        sensible = sensible - {"answer"} or names
    fence, end = literal("```\n"), literal("```")
    calls = {
        "code_execution": f'"RUN\\n```" ("python" | "bash") "\\n" first code{_LINES} {end}',
        "write_file": f'"WRITE " {_either(now.writable())} "\\n" {fence} filled text{_LINES} {end}',
        "view_file": f'"READ " {_either(now.readable())}',
        "list_dir": '"LIST"',
        "url_fetch": r'"FETCH http" "s"? "://" [!-~]{1,200}',
        "answer": _answer(now),
    }
    root = " | ".join(calls[name] for name in calls if name in sensible)
    imports = [f"{word} {name}" for name in _ABSENT if not _may_import(name, now) for word in ("import", "from")]
    rules = {
        "first": unlike(["```", *imports, *_KEYWORDS], "rest", also=_BLANK, empty=False),
        "code": f"[ \\t]{{0,60}} {unlike(['```', *imports], 'rest', also=_BLANK)}",
        "filled": unlike(["```", *_KEYWORDS], "rest", also=_BLANK, empty=False),
        "text": unlike(["```"], "rest"),
    }
    lines = [f'{name} ::= {rule} "\\n"' for name, rule in rules.items()]
    return "\n".join([f"root ::= {root}", *lines, _REST, _PATH, _WORDS]) + "\n"


def _answer(now: Turn) -> str:
    """An answer; where the work came to a number, that is in it as it is, and no other one: small models misquote."""
    if not _A_NUMBER.fullmatch(now.result):
        return rf'{literal(ANSWER)} words ("\n" words?){{0,24}}'
    # Before it numbers of the task's own may be said, and no digit right after it.
    own = sorted(set(_DIGITS.findall(now.task)))[:40]
    piece = " | ".join([r"[^\n0-9]", *(rf"{literal(number)} [^\n0-9]" for number in own)])
    return rf"{literal(ANSWER)} ({piece}){{0,200}} {literal(now.result)} ([^\n0-9] [^\n]{{0,120}})?"


def _may_import(name: str, now: Turn) -> bool:
    """Whether the user speaks of a module, or a program has imported it."""
    return name in now.task.lower() or any(call.ran and f"import {name}" in call.text for call in now.calls)


def _either(paths: list[str]) -> str:
    if not paths or ANY in paths:
        return "path"
    return f"({' | '.join(literal(path) for path in paths)})"


ANSWER = protocol.ANSWER


def parse(text: str) -> tuple[str, Json] | None:
    """Read a whole call; None if it is not one (it was cut off)."""
    first, _, rest = text.partition("\n")
    word, _, operand = first.partition(" ")
    if word == "RUN":
        language = rest.partition("\n")[0].removeprefix("```").strip() or "python"
        code = _FENCED.match(rest)
        return ("code_execution", {"language": _LANGUAGES.get(language, "python"), "code": code[1]}) if code else None
    if word == "WRITE":
        content = _FENCED.match(rest)
        return ("write_file", {"path": operand.strip(), "content": content[1] + "\n"}) if content and operand else None
    if word == "READ" and operand:
        return "view_file", {"path": operand.strip()}
    if word == "LIST":
        return "list_dir", {}
    if word == "FETCH" and operand:
        return "url_fetch", {"url": operand.strip()}
    return None


def render_call(step: Step) -> str:
    """Return a call as the model itself would have written it."""
    arguments: Json = dict(step.body.get("arguments") or {})
    match step.body.get("name"):
        case "code_execution":
            return f"RUN\n```{arguments.get('language', 'python')}\n{arguments.get('code', '')}\n```"
        case "write_file":
            return f"WRITE {arguments.get('path')}\n```\n{str(arguments.get('content', '')).rstrip()}\n```"
        case "view_file":
            return f"READ {arguments.get('path')}"
        case "list_dir":
            return "LIST"
        case "url_fetch":
            return f"FETCH {arguments.get('url')}"
        case name:
            return f"{name} {json.dumps(arguments, ensure_ascii=False)}"


def render_result(step: Step, now: Turn) -> str:
    """Return a result with what to do next: small models do not find that out by themselves.

    `now` is the turn up to this result.
    """
    words = {
        "code_execution": "RUN",
        "write_file": "WRITE",
        "view_file": "READ",
        "list_dir": "LIST",
        "url_fetch": "FETCH",
    }
    name = words.get(str(step.body.get("name")), "the call")
    text = _REMARK.sub("", protocol.render_result(step).partition("\n")[2])
    if step.body.get("is_error"):
        return f"ERROR of {name}:\n{_last(text)}\n\nCorrect the mistake and try again.{_advice(text)}"
    todo = _todo(now)
    last = now.last
    if name == "RUN" and last is not None and last.silent:
        return (
            f"RESULT of RUN: it ran well and printed nothing. {todo if now.missing else 'Use print() to see a value.'}"
        )
    if name == "WRITE":
        return f"RESULT of WRITE: the file is written. {todo}"
    if name == "READ":
        text = _NUMBERED.sub("", text)
    if name == "LIST":
        text = f"{len(text.splitlines())} entries:\n{text}"
    return f"RESULT of {name}:\n{text}\n\n{todo}"


def _todo(now: Turn) -> str:
    """What is missing, as the next thing to do."""
    ask = now.asked
    undone = " and ".join(name for name in (*ask.made, *ask.changed) if not now.written(name))
    made = " and ".join((*ask.made, *ask.changed))
    reads = " and ".join(ask.read)
    opens = f" that opens {reads} and" if reads else " that"
    match now.missing:
        case None:
            return DONE
        case "not seen":
            return f"READ {' and '.join(now.readable())} to check it."
        case "not made":
            by_hand = now.writable() and not (ask.computes or reads)
            return f"WRITE {undone}." if by_hand else f"RUN a program{opens} writes {undone}."
        case "not changed":
            file = undone or made
            return (
                f"{file} is still as it was. RUN a program that reads the whole text of {file}, changes it with "
                f"text.replace(old, new) or text + more, and writes the changed text to {file} again."
            )
        case "not deleted":
            return f"RUN a program that deletes {' and '.join(ask.deleted)}."
        case "not run":
            return f"RUN it with bash: python3 {ask.runs[0]}"
        case "no number":
            where = f" writes that number alone to {made}" if made else " prints it alone"
            how = " Lines are counted with sum(1 for line in f if condition)." if reads else ""
            return f"The task asks for one number. RUN a program{opens}{where}.{how}"
        case "empty":
            return f"{made} must not be empty. RUN a program{opens} writes {made}."
        case "not empty":
            return f"{made} must be empty. RUN a program that empties it."
        case "lines":
            wanted = f"the task wants {ask.count}" if ask.count else "each item must be on a line of its own"
            return (
                f"The file has {_how_many(now.lines_of(ask.made[0]))}; {wanted}. RUN your whole program again: open "
                f'{made} once with "w", and write each item with "\\n" after it, as in f.write(str(item) + "\\n").'
            )
        case "not exact":
            return f"{made} must have it exactly as the task does. WRITE {made} again: {now.exact(ask.made[0])}"
        case "nothing done":
            return f"RUN a program{opens} prints the result."


def _how_many(count: int) -> str:
    return f"{count} line{'' if count == 1 else 's'}"


def _last(text: str) -> str:
    """Of a traceback a small model needs the line and the error."""
    lines = text.splitlines()
    return text if len(lines) <= _ERROR_LINES else "\n".join(lines[-_ERROR_LINES:])


def _advice(text: str) -> str:
    if missing := re.search(r"No module named '?([\w-]+)", text):
        return f" {missing[1]} is not there and cannot be had; do without it.{_TABLE}"
    for pattern, advice in _ADVICE:
        if found := re.search(pattern, text):
            return advice.format(*found.groups())
    return ""


_TABLE = (
    " A table is read like this:\nimport csv\nwith open(path) as f:\n    rows = list(csv.DictReader(f))\n"
    "numbers = [float(row[column]) for row in rows]"
)
_ADVICE = (
    (r"FileNotFoundError|[Nn]o such file|there is no ", " LIST shows which files there are."),
    (
        r"invalid literal|could not convert",
        f" Not every row is a number: a table begins with the names of its columns.{_TABLE}",
    ),
    (r"closed file", f" Everything must be read before the file is closed.{_TABLE}"),
    (
        r"and 'str'|and 'int'|must be str, not|not 'int'|not 'str'",
        " Make text a number with float(text), and a number text with str(number).",
    ),
    (r"KeyError|IndexError", f" Look at the file's first line for the names of its columns.{_TABLE}"),
    (
        r"name '(csv|json|os|re|math|datetime|random|statistics|glob|sys|string|shutil)' is not",
        " Begin with: import {0}",
    ),
    (r"NameError", " A name must be given a value first; a file must be opened and read in the program itself."),
    (r"SyntaxError|IndentationError", " Write a shorter program, each statement on its own line."),
    (r"EOFError|stdin", " There is no input to type: the program must open the file by its name."),
)
"""What small models get wrong most, and how it is put right."""


@dataclass(frozen=True, slots=True)
class Form:
    """How calls are written: what begins one, and how one is read."""

    begins: tuple[str, ...]
    parse: Callable[[str], tuple[str, Json] | None]


FORM = Form(("RUN\n", "WRITE ", "READ ", "LIST", "FETCH "), parse)


def json_form(tools: list[Json]) -> Form:
    """The form of `protocol`, for a caller's own functions."""

    def read(text: str) -> tuple[str, Any] | None:
        return protocol.parse_call(text.removeprefix(protocol.CALL), tools)

    return Form((protocol.CALL,), read)
