"""A turn's content: a string, or a list of text and image Contents (Interactions API shapes)."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, cast
from urllib.parse import urlsplit

from interactd.engine.checks.text import check_json, check_text, kind_of
from interactd.errors import InvalidArgument
from interactd.nouns import Json, text_content

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/heic", "image/heif")
_URI_SCHEMES: Final = ("https", "http", "gs")
_MAX_PARTS: Final = 1_000


def check_content(content: Any, *, max_bytes: int, field: str = "content") -> list[Json]:
    """Return the content as a list of clean Contents.

    Args:
        content: a string, one Content, or a list of Contents and strings.
        max_bytes: the largest size of all of it together, in UTF-8 (images as the base64 text they come in).
        field: the argument's name, for messages.

    Raises:
        InvalidArgument: it is empty, too large, or some part is not a Content that can be kept.
    """
    if isinstance(content, str):
        return [text_content(check_text(field, content, max_bytes=max_bytes, empty=False))]
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise InvalidArgument(
            f"{field}: expected text or a list of contents, got {kind_of(content)}",
            repair='Give a string, or a list such as [{"type": "text", "text": "..."}].',
            field=field,
        )
    given = cast("list[Any]", content)
    if len(given) > _MAX_PARTS:
        raise InvalidArgument(f"{field}: {len(given)} parts are more than the {_MAX_PARTS} allowed", field=field)
    parts = [_part(f"{field}[{at}]", part) for at, part in enumerate(given)]
    if not any(part["type"] != "text" or part["text"].strip() for part in parts):
        raise InvalidArgument(f"{field}: is empty", repair=f"Give some text or an image in {field}.", field=field)
    size = sum(len(part.get("data") or "") + len((part.get("text") or "").encode()) for part in parts)
    if size > max_bytes:
        raise InvalidArgument(
            f"{field}: {size:,} bytes are more than the {max_bytes:,} allowed",
            repair="Make the images smaller or fewer, or send the text in several turns.",
            field=field,
            limit=max_bytes,
        )
    return parts


def _part(field: str, part: Any) -> Json:
    if isinstance(part, str):
        return text_content(check_text(field, part))
    if not isinstance(part, dict):
        raise InvalidArgument(f"{field}: expected a content object, got {kind_of(part)}", field=field)
    given = cast("dict[Any, Any]", part)
    kind: Any = given.get("type") or ("text" if "text" in given else None)
    if kind == "text":
        _known(field, given, ("type", "text", "annotations"))
        text: Json = text_content(check_text(f"{field}.text", given.get("text")))
        if given.get("annotations") is not None:
            text["annotations"] = check_json(f"{field}.annotations", given["annotations"])
        return text
    if kind == "image":
        return _image(field, given)
    raise InvalidArgument(
        f"{field}.type: {kind!r} cannot be sent to a model here; text and image can",
        repair="Send its text instead.",
        field=f"{field}.type",
    )


def _image(field: str, given: dict[Any, Any]) -> Json:
    _known(field, given, ("type", "data", "uri", "mime_type", "resolution"))
    data, uri, mime = given.get("data"), given.get("uri"), given.get("mime_type")
    if (data is None) == (uri is None):
        raise InvalidArgument(f"{field}: an image needs exactly one of data (base64) and uri", field=field)
    if (mime is not None and mime not in IMAGE_TYPES) or (mime is None and data is not None):
        raise InvalidArgument(
            f"{field}.mime_type: {mime!r} is not an image type that models read",
            repair=f"Use one of {', '.join(IMAGE_TYPES)}.",
            field=f"{field}.mime_type",
        )
    image: Json = {"type": "image"}
    if data is not None:
        image["data"] = _base64(f"{field}.data", data)
    else:
        text = check_text(f"{field}.uri", uri, max_bytes=8_192, empty=False)
        if urlsplit(text).scheme.lower() not in _URI_SCHEMES:
            raise InvalidArgument(
                f"{field}.uri: expected an {', '.join(_URI_SCHEMES)} address",
                repair="For a file on this machine send its bytes as base64 in data, with mime_type.",
                field=f"{field}.uri",
            )
        image["uri"] = text
    if mime is not None:
        image["mime_type"] = mime
    if (resolution := given.get("resolution")) is not None:
        image["resolution"] = check_text(f"{field}.resolution", resolution, max_bytes=64)
    return image


def _base64(field: str, data: Any) -> str:
    text = "".join(check_text(field, data, empty=False).split())
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(
            f"{field}: is not base64 ({error})",
            repair="Send plain base64 of the image's bytes, without a data: prefix.",
            field=field,
        ) from None
    if not raw:
        raise InvalidArgument(f"{field}: is empty", field=field)
    return text


def _known(field: str, given: dict[Any, Any], names: tuple[str, ...]) -> None:
    if extra := [str(name) for name in given if name not in names]:
        raise InvalidArgument(
            f"{field}: unknown field {extra[0]!r}", repair=f"It may have {', '.join(names)}.", field=field
        )
