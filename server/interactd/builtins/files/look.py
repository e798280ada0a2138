"""list_dir and search_files."""

from __future__ import annotations

from typing import Any, Final

from interactd.builtins.declare import declare
from interactd.builtins.files.places import path_of
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.nouns import Json

MAX_LISTED: Final = 300
MAX_HITS: Final = 100
MAX_LINE: Final = 300


class ListDir:
    name = "list_dir"
    replay: Replay = "safe"
    parallel = True
    declaration = declare(
        "list_dir",
        "List a folder: names and sizes.",
        {"path": {"type": "string", "description": "default: /workspace"}, "recursive": {"type": "boolean"}},
        required=(),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments.get("path") or ".")
        recursive = bool(arguments.get("recursive"))
        entries = await ctx.workspace.list(path, recursive=recursive, limit=MAX_LISTED + 1)
        if not entries:
            return Outcome(f"{'/workspace' if path == '.' else path} is empty.")
        lines = [_entry(entry) for entry in sorted(entries, key=_name)[:MAX_LISTED]]
        if len(entries) > MAX_LISTED:
            lines.append(f"[Only the first {MAX_LISTED} are shown. Look into single folders, or use code_execution.]")
        return Outcome("\n".join(lines))


class SearchFiles:
    name = "search_files"
    replay: Replay = "safe"
    parallel = True
    declaration = declare(
        "search_files",
        "Find the lines that match a regular expression in a file or in all files of a folder.",
        {"pattern": {"type": "string"}, "path": {"type": "string", "description": "default: /workspace"}},
        required=("pattern",),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments.get("path") or ".")
        if not arguments["pattern"]:
            return Outcome("The pattern is empty.", is_error=True)
        hits = await ctx.workspace.search(arguments["pattern"], path, limit=MAX_HITS + 1)
        if not hits:
            return Outcome("Nothing matches.")
        lines = [f"{visible(str(hit['path']))}:{hit['line']}: {_short(str(hit['text']))}" for hit in hits[:MAX_HITS]]
        if len(hits) > MAX_HITS:
            lines.append(f"[Only the first {MAX_HITS} are shown. Search more narrowly.]")
        return Outcome("\n".join(lines))


def visible(name: str) -> str:
    """A name on one line: what cannot be printed is escaped, so that no file name can look like two."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _name(entry: Json) -> str:
    return str(entry["path"])


def _entry(entry: Json) -> str:
    name = visible(str(entry["path"]))
    if entry["type"] == "directory":
        return f"{name}/"
    if entry["type"] == "file":
        return f"{name}  {int(entry.get('size_bytes') or 0):,} bytes"
    return f"{name}  ({entry['type']})"


def _short(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} [...]"
