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
from interactd.models.embedded.calls.hints import advice, last_words, todo
from interactd.models.embedded.calls.progress import ANY, Turn, turn
from interactd.nouns import Json, Step

_INSTRUCTIONS = 1_200
_CLIPPED = 600
_LANGUAGES = {"python": "python", "bash": "bash", "sh": "bash"}
_NUMBERED = re.compile(r"^ *\d+\t", re.MULTILINE)
_REMARK = re.compile(r"\n\[You (?:have|made) [^\]\n]*\]")
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
    # Models have a token for the fence with its line break: without it they look for another way to write one.
    fence, end = literal("```\n"), f'{literal("```")} "\\n"?'
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
        "first": unlike(["``", *imports, *_KEYWORDS], "rest", also=_BLANK, empty=False),
        "code": f"[ \\t]{{0,60}} {unlike(['``', *imports], 'rest', also=_BLANK)}",
        "filled": unlike(["``", *_KEYWORDS], "rest", also=_BLANK, empty=False),
        "text": unlike(["``"], "rest"),
    }
    if now.missing == "not exact" and (begin := now.exact_begin(now.asked.made[0])):
        # It copies its mistake even when it is told: the task's own words, then.
        rules["filled"] = f"{literal(begin)} rest"
    lines = [f'{name} ::= {rule} "\\n"' for name, rule in rules.items()]
    return "\n".join([f"root ::= {root}", *lines, _REST, _PATH, _WORDS]) + "\n"


def _answer(now: Turn) -> str:
    """An answer; where the work came to something short, that is in it as it is: small models misquote."""
    if not now.result:
        return rf'{literal(ANSWER)} words ("\n" words?){{0,24}}'
    if not _A_NUMBER.fullmatch(now.result):
        return rf"{literal(ANSWER + now.result)} ([.,;:]? [^\n]{{0,120}})?"
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
        return f"ERROR of {name}:\n{last_words(text)}\n\nCorrect the mistake and try again.{advice(text)}"
    next_ = todo(now)
    last = now.last
    if name == "RUN" and last is not None and last.silent:
        return (
            f"RESULT of RUN: it ran well and printed nothing. {next_ if now.missing else 'Use print() to see a value.'}"
        )
    if name == "WRITE":
        return f"RESULT of WRITE: the file is written. {next_}"
    if name == "READ":
        text = _NUMBERED.sub("", text)
    if name == "LIST":
        text = f"{len(text.splitlines())} entries:\n{text}"
    return f"RESULT of {name}:\n{text}\n\n{next_}"


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
