"""Where a path of the model's points."""

from __future__ import annotations

import posixpath
from typing import Final

from interactd.errors import InvalidArgument

ROOT: Final = "/workspace"


def path_of(given: str) -> str:
    """Read a path as models write it: relative to /workspace, or absolute.

    Returns:
        A path relative to /workspace, `.` for the folder itself; absolute for anything else, such as what is mounted
        at /agent. Which of those can be reached is the workspace's to say.

    Raises:
        InvalidArgument: it is empty, or leaves /workspace by `..`.
    """
    text = given.strip().removeprefix("file://")
    if not text or "\0" in text:
        raise InvalidArgument("The path is empty.", repair='Give a path such as "notes.txt".', field="path")
    if text.startswith("~"):
        raise _outside(given)
    whole = posixpath.normpath(posixpath.join(ROOT, text))
    whole = "/" + whole.lstrip("/")
    if whole == ROOT or whole.startswith(ROOT + "/"):
        return whole[len(ROOT) + 1 :] or "."
    if not text.startswith("/"):
        raise _outside(given)
    return whole


def _outside(given: str) -> InvalidArgument:
    return InvalidArgument(
        f"{given[:200]!r} is not in /workspace.",
        repair="Use a path relative to /workspace. For other places use code_execution with bash.",
        field="path",
    )
