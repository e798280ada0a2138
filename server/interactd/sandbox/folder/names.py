"""Names of files as text that is printable, and never the same for two files."""

from __future__ import annotations

import os
import re
from typing import Final

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_LONG: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_ESCAPE: Final = re.compile(r"\\(?:([nrt\\])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def shown(path: bytes) -> str:
    """Return a path as one line of printable text.

    What cannot be printed (control characters, what turns the direction of writing, bytes that are no UTF-8) and the
    backslash itself are written as Python would: `\\n`, `\\x1b`, `\\u202e`, `\\\\`. A byte that is no UTF-8 is `\\xNN`
    from 80 up, which no character is written as.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_one(c) for c in text)


def _one(c: str) -> str:
    if c in _SHORT:
        return _SHORT[c]
    if c.isprintable():
        return c
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def meant(text: str) -> bytes:
    """Return the path that `shown` printed as this text; other backslashes stand for themselves."""

    def back(found: re.Match[str]) -> str:
        short, byte, four, eight = found.groups()
        if short:
            return _LONG[short]
        if byte:
            number = int(byte, 16)
            return chr(number) if number < 0x80 else chr(0xDC00 + number)
        number = int(four or eight, 16)
        return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else found.group()

    return os.fsencode(_ESCAPE.sub(back, text).encode("utf-8", "surrogateescape"))
