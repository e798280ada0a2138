"""Where a path of the model's points: into the workspace, or into the agent's own folder (read only)."""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from interactd.builtins.port import ToolContext
from interactd.errors import InvalidArgument, NotFound
from interactd.nouns import Json

_ROOTS: Final = {"/workspace": "workspace", "/agent": "agent"}
MAX_AGENT_FILE: Final = 4 * 1024 * 1024
MAX_ENTRIES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is relative to the root, `.` for the root itself."""

    root: Literal["workspace", "agent"]
    path: str

    @property
    def shown(self) -> str:
        return self.path if self.root == "workspace" else posixpath.normpath(f"/agent/{self.path}")


def place_of(given: str, *, write: bool = False) -> Place:
    """Read a path as the model writes it: relative to /workspace, or absolute under /workspace or /agent.

    Raises:
        InvalidArgument: it is empty, leaves both folders, or is to be written and not in the workspace.
    """
    text = given.strip() if given.strip() else ""
    text = text.removeprefix("file://")
    if not text or "\0" in text:
        raise InvalidArgument("The path is empty.", repair='Give a path such as "notes.txt".', field="path")
    if text.startswith("~/"):
        raise InvalidArgument(
            f"{given[:200]!r} is not in /workspace.", repair="Use a path relative to /workspace.", field="path"
        )
    whole = posixpath.normpath(posixpath.join("/workspace", text))
    for folder, root in _ROOTS.items():
        if whole == folder or whole.startswith(folder + "/"):
            inner = whole[len(folder) + 1 :] or "."
            if root == "agent" and write:
                raise InvalidArgument(
                    "/agent is read-only.", repair="Write to a path in /workspace instead.", field="path"
                )
            return Place("agent" if root == "agent" else "workspace", inner)
    raise InvalidArgument(
        f"{given[:200]!r} is not in /workspace.",
        repair="The file tools reach /workspace and, to read, /agent. For other places use code_execution with bash.",
        field="path",
    )


async def read_place(place: Place, ctx: ToolContext, *, offset: int = 0, limit: int = 1_000_000) -> bytes:
    """Bytes of a regular file.

    Raises:
        NotFound, InvalidArgument: no such file, or no regular one.
    """
    if place.root == "workspace":
        return await ctx.workspace.read(place.path, offset=offset, limit=limit)
    return await asyncio.to_thread(_read_agent, ctx.agent_folder, place, offset, limit)


async def list_place(place: Place, ctx: ToolContext, *, recursive: bool, limit: int) -> list[Json]:
    """Entries as `Workspace.list` gives them, sorted by path."""
    if place.root == "workspace":
        entries = await ctx.workspace.list(place.path, recursive=recursive, limit=limit)
    else:
        entries = await asyncio.to_thread(_list_agent, ctx.agent_folder, place, recursive, limit)
    return sorted(entries, key=lambda entry: str(entry["path"]))


def _inside(folder: Path | None, place: Place) -> Path:
    """The host path of something in the agent's folder; a link that leads out of it leads nowhere."""
    root = None if folder is None else Path(os.path.realpath(folder))
    found = None if root is None else Path(os.path.realpath(root / place.path))
    if root is None or found is None or not (found == root or root in found.parents) or not found.exists():
        raise NotFound(
            f"There is no {place.shown}.", repair="list_dir shows what is in a folder.", kind="file", id=place.shown
        )
    return found


def _read_agent(folder: Path | None, place: Place, offset: int, limit: int) -> bytes:
    found = _inside(folder, place)
    if not found.is_file():
        raise InvalidArgument(f"{place.shown} is a folder.", repair="Use list_dir for folders.", field="path")
    with found.open("rb") as file:
        file.seek(offset)
        return file.read(min(limit, MAX_AGENT_FILE))


def _list_agent(folder: Path | None, place: Place, recursive: bool, limit: int) -> list[Json]:
    found = _inside(folder, place)
    if not found.is_dir():
        raise InvalidArgument(f"{place.shown} is a file.", repair="Use view_file for files.", field="path")
    entries: list[Json] = []
    for one in sorted(found.rglob("*") if recursive else found.iterdir()):
        kind = "link" if one.is_symlink() else "directory" if one.is_dir() else "file" if one.is_file() else "other"
        size = one.stat().st_size if kind == "file" else 0
        entries.append(
            {"path": f"/agent/{one.relative_to(Path(os.path.realpath(str(folder))))}", "type": kind, "size_bytes": size}
        )
        if len(entries) >= min(limit, MAX_ENTRIES):
            break
    return entries
