"""Long output: its head and its tail, and a file in the workspace with all of it."""

from __future__ import annotations

import re
from typing import Final

from interactd.builtins.port import ToolContext
from interactd.errors import InteractdError

MAX_CHARS: Final = 12_000
"""About 3,000 tokens: what one result may cost the conversation."""
FOLDER: Final = ".outputs"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")


def head_and_tail(text: str, limit: int, note: str) -> str:
    """Return at most about `limit` characters: two thirds from the start, one third from the end, `note` between."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    first, last = text[:head], text[-tail:]
    # At a line's end where one is near, so that no half line is taken for a whole one.
    if (cut := first.rfind("\n")) > head * 3 // 4:
        first = first[: cut + 1]
    if 0 <= (cut := last.find("\n")) < tail // 4:
        last = last[cut + 1 :]
    left = len(text) - len(first) - len(last)
    return f"{first.rstrip(chr(10))}\n[... {left:,} characters left out. {note} ...]\n{last}"


async def clamped(text: str, ctx: ToolContext, *, limit: int = MAX_CHARS, whole: bool = True) -> str:
    """Return the text, cut if it is long; it is then kept in a file of the workspace, and the cut says where.

    Args:
        text: what to cut.
        ctx: whose workspace.
        limit: in characters.
        whole: whether the text is all there was; the cut does not promise more than there is.
    """
    if len(text) <= limit:
        return text
    path = f"{FOLDER}/{_UNSAFE.sub('_', ctx.call_id)[-48:] or 'output'}.txt"
    try:
        await ctx.workspace.write(path, text.encode("utf-8", "replace"))
    except InteractdError as error:
        return head_and_tail(text, limit, f"It could not be kept in a file: {error.message}")
    what = "All of it" if whole else "More of it, but not its middle,"
    return head_and_tail(text, limit, f"{what} is in {path}: use view_file with start_line, or search_files")
