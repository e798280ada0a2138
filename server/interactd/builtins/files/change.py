"""write_file, replace_in_file, delete_file."""

from __future__ import annotations

import difflib
from typing import Any, Final

from interactd.builtins.declare import declare
from interactd.builtins.files.places import path_of
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.errors import NotFound

MAX_EDIT: Final = 8 * 1024 * 1024
_SHOWN: Final = 600


class WriteFile:
    """Whole files only. Writing the same again does no harm, so it is safe to repeat."""

    name = "write_file"
    replay: Replay = "safe"
    parallel = False
    declaration = declare(
        "write_file",
        "Write a whole text file; folders are made as needed, an existing file is replaced.",
        {"path": {"type": "string"}, "content": {"type": "string"}},
        required=(
            "path",
            "content",
        ),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments["path"])
        data = arguments["content"].encode()
        await ctx.workspace.write(path, data)
        lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
        return Outcome(f"Wrote {path}: {lines} lines, {len(data):,} bytes.")


class ReplaceInFile:
    """An exact piece of text that occurs once is put in place of itself; anything else is explained."""

    name = "replace_in_file"
    replay: Replay = "never"
    parallel = False
    declaration = declare(
        "replace_in_file",
        "Replace one exact piece of text in a file. old_string must occur exactly once, unless replace_all is true.",
        {
            "path": {"type": "string"},
            "old_string": {"type": "string"},
            "new_string": {"type": "string"},
            "replace_all": {"type": "boolean"},
        },
        required=(
            "path",
            "old_string",
            "new_string",
        ),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments["path"])
        old, new = arguments["old_string"], arguments["new_string"]
        if not old:
            return Outcome("old_string is empty. To write a whole file use write_file.", is_error=True)
        if old == new:
            return Outcome("old_string and new_string are the same: nothing to do.", is_error=True)
        data = await ctx.workspace.read(path, limit=MAX_EDIT + 1)
        if len(data) > MAX_EDIT:
            return Outcome("The file is too large to edit so. Use code_execution.", is_error=True)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return Outcome(f"{path} is not UTF-8 text. Use code_execution to change it.", is_error=True)
        if "\r\n" in text and "\r" not in old:
            # Models write \n; the file's own line ends stay.
            old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
        found = text.count(old)
        if found == 0:
            return Outcome(_missing(path, text, old), is_error=True)
        if found > 1 and not arguments.get("replace_all"):
            lines = ", ".join(map(str, _lines_of(text, old)[:10]))
            return Outcome(
                f"old_string occurs {found} times in {path} (lines {lines}). Give more of the text around the "
                "one you mean, or set replace_all to true.",
                is_error=True,
            )
        await ctx.workspace.write(path, text.replace(old, new).encode())
        where = _lines_of(text, old)
        return Outcome(f"Replaced {found} in {path} (line {', '.join(map(str, where[:10]))}).")


class DeleteFile:
    name = "delete_file"
    replay: Replay = "never"
    parallel = False
    declaration = declare(
        "delete_file", "Delete a file or an empty folder.", {"path": {"type": "string"}}, required=("path",)
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments["path"])
        if path == ".":
            return Outcome("/workspace itself cannot be deleted.", is_error=True)
        try:
            await ctx.workspace.delete(path)
        except NotFound:
            return Outcome(f"There is no {path}: nothing was deleted.", is_error=True)
        return Outcome(f"Deleted {path}.")


def _lines_of(text: str, piece: str) -> list[int]:
    """Numbers of the lines in which the piece begins."""
    found: list[int] = []
    at = text.find(piece)
    while at >= 0 and len(found) < 100:
        found.append(text.count("\n", 0, at) + 1)
        at = text.find(piece, at + len(piece))
    return found


def _missing(path: str, text: str, old: str) -> str:
    """Say that it is not there, and show what comes nearest."""
    lines, wanted = text.splitlines(), old.splitlines() or [old]
    stripped = [line.strip() for line in lines]
    goal = [line.strip() for line in wanted]
    for at in range(len(lines) - len(goal) + 1):
        if stripped[at : at + len(goal)] == goal:
            there = "\n".join(lines[at : at + len(goal)])[:_SHOWN]
            return (
                f"old_string is not in {path}, but the same words with other white space are at line {at + 1}:\n"
                f"{there}\nCopy it exactly, without line numbers."
            )
    longest = max(goal, key=len)
    near = difflib.get_close_matches(longest, stripped[:20_000], n=1, cutoff=0.6) if longest else []
    if near:
        at = stripped.index(near[0])
        there = "\n".join(lines[max(0, at - 1) : at + 2])[:_SHOWN]
        return f"old_string is not in {path}. The nearest is at line {at + 1}:\n{there}\nCopy what you replace exactly."
    return f"old_string is not in {path}. Use view_file and copy what you replace exactly, without line numbers."
