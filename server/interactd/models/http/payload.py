"""JSON out, and the first look at what came in."""

from __future__ import annotations

import json
from typing import Literal

from interactd.errors import InvalidArgument
from interactd.nouns import Json


def encode(body: Json) -> bytes:
    """Encode a request body as UTF-8 JSON.

    Lone surrogates (half an emoji, as cut-off JavaScript strings have them) become U+FFFD: providers refuse them.

    Raises:
        InvalidArgument: a number that JSON has no way to write (NaN, infinity).
    """
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InvalidArgument(
            "a number in the request is not finite; JSON cannot hold NaN or infinity",
            repair="Send a finite number, or leave the field out.",
        ) from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def sniff(start: bytes) -> Literal["sse", "json", "html"] | None:
    """Tell from a body's first bytes what it is, whatever its content type says; `None`: too early to say.

    Servers that ignore `stream: true` send JSON, some label server-sent events as text/plain, and a wrong address
    is often a web page.
    """
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not first:
        return None
    return "json" if first in b"{[" else "html" if first == b"<" else "sse"
