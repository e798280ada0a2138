"""A call that an agent made: what it read and wrote, as far as can be seen from its arguments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from interactd.nouns import Json

_OPENED: Final = re.compile(r"""open\(\s*f?["']([^"'\n]+)["']\s*,\s*(?:mode\s*=\s*)?["'](?:[wax]|r\+)""")
_WRITES: Final = re.compile(
    r"""["'](?:[wax]b?|r\+)t?["']|\.write_(?:text|bytes)\(|>|\b(?:cp|mv|tee|touch|sed|shutil|rename|replace|copy|dump)\b"""
)
_BY_SHELL: Final = (
    r"""(?:>>?\s*|\b(?:tee(?: -a)?|touch|mv|cp|sed -i|rename|replace|move|copy\w*)\b[^\n]*?[\s"'(/,])["']?"""
    r"""(?:/workspace/|\./)?(?:[\w-]+/)*{0}(?![\w.])|(?<![\w.-]){0}["']\)?(?:\.write_|\)\.open\(["'][wax])"""
)
_MADE_WITHOUT: Final = ("list_dir", "view_file", "search_files", "url_fetch")


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
        return self.ran and self.output in ("", "(no output)")

    @property
    def ran(self) -> bool:
        """Whether it is a program that ran well."""
        return self.name == "code_execution" and not self.failed

    @property
    def text(self) -> str:
        """The arguments in one string, the same for the same call."""
        return json.dumps(self.arguments, sort_keys=True, default=str, ensure_ascii=False)

    def concerns(self, name: str) -> bool:
        """Whether a file of this name occurs in it."""
        return self.name != "list_dir" and _named(name).search(self.text) is not None

    def reads(self, name: str) -> bool:
        """Whether it showed this file."""
        return self.name == "view_file" and not self.failed and self.concerns(name)

    def writes(self, name: str, *, surely: bool = False) -> bool:
        """Whether it went well and wrote this file, as far as can be seen. `surely` is for a file that was there
        before: that a program names it is not enough."""
        if self.failed or self.name in _MADE_WITHOUT:
            return False
        if self.name != "code_execution":
            return self.concerns(name)
        code = str(self.arguments.get("code", ""))
        base = name.rpartition("/")[2]
        opened = [path.rpartition("/")[2] for path in _OPENED.findall(code)]
        if base in opened or re.search(_BY_SHELL.format(re.escape(base)), code):
            return True
        if opened and surely:
            return False
        return self.concerns(name) and _WRITES.search(code) is not None


def _named(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(name.rpartition('/')[2])}(?!\w)")
