"""Which built-in tools an agent has, by the names its manifest uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from interactd.builtins.code import CodeExecution
from interactd.builtins.files.change import DeleteFile, ReplaceInFile, WriteFile
from interactd.builtins.files.look import ListDir, SearchFiles
from interactd.builtins.files.view import ViewFile
from interactd.builtins.port import BuiltinTool
from interactd.builtins.web import Fetcher, UrlFetch

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "code_execution": ("code_execution",),
    "files": ("delete_file", "list_dir", "replace_in_file", "search_files", "view_file", "write_file"),
    "url_fetch": ("url_fetch",),
}
NAMES: Final = frozenset(name for names in GROUPS.values() for name in names)
OTHER_NAMES: Final[Mapping[str, str]] = {
    "write_file": "write_to_file",
    "replace_in_file": "replace_file_content",
    "url_fetch": "url_context",
}
"""Names that the same tools have in the hosted service: hooks written for it guard ours."""
_SAME: Final[Mapping[str, str]] = {
    **dict.fromkeys(("python", "bash", "shell", "sh", "run", "execute", "exec", "terminal"), "code_execution"),
    **dict.fromkeys(("run_code", "execute_code", "run_python", "python_interpreter", "run_command"), "code_execution"),
    **dict.fromkeys(("read", "read_file", "open_file", "cat", "view"), "view_file"),
    **dict.fromkeys(("write", "write_to_file", "create_file", "save_file", "create"), "write_file"),
    **dict.fromkeys(("edit", "edit_file", "str_replace", "replace", "replace_file_content"), "replace_in_file"),
    **dict.fromkeys(("ls", "list", "list_files", "list_directory"), "list_dir"),
    **dict.fromkeys(("grep", "grep_search", "search", "find"), "search_files"),
    **dict.fromkeys(("rm", "remove_file", "delete"), "delete_file"),
    **dict.fromkeys(("fetch", "web_fetch", "url_context", "browse", "open_url", "http_get"), "url_fetch"),
}


def builtin_tools(groups: Collection[str], fetcher: Fetcher | None = None) -> dict[str, BuiltinTool]:
    """Return the tools of these groups by name, sorted.

    Args:
        groups: names of `GROUPS` or of single tools.
        fetcher: without one there is no url_fetch, whatever the groups say.
    """
    wanted = {name for group in groups for name in GROUPS.get(group, (group,))}
    tools: list[BuiltinTool] = [
        CodeExecution(),
        DeleteFile(),
        ListDir(),
        ReplaceInFile(),
        SearchFiles(),
        ViewFile(),
        WriteFile(),
    ]
    if fetcher is not None:
        tools.append(UrlFetch(fetcher))
    return {tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name) if tool.name in wanted}


def meant(name: str, known: Collection[str]) -> str | None:
    """The tool that a model means by another tool's name, if this agent has it."""
    same = _SAME.get(name.lower().replace("-", "_").rpartition(".")[2])
    return same if same in known else None
