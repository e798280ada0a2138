"""Putting sources into a new workspace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from interactd.errors import InvalidArgument, SandboxFailed
from interactd.nouns import Json
from interactd.sandbox.environments.body import Source
from interactd.sandbox.folder import beneath, trees
from interactd.sandbox.folder.files import Folder
from interactd.sandbox.folder.names import shown
from interactd.sandbox.port import Exit, Limits, Output

FILES_MAX: Final = 200_000
CLONE_S: Final = 600.0
Commands = Callable[[list[str], float], AsyncIterator[Output | Exit]]


def put_files(workspace: Path, source: Source, limits: Limits) -> None:
    """Write an inline source, copy a local one, or make the folder that one is mounted over. Blocking.

    Raises:
        InvalidArgument: it does not fit, or its target is taken by a file.
    """
    folder = Folder(workspace)
    try:
        if source.kind == "inline":
            folder.write(os.fsdecode(source.target), source.content)
        elif source.mount:
            folder.make_folder(os.fsdecode(source.target))
        elif source.folder is not None:
            _copy(folder, source, source.folder, limits)
    finally:
        folder.close()


def _copy(folder: Folder, source: Source, origin: Path, limits: Limits) -> None:
    room = limits.disk_mb << 20
    if origin.is_file():
        data = origin.read_bytes() if origin.stat().st_size <= min(room, limits.file_mb << 20) else None
        if data is None:
            raise _too_much(source, limits)
        folder.write(os.fsdecode(source.target or os.fsencode(origin.name)), data)
        return
    if source.target:
        folder.make_folder(os.fsdecode(source.target))
    into = beneath.open_folder(folder.fd, source.target)
    try:
        opened = Folder(origin)
        try:
            # A copy is there to be worked on; an agent's own `sources/` is kept read-only.
            trees.copy(opened.fd, into, max_bytes=room, max_files=FILES_MAX, link_ok=_stays_inside, writable=True)
        except ValueError:
            raise _too_much(source, limits) from None
        finally:
            opened.close()
    finally:
        os.close(into)


def _stays_inside(path: bytes, to: bytes) -> bool:
    """Whether a link in a copied folder points to something that is copied too."""
    if to.startswith(b"/"):
        return False
    depth = path.count(b"/")
    for part in to.split(b"/"):
        depth += {b"..": -1, b".": 0, b"": 0}.get(part, 1)
        if depth < 0:
            return False
    return True


def _too_much(source: Source, limits: Limits) -> InvalidArgument:
    return InvalidArgument(
        f"environment.sources: {source.folder} does not fit: the workspace takes {limits.disk_mb} MB and"
        f" {FILES_MAX} files, a single file {limits.file_mb} MB",
        repair="Name a smaller folder, raise environment.limits.disk_mb, or mount it.",
        field="environment.sources",
    )


def network_for(source: Source, network: Json | None) -> Json:
    """Return what a clone may reach: what the environment may, and the repository's own host, which was named."""
    parts = urlsplit(source.url)
    host = (parts.hostname or "").lower() + (f":{parts.port}" if parts.port not in (None, 443) else "")
    listed: list[Json | str] = list((network or {}).get("allowlist") or [])
    named = {str(entry if isinstance(entry, str) else entry.get("domain")).lower() for entry in listed}
    return {"allowlist": listed if host in named else [*listed, {"domain": host}]}


async def clone(source: Source, commands: Commands) -> None:
    """Clone a repository by a command in the environment's own sandbox: its hooks, filters and config can only reach
    what the sandbox can.

    Raises:
        InvalidArgument: git said no; its words are in the message.
    """
    target = os.fsdecode(b"/workspace/" + source.target if source.target else b"/workspace")
    git = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "-c", "protocol.https.allow=always"]
    steps = [[*git, "clone", "--quiet", "--no-recurse-submodules", "--", source.url, target]]
    if source.ref is not None:
        steps.append([*git, "-C", target, "checkout", "--quiet", source.ref, "--"])
    for argv in steps:
        said = bytearray()
        last: Exit | None = None
        async for item in commands(argv, CLONE_S):
            if isinstance(item, Exit):
                last = item
            else:
                said += item.data[: 4000 - len(said)]
        if last is None or last.why != "exit":
            raise SandboxFailed(f"cloning {source.url} did not finish: {last.why if last else 'no answer'}")
        if last.code != 0:
            words = " ".join(said.decode(errors="replace").split())[-600:]
            raise InvalidArgument(
                f"environment.sources: {source.url} could not be cloned to {shown(source.target) or '.'}: {words}",
                repair="Check the address; for a private repository list its host with a credential in network.",
                field="environment.sources",
            )


async def in_thread(workspace: Path, source: Source, limits: Limits) -> None:
    """`put_files` on a worker thread."""
    await asyncio.to_thread(put_files, workspace, source, limits)
