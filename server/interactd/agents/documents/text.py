"""Bytes to text that can be shown, put into a prompt and stored: UTF-8 without control characters."""

from __future__ import annotations

import re

from interactd.agents.documents import Fault

_BAD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff\ufffe\uffff]")


def decode(data: bytes) -> tuple[str, list[Fault]]:
    """Decode a whole file: a byte order mark is dropped, line ends become `\\n`.

    Returns:
        The text, and the first thing that is wrong with it (then the text is empty).
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "", [Fault("expected UTF-8, got UTF-16; save the file as UTF-8", 1)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", [Fault(f"expected UTF-8, got the byte 0x{data[error.start]:02x}; save the file as UTF-8", line)]
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    wrong = unprintable(text)
    if wrong is not None:
        at, what = wrong
        return "", [Fault(f"expected text, got {what}", text.count("\n", 0, at) + 1)]
    return text, []


def unprintable(text: str) -> tuple[int, str] | None:
    """Return where the first character is that no text should hold, and what it is; tabs and line ends are fine."""
    found = _BAD.search(text)
    if found is None:
        return None
    code = ord(found.group())
    kind = "half of a surrogate pair" if 0xD800 <= code <= 0xDFFF else "the control character"
    return found.start(), f"{kind} U+{code:04X}"


def printable(text: str, limit: int = 160) -> str:
    """Return a text of somebody else's for a message: cut, and what cannot be printed written as an escape."""
    text = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: object, limit: int = 60) -> str:
    """Return what came, short and printable, for a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return printable(repr(value if len(value) <= limit else f"{value[: limit - 3]}..."), 10 * limit)
        case _:
            text = str(value)
            return text if len(text) <= limit else f"{text[: limit - 3]}..."
