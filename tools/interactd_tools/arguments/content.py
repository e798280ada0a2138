"""What a caller says to a model: text, or a list of text and image parts."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from interactd.nouns import Json, text_content
from interactd_tools.arguments.fields import MAX_TEXT, refuse, wrong
from interactd_tools.arguments.problems import shown

MAX_PARTS = 256
MAX_IMAGE_BYTES = 20 * 1024 * 1024
_EXPECTED = "text, or a list of {type: text|image} parts"
_IMAGES = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}


def read_input(value: object) -> str | list[Json]:
    """Return the input as the engine takes it: a string, or a list of Content.

    Raises:
        PydanticCustomError: it is neither, is empty, or a part is wrong.
    """
    if isinstance(value, str):
        parts = _encoded_parts(value)
        if parts is None:
            _check_length(value)
            if not value.strip():
                raise refuse("some text", value)
            return value
        value = parts
    given = cast("list[Any]", [value] if isinstance(value, dict) else value)
    if not isinstance(value, dict | list):
        raise refuse(_EXPECTED, value)
    if not 0 < len(given) <= MAX_PARTS:
        raise refuse(f"1 to {MAX_PARTS} parts", given)
    content = [_part(part, i) for i, part in enumerate(given)]
    if all(part["type"] == "text" and not part["text"].strip() for part in content):
        raise wrong("expected some text or an image, got only blanks")
    return content


def _encoded_parts(text: str) -> list[Json] | None:
    """Return the parts when the text is nothing but a JSON list of them, as hosts that only know strings send it."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    exact = [{"type", "text"}, {"type", "data", "mime_type"}, {"type", "uri"}, {"type", "uri", "mime_type"}]
    is_parts = all(isinstance(part, dict) and set(cast("Json", part)) in exact for part in value)
    return value if is_parts and all(part["type"] in ("text", "image") for part in value) else None


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise refuse(f"text of at most {MAX_TEXT:,} characters", text)


def _part(part: object, index: int) -> Json:
    if isinstance(part, str):
        part = text_content(part)
    if not isinstance(part, dict):
        raise refuse(f"part {index} as an object or text", part)
    given = cast("Json", part)
    kind = given.get("type", "text" if "text" in given else None)
    if kind == "text":
        text = given.get("text")
        if not isinstance(text, str):
            raise refuse(f"part {index} with text", text)
        _check_length(text)
        return text_content(text)
    if kind == "image":
        return _image(given, index)
    raise refuse(f"part {index} of type text or image", kind)


def _image(given: Json, index: int) -> Json:
    uri, data = given.get("uri"), given.get("data")
    mime = given.get("mime_type", given.get("mimeType"))
    if isinstance(uri, str) and uri.startswith("data:"):
        head, _, data = uri.partition(",")
        mime, uri = head.removeprefix("data:").partition(";")[0], None
    if isinstance(uri, str):
        if not uri.startswith(("https://", "http://")) or not uri.isprintable():
            raise refuse(f"part {index} with an http(s) or data: uri", uri)
        return {"type": "image", "uri": uri, **({"mime_type": mime} if isinstance(mime, str) else {})}
    if not isinstance(data, str):
        raise wrong(f"expected part {index} with data (base64) or uri, got an image without")
    if len(data) > MAX_IMAGE_BYTES * 4 // 3:
        raise wrong(f"expected part {index} of at most 20 MB, got {len(data):,} characters")
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"part {index} with data in base64", data) from None
    found = next((name for name, magic in _IMAGES.items() if raw.startswith(magic)), None)
    if found is None:
        raise wrong(f"expected part {index} as PNG, JPEG, GIF or WebP, got {shown(mime or 'unknown bytes')}")
    return {"type": "image", "data": base64.b64encode(raw).decode(), "mime_type": found}


Input = Annotated[
    str | list[Json],
    BeforeValidator(read_input),
    Field(
        description="What to say. With images: a list of {type: text, text} and {type: image, data, mime_type}.",
        json_schema_extra={"schema": {"type": "string", "x-expected": _EXPECTED}},
    ),
]
