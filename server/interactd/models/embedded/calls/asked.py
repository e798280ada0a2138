"""What the words of a task plainly ask for: files to read, to make, to change or to delete, something computed, a look
at what was made.

Only words of English that stand for a whole kind of task are looked for; nothing here knows a task. Words can mislead,
so what follows from them (see `progress`) is never more than an order of steps, and ends after a few calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_READ: Final = 6_000
_MENTIONS: Final = 40
_BEFORE: Final = 300
"""Characters: of a task that is looked at, and before a file's name."""
_URL: Final = re.compile(r"https?://\S+")
_FILE: Final = re.compile(r"(?<![\w./@-])(?:/workspace/|\./)?((?:[\w-]+/)*[\w-]*\w\.[A-Za-z]\w{0,5})(?![\w/@])")
_NO_FILES: Final = frozenset({"e.g", "i.e", "a.m", "p.m"})
_SOURCE: Final = re.compile(r"\.(py|sh|js|ts|html?|css|md|c|go|rs|java)$", re.IGNORECASE)
_PROGRAM: Final = re.compile(r"\.(py|sh)$", re.IGNORECASE)
_QUOTED: Final = re.compile(r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)|`[^`\n]*`")

_BETWEEN: Final = re.compile(
    r"(?:(?:the|a|an|its|my|this|new|empty|small|short|text|plain|csv|json|python|bash|shell|markdown|file|files|script"
    r"|program|document|table|list|copy|it|them|that|is|named|name|under|path)\W+)*$",
    re.IGNORECASE,
)
"""What may stand between a file's name and the word that says what becomes of it."""
_MADE_BY: Final = re.compile(
    r"\b(?:to|into|as|onto|named|called|call|mak(?:e|es|ing)|creat(?:e|es|ing)|writ(?:e|es|ing)|produc(?:e|es|ing)"
    r"|generat(?:e|es|ing)|sav(?:e|es|ing)|put|need|want|build|prepare|export|output|add)\W*$",
    re.IGNORECASE,
)
_WITH: Final = re.compile(r"\b(?:with|containing|contains|holds|holding)\W*$", re.IGNORECASE)
_IN: Final = re.compile(r"\b(?:in|inside|within|at|under|the (?:file|name))\W*$", re.IGNORECASE)
_VERB: Final = re.compile(
    r"(?<!\bthe )(?<!\ba )\b(?P<store>writ|sav|stor|put|plac|record|keep|output|dump|log\b|creat|make)"
    r"|(?<!\bthe )(?<!\ba )\b(?P<other>read|open|find|count|sort|replac|chang|edit|correct|fix|updat|renam|swap|tell"
    r"|which|what|who|where|is\b|are\b|how|sum|add|comput|calculat|convert|copy|use|list|show|print|search|append)",
    re.IGNORECASE,
)
_CHANGED: Final = re.compile(
    r"\b(edit|chang|updat|fix|correct|replac|renam|substitut|swap|add(?!\w| up| together)|append|insert|remov|delet)",
    re.IGNORECASE,
)
_GONE: Final = re.compile(r"\b(?:delete|deletes|remove|removes|erase|erases|rm)\W*$", re.IGNORECASE)
_COMPUTED: Final = re.compile(
    r"\b(comput|calculat|count|how many|how much|how long|how often|number of|sum\b|sums\b|add up|total|average|mean\b"
    r"|median|sort|order\b|ordered|revers|backward|convert|transform|copy|copies|move|moves|duplicat|replac|chang|renam|filter|remov"
    r"|delet|merg|split|append|extract|largest|smallest|longest|shortest|biggest|highest|lowest|greatest|most\b|least\b"
    r"|oldest|newest|cheapest|maximum|minimum|max\b|min\b|multipl|divid|remainder|modulo|square|cube|root|power|factorial"
    r"|fibonacci|primes?\b|percent|differen|unique|distinct|upper ?-?case|lower ?-?case|capital|first \d+|last \d+"
    r"|\d+ (?:to|through) \d+|between \d+|below \d+|up to \d+|under \d+|python|bash|shell|script|program|code\b|run\b"
    r"|execut|work out|worked out|find out|\d+ ?[-+*/^] ?\d+|all (?:the )?\w+ (?:numbers|below|between|from))",
    re.IGNORECASE,
)
_ACTS: Final = re.compile(
    r"\b(write|creat|make|save|store|put|add|read|show|open|print|view|look|list|edit|chang|updat|fix|correct|use|delet"
    r"|remov|need|which|who|what|tell|file|folder|(in|of|from|to|into|does|is) \S+\.\w)",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(
    r"\b(how many|how much|count\b|number of|sum of|total|average|mean of|product of|factorial|remainder)",
    re.IGNORECASE,
)
_FIRST: Final = re.compile(
    r"\b(?:first|last|next|top) (\d{1,3})\b(?! \w*(?:lines|rows|characters|letters))", re.IGNORECASE
)
_SEVERAL: Final = re.compile(r"\b(each|every|per)\b", re.IGNORECASE)
_LOOK: Final = re.compile(
    r"\b(read|re-read|show|shows|print|display|view|open|check|double-check|verify|confirm|look|inspect"
    r"|what (?:it|the file) (?:says|holds|contains)|tell me (?:what|its))\b",
    re.IGNORECASE,
)
_LINES: Final = re.compile(
    r"\b(?:per line|(?:each|every|own|separate|single|new|different)\b[^.]{0,24}\blines?\b|line of (?:its|their) own"
    r"|line by line|(?:two|three|four|five|six|seven|eight|nine|ten|\d+) lines)",
    re.IGNORECASE,
)
_ON_LINES: Final = re.compile(r"\b(?:one|each|every)\b[^.]{0,40}\b(?:on|per|in)\b[^.]{0,12}\blines?\b", re.IGNORECASE)
_RUNS: Final = re.compile(r"\b(run|runs|running|execute|executes|launch|start)\b", re.IGNORECASE)
_FOLDER: Final = (
    re.compile(
        r"\b(?:folder|directory|subfolder|subdirectory)\s+(?:(?:called|named|with the name)\s+)?[\"'`]?([\w/-]+\w)",
        re.IGNORECASE,
    ),
    re.compile(r"\b([\w/-]*\w)[\"'`]?\s+(?:folder|directory)\b", re.IGNORECASE),
)
_NO_FOLDERS: Final = frozenset(
    # Words that stand before or after "folder" and are not its name.
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "current",
        "same",
        "new",
        "my",
        "your",
        "its",
        "working",
        "workspace",
        "called",
        "named",
        "with",
        "and",
        "in",
        "into",
        "for",
        "of",
        "to",
        "inside",
        "using",
        "where",
        "which",
        "is",
        "has",
        "contains",
        "at",
        "on",
        "empty",
        "small",
        "single",
        "one",
        "root",
        "home",
        "parent",
        "whole",
        "temporary",
    ]
)
_MAKES_FOLDER: Final = re.compile(
    r"\b(mak|creat|mkdir|new|add|set up)\w*\b[^.]{0,30}\b(folder|director|subfolder|subdirector)", re.IGNORECASE
)
_SHELL: Final = re.compile(r"\b(bash|shell|python|script|program|code)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a task asks for, as far as its words say."""

    files: list[str] = field(default_factory=list[str])
    """Names of files in it, in its order, without the workspace's own path."""
    made: list[str] = field(default_factory=list[str])
    """Those that are to be made."""
    changed: list[str] = field(default_factory=list[str])
    """Those that are there and are to be changed in place."""
    deleted: list[str] = field(default_factory=list[str])
    folder: str | None = None
    """A folder that is to be made, and to hold what is made."""
    computes: bool = False
    """Whether it asks for what only a program finds out."""
    acts: bool = False
    """Whether it asks for anything to be done at all."""
    number: bool = False
    """Whether what it asks for is a number."""
    lines: bool = False
    """Whether what is made is to have several lines."""
    count: int | None = None
    """How many lines what is made is to have, where it says so."""
    empty: bool = False
    """Whether what is made is to hold nothing."""
    looks: bool = False
    """Whether a file is to be looked at once it is made."""
    runs: list[str] = field(default_factory=list[str])
    """Programs to be made that are to be run, too."""
    by_program: bool = False
    """Whether it names a language, or a program."""

    @property
    def read(self) -> list[str]:
        """Files that are only to be read."""
        return [name for name in self.files if name not in (*self.made, *self.changed, *self.deleted)]

    @property
    def source(self) -> bool:
        """Whether a file is to be made that is itself a program or a page."""
        return any(_SOURCE.search(name) for name in self.made)


def asked(task: str) -> Asked:
    """Read a task."""
    if len(task) > _READ:
        # What is asked for stands at the beginning or at the end; between them is what it is about.
        task = f"{task[: _READ // 2]}\n{task[-_READ // 2 :]}"
    text = _URL.sub(" ", task)
    mentions = [found for found in _FILE.finditer(text) if found[1].lower() not in _NO_FILES][:_MENTIONS]
    files = list(dict.fromkeys(found[1] for found in mentions))
    gone = [found[1] for found in mentions if _before(text, found, _GONE)]
    verbs = _QUOTED.sub(" ", text)
    folder = _folder(text) if _MAKES_FOLDER.search(verbs) else None
    made = [
        found[1]
        for found in mentions
        if found[1] not in gone and (_is_made(text, found) or (folder and _before(text, found, _WITH)))
    ]
    made = list(dict.fromkeys(made))
    changed = [] if made or not _CHANGED.search(verbs) else [name for name in files if name not in gone]
    last = max((found.end() for found in mentions if found[1] in (*made, *changed)), default=None)
    first = min((found.end() for found in mentions if found[1] in (*made, *changed)), default=None)
    rest = "" if first is None else text[first:]
    words = _FILE.sub(" ", verbs)
    return Asked(
        files=files,
        made=made,
        changed=changed,
        deleted=list(dict.fromkeys(gone)),
        folder=folder,
        computes=_COMPUTED.search(words) is not None,
        acts=bool(_COMPUTED.search(words) or folder or (files and _ACTS.search(text))),
        number=_NUMBER.search(words) is not None and not _SEVERAL.search(words),
        lines=bool(made and (_LINES.search(words) or _ON_LINES.search(words))),
        count=int(found[1]) if (found := _FIRST.search(words)) else None,
        empty=bool(made and re.search(r"\bempty\b(?: \w+)? file", words, re.IGNORECASE)),
        looks=last is not None and _LOOK.search(rest) is not None,
        runs=[name for name in made if _PROGRAM.search(name) and _RUNS.search(_FILE.sub(" ", text))],
        by_program=_SHELL.search(words) is not None,
    )


def _before(text: str, found: re.Match[str], wanted: re.Pattern[str]) -> bool:
    """Whether the word that governs a file's name is one of these."""
    return wanted.search(_BETWEEN.sub("", _head(text, found))) is not None


def _head(text: str, found: re.Match[str]) -> str:
    """What stands before a file's name, as far back as it matters."""
    return text[max(0, found.start() - _BEFORE) : found.start()]


def _is_made(text: str, found: re.Match[str]) -> bool:
    head = _head(text, found)
    whole = head.rstrip("\"'`( ")
    if re.search(r"\b(?:called|named|call it|name it)\W*$", whole, re.IGNORECASE):
        return True
    if _before(text, found, _MADE_BY):
        # "add the line x to list.txt" changes a file that is there.
        return not re.search(r"\b(?:add(?! up)|append|insert)\b[^.]*\b(?:to|into)\b[^.]*$", whole, re.IGNORECASE)
    if not _before(text, found, _IN):
        return False
    sentence = re.split(r"[.;:!?]\s", head)[-1]
    verbs = [verb.lastgroup for verb in _VERB.finditer(_QUOTED.sub(" ", sentence))]
    return bool(verbs) and verbs[-1] == "store"


def _folder(text: str) -> str | None:
    for pattern in _FOLDER:
        for found in pattern.finditer(text):
            if found[1].lower() not in _NO_FOLDERS:
                return found[1]
    return None
