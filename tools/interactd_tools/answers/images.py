"""Whether bytes are an image that a host's model can look at: one bad image spoils a whole conversation there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

MAX_BYTES: Final = 1024 * 1024
MAX_SIDE: Final = 8000
"""Pixels; vision models refuse more."""


def looks_like_one(data: bytes) -> bool:
    """Whether bytes begin as such an image does, whole or not."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return webp or data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))


def viewable(data: bytes) -> str | None:
    """Return the MIME type of a whole PNG, JPEG, GIF or WebP of a size that models take, else `None`."""
    for mime, size in (("image/png", _png), ("image/jpeg", _jpeg), ("image/gif", _gif), ("image/webp", _webp)):
        try:
            sides = size(data)
        except (struct.error, IndexError):
            continue
        if sides is not None:
            return mime if min(sides) > 0 and max(sides) <= MAX_SIDE else None
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") or data.find(b"IEND\xaeB`\x82", 33) < 0:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if b"IDAT" in data else None


def _gif(data: bytes) -> tuple[int, int] | None:
    if data[:6] not in (b"GIF87a", b"GIF89a") or not data.rstrip(b"\0").endswith(b";"):
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\xff\xd8\xff") or data.rfind(b"\xff\xd9") < 0:
        return None
    for marker, at in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each JPEG segment's marker and where its length stands."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return
        yield marker, at + 2
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return width, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
