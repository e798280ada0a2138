"""Text for the full-text index, and queries against it.

The tokenizer splits at spaces and punctuation, so that a Chinese sentence would be one word. Characters of scripts
that are written without spaces therefore become words of their own, with U+200B between them; a query is treated the
same way, which makes a word of several characters a phrase. That finds words of one and two characters, which the
trigram tokenizer does not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final, cast

from interactd.nouns import Json
from interactd.store.sqlite.queries.rows import clean

TEXT_MAX: Final = 2_000_000
"""Characters of one step that are indexed."""
WORDS_MAX: Final = 64
"""Words of a query that count."""
DEPTH_MAX: Final = 50

_GAP: Final = "\u200b"
_SPACELESS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # radicals, kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af\uff66-\uff9f"  # Hangul (particles cling to words), half-width kana
)
_BORDER: Final = re.compile(rf"(?<=[{_SPACELESS}])(?=\w)|(?<=\w)(?=[{_SPACELESS}])")
_TERM: Final = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
_HIDDEN: Final = frozenset({"type", "id", "call_id", "signature", "mime_type", "encrypted_content", "is_error"})


def of_step(body: Json) -> str:
    """Return everything in a step that a person would look for: texts, names, arguments, results; no media."""
    out: list[str] = []
    left = TEXT_MAX
    for part in _strings(body, 0):
        out.append(part[:left])
        left -= len(part)
        if left <= 0:
            break
    return segment(clean("\n".join(out)) or "")


def segment(text: str) -> str:
    """Put a word border around every character of a script without spaces."""
    if text.isascii():
        return text
    return _BORDER.sub(_GAP, unicodedata.normalize("NFC", text))


def show(snippet: str) -> str:
    """Undo `segment`, and make one line of it."""
    return " ".join(snippet.replace(_GAP, "").split())


def match(query: str) -> str | None:
    """Return the FTS5 expression for what a person typed; `None` if there is no word in it.

    Words are ANDed, a "quoted phrase" stays together, a trailing * is a prefix; all else is plain text.
    """
    terms: list[str] = []
    for phrase, phrase_star, word in _TERM.findall(query[:10_000]):
        given: str = word or phrase
        star = bool(phrase_star) or (bool(word) and given.endswith("*"))
        plain = segment(clean(given.rstrip("*") if word else given) or "")
        if not any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "Co" for c in plain):
            continue
        terms.append(f'"{plain}"' + (" *" if star else ""))
        if len(terms) == WORDS_MAX:
            break
    return " AND ".join(terms) or None


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif depth > DEPTH_MAX:
        return
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _strings(item, depth + 1)
    elif isinstance(value, dict):
        fields = cast("Json", value)
        media = "mime_type" in fields or fields.get("type") in ("image", "audio", "video", "document")
        for name, item in fields.items():
            if name in _HIDDEN and depth != 1 and not isinstance(item, (dict, list)):
                continue
            if media and name == "data":
                continue
            yield from _strings(item, depth + 1)
