"""view_file: text with line numbers, or a picture."""

from __future__ import annotations

import base64
from typing import Any, Final

from interactd.builtins.declare import declare
from interactd.builtins.files.places import path_of
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.nouns import Json, text_content

MAX_CHARS: Final = 12_000
MAX_LINES: Final = 400
MAX_LINE: Final = 2_000
MAX_IMAGE: Final = 4 * 1024 * 1024
MAX_TEXT: Final = 64 * 1024 * 1024
_CHUNK: Final = 1_000_000
_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class ViewFile:
    """Reads in ranges, so that a large file costs what is looked at."""

    name = "view_file"
    replay: Replay = "safe"
    parallel = True
    declaration = declare(
        "view_file",
        "Read a text file with line numbers, or look at an image.",
        {
            "path": {"type": "string"},
            "start_line": {"type": "integer", "description": "first line, from 1"},
            "end_line": {"type": "integer"},
        },
        required=("path",),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        path = path_of(arguments["path"])
        first = await ctx.workspace.read(path, limit=_CHUNK)
        if mime := picture(first):
            return await _picture(path, ctx, mime)
        if b"\0" in first[:8192]:
            return Outcome(
                f"{path} is a binary file (it begins with {first[:8].hex(' ')}). Use code_execution to read it.",
                is_error=True,
            )
        start = max(1, arguments.get("start_line", 1))
        end = arguments.get("end_line")
        if end is not None and end < start:
            return Outcome(f"end_line {end} is before start_line {start}.", is_error=True)
        return await _lines(path, ctx, first, start, end)


def picture(data: bytes) -> str | None:
    """The MIME type of an image that models read; `None` for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _PICTURES if data.startswith(magic)), None)


async def _picture(path: str, ctx: ToolContext, mime: str) -> Outcome:
    data = await ctx.workspace.read(path, limit=MAX_IMAGE + 1)
    if len(data) > MAX_IMAGE:
        return Outcome(
            f"{path} is an image of more than {MAX_IMAGE // 1_048_576} MB. Make it smaller with "
            "code_execution and view that.",
            is_error=True,
        )
    image: Json = {"type": "image", "mime_type": mime, "data": base64.b64encode(data).decode()}
    return Outcome([text_content(f"{path} ({mime}, {len(data):,} bytes):"), image])


async def _lines(path: str, ctx: ToolContext, data: bytes, start: int, end: int | None) -> Outcome:
    """Lines `start` to `end`, read on in pieces as far as needed."""
    wanted = min(end or start + MAX_LINES - 1, start + MAX_LINES - 1)
    read, number, rest, over = len(data), 0, b"", len(data) < _CHUNK
    out: list[str] = []
    size = 0
    while True:
        *lines, rest = (rest + data).split(b"\n")
        if over and rest:
            lines.append(rest)
        for line in lines:
            number += 1
            if start <= number <= wanted and size < MAX_CHARS:
                text = line.decode("utf-8", "replace").rstrip("\r")
                if len(text) > MAX_LINE:
                    text = f"{text[:MAX_LINE]} [... {len(text) - MAX_LINE:,} characters left out]"
                out.append(f"{number}\t{text}")
                size += len(text) + 8
        if over or read >= MAX_TEXT or (number > wanted and read > 8 * _CHUNK):
            break
        data = await ctx.workspace.read(path, offset=read, limit=_CHUNK)
        read += len(data)
        over = len(data) < _CHUNK
    total = f"{number}" if over else f"more than {number}"
    if not out:
        what = "is empty" if not number else f"has {total} lines; there is no line {start}"
        return Outcome(f"{path} {what}.", is_error=bool(number))
    last = start + len(out) - 1
    if last < number or start > 1 or not over:
        more = f" Go on with start_line {last + 1}." if last < number or not over else ""
        out.append(f"[Lines {start}-{last} of {total}.{more}]")
    return Outcome("\n".join(out))
