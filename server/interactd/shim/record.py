"""`state/daemon.json`: who the daemon is, and the newest executable that ever was one. Written by the daemon only."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from interactd.paths import Paths


def path(paths: Paths) -> str:
    """Return where the record is kept."""
    return os.path.join(paths.state_dir, "daemon.json")


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in `text`, or None when there is none."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]


def read(paths: Paths) -> dict[str, Any]:
    """Return the record, or an empty one when there is none that can be read. It may be about a daemon long gone:
    only the lock says whether one lives."""
    try:
        with open(path(paths), encoding="utf-8") as file:
            return json_object(file.read()) or {}
    except (OSError, ValueError):
        return {}


def write(paths: Paths, fields: dict[str, Any]) -> None:
    """Replace the record in one step, 0600. Only the holder of the lock may call this."""
    target = path(paths)
    draft = f"{target}.new"  # one name, so that processes that die here leave one file at most
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(fields, file, indent=1)
            file.write("\n")
        os.replace(draft, target)
    except OSError:
        os.unlink(draft)
        raise


def version_key(text: str) -> tuple[tuple[int, ...], int, int]:
    """Return a key that orders versions as PEP 440 does, as far as ours go: 1.0.dev1 < 1.0a1 < 1.0rc2 < 1.0 < 1.0.1."""
    text = text.strip().lower().partition("+")[0]
    release: list[int] = []
    rest = text
    while rest and rest[0].isdigit():
        digits = len(rest) - len(rest.lstrip("0123456789"))
        release.append(int(rest[:digits]))
        rest = rest[digits:]
        if not rest.startswith(".") or not rest[1:2].isdigit():
            break
        rest = rest[1:]
    while release and release[-1] == 0:
        release.pop()
    rest = rest.lstrip(".-_")
    stage = 0
    for rank, names in ((-4, ("dev",)), (-3, ("alpha", "a")), (-2, ("beta", "b")), (-1, ("rc", "c")), (1, ("post",))):
        if rest.startswith(names):
            stage = rank
            break
    number = "".join(character for character in rest if character.isdigit())[:9]
    return tuple(release), stage, int(number or 0)


def newest(paths: Paths, version: str, command: list[str]) -> tuple[str, list[str]]:
    """Return the version and command line to start a daemon with: ours, unless a newer one is on record and there.

    Two installed versions would otherwise replace each other's daemon for ever.
    """
    kept: Any = read(paths).get("newest")
    if not isinstance(kept, dict):
        return version, command
    fields: dict[str, Any] = kept  # pyright: ignore[reportUnknownVariableType]
    their_version, their_command = fields.get("version"), fields.get("command")
    if not isinstance(their_version, str) or not isinstance(their_command, list) or not their_command:
        return version, command
    theirs = [str(part) for part in their_command]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if theirs != command and version_key(their_version) > version_key(version) and os.access(theirs[0], os.X_OK):
        return their_version, theirs
    return version, command
