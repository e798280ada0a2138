"""What kind of file something is, from its first bytes and its name; the bytes are believed first."""

from __future__ import annotations

import mimetypes
from typing import Final

OCTETS: Final = "application/octet-stream"
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"BZh", "application/x-bzip2"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"\x7fELF", "application/x-executable"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"PAR1", "application/vnd.apache.parquet"),
)
_ZIPPED: Final = ("application/vnd.", "application/java", "application/epub", "application/x-wheel", "application/zip")
_OURS: Final = {
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/x-ndjson",
    ".py": "text/x-python",
    ".ipynb": "application/x-ipynb+json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".svg": "image/svg+xml",
    ".js": "text/javascript",
    ".ts": "text/x-typescript",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
_TEXTUAL: Final = frozenset({"application/json", "application/jsonl", "application/yaml", "application/toml"})


def guess(name: str, first: bytes) -> str:
    """Return a mime type.

    Args:
        name: the file's name.
        first: its first bytes (4096 are plenty).
    """
    ending = "." + name.lower().rpartition(".")[2] if "." in name else ""
    named = _OURS.get(ending) or mimetypes.guess_type(name, strict=False)[0] or ""
    for magic, kind in _MAGIC:
        if first.startswith(magic):
            return named if kind == "application/gzip" and "gzip" in named else kind
    if first.startswith(b"RIFF") and first[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}[first[8:12]]
    if first[4:8] == b"ftyp":
        return named if named.startswith(("video/", "audio/", "image/")) else "video/mp4"
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return named if named.startswith(_ZIPPED) else "application/zip"
    if is_text(first):
        return named if _is_text_type(named) else "text/plain"
    # Bytes that are no text, under a name that says they are, or a kind whose magic is missing.
    known = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "application/zip")
    return OCTETS if not named or _is_text_type(named) or named in known else named


def is_text(first: bytes) -> bool:
    """Whether these bytes (perhaps cut in a character) are UTF-8 text."""
    if b"\0" in first:
        return False
    try:
        first.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start >= len(first) - 3
    return True


def _is_text_type(kind: str) -> bool:
    return (
        kind.startswith("text/") or kind in _TEXTUAL or kind.endswith(("+json", "+xml", "/xml", "/javascript", "json"))
    )
