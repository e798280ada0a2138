"""Tools of an agent for models too small for JSON: one keyword a reply, code and files in Markdown fences.

`RUN` and a fenced program, `WRITE path` and a fenced file, `READ path`, `LIST`, or `ANSWER` and the text; held by a
grammar,
so that nothing else can be written. It stands for the built-in tools that an agent has; functions of the caller's
keep the form of `protocol`. When the model repeats itself, or has called often enough, only ANSWER is left to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interactd.models.embedded.calls import protocol
from interactd.models.embedded.calls.gbnf import literal
from interactd.nouns import Json, Step

MAX_CALLS = 10
"""Calls in one turn after which the model must answer: a small one has lost the thread by then."""
_INSTRUCTIONS = 1_200
_CLIPPED = 600
_LANGUAGES = {"python": "python", "bash": "bash", "sh": "bash"}
_FENCED = re.compile(r"```[a-z]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_LINE = r'line ::= ([^`\n] [^\n]* | "`" ([^`\n] [^\n]*)? | "``" ([^`\n] [^\n]*)?)? "\n"'
_PATH = r"path ::= [A-Za-z0-9_./-]{1,120}"

_HOW = """You work in the folder /workspace. The first word of each reply is one of {words}.

RUN runs a program. Use print() to see a value. Use only Python's standard library.
RUN
```python
total = 2 + 3
with open("total.txt", "w") as f:
    f.write(str(total))
print(total)
```
{others}
ANSWER ends the work. Say the result in one sentence.
ANSWER
The total is 5. It is in total.txt.

Do what the user asks, with the exact file names and texts of the task. Compute with RUN, never in your head.
If RUN shows an error, correct the program and RUN it again. When the task is done, ANSWER."""

_OTHERS = {
    "write_file": ("WRITE", "WRITE makes a file.\nWRITE notes.txt\n```\nfirst line\n```"),
    "view_file": ("READ", "READ shows a file.\nREAD notes.txt"),
    "list_dir": ("LIST", "LIST shows the files there are.\nLIST"),
    "url_fetch": ("FETCH", "FETCH reads a web page.\nFETCH https://example.org/"),
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
    made = _calls_of_this_turn(steps)
    options = [rf"{literal(ANSWER)} [^\n] [\x09\x0A\x0D\x20-\U0010FFFF]*"]
    rules = [_LINE, _PATH]
    if not must_answer(made):
        fence = literal("```\n")
        calls = [f'"RUN\\n```" ("python" | "bash") "\\n" line+ {literal("```")}']
        if "write_file" in names:
            calls.append(f'"WRITE " path "\\n" {fence} line+ {literal("```")}')
        if "view_file" in names:
            calls.append('"READ " path')
        if "list_dir" in names:
            calls.append('"LIST"')
        if "url_fetch" in names:
            calls.append(r'"FETCH http" "s"? "://" [!-~]{1,200}')
        options = [*calls, *(options if choice == "auto" or made else [])]
    return "\n".join([f"root ::= {' | '.join(options)}", *rules]) + "\n"


ANSWER = protocol.ANSWER


def must_answer(made: Sequence[tuple[str, str, bool]]) -> bool:
    """Whether calls have come to nothing new: the same one twice in a row without an error, or too many."""
    if len(made) >= MAX_CALLS:
        return True
    if len(made) >= 2 and made[-1][:2] == made[-2][:2] and not made[-1][2]:
        return True
    return len(made) >= 3 and made[-1][:2] == made[-2][:2] == made[-3][:2]


def _calls_of_this_turn(steps: Sequence[Step]) -> list[tuple[str, str, bool]]:
    failed = {str(step.body.get("call_id")): bool(step.body.get("is_error")) for step in steps}
    made: list[tuple[str, str, bool]] = []
    for step in steps:
        if step.type == "user_input":
            made.clear()
        elif step.type == "function_call":
            arguments = json.dumps(step.body.get("arguments"), sort_keys=True, default=str)
            made.append((str(step.body.get("name")), arguments, failed.get(str(step.body.get("id")), False)))
    return made


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


def render_result(step: Step) -> str:
    """Return a result with what to do next: small models do not find that out by themselves."""
    words = {
        "code_execution": "RUN",
        "write_file": "WRITE",
        "view_file": "READ",
        "list_dir": "LIST",
        "url_fetch": "FETCH",
    }
    name = words.get(str(step.body.get("name")), "the call")
    text = protocol.render_result(step).partition("\n")[2]
    if step.body.get("is_error"):
        return f"ERROR of {name}:\n{text}\n\nCorrect the mistake and try again.{_advice(text)}"
    if name == "RUN" and text.strip() == "(no output)":
        return "RESULT of RUN: it ran without an error and printed nothing.\n\nIf the task is done, ANSWER."
    done = "If the task is done, ANSWER with this result." if name == "RUN" else "If the task is done, ANSWER."
    return f"RESULT of {name}:\n{text}\n\n{done}"


def _advice(text: str) -> str:
    if "ModuleNotFoundError" in text or "No module named" in text:
        return " That module is not there: use Python's standard library only (csv, json, math, re)."
    if "FileNotFoundError" in text:
        return " LIST shows which files there are."
    return ""


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
