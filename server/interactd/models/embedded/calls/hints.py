"""What a small model is told after a call: what is missing of the task, what its mistake was; and how work is done, by
examples."""

from __future__ import annotations

import re

from interactd.models.embedded.calls.progress import Turn
from interactd.nouns import Step, text_content

_ERROR_LINES = 8
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


def todo(now: Turn) -> str:
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


def last_words(text: str) -> str:
    """Of a traceback a small model needs the line and the error."""
    lines = text.splitlines()
    return text if len(lines) <= _ERROR_LINES else "\n".join(lines[-_ERROR_LINES:])


def advice(text: str) -> str:
    """How the mistake that this error tells of is put right; empty for one that is not known."""
    if missing := re.search(r"No module named '?([\w-]+)", text):
        return f" {missing[1]} is not there and cannot be had; do without it.{_TABLE}"
    for pattern, words in _ADVICE:
        if found := re.search(pattern, text):
            return words.format(*found.groups())
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
