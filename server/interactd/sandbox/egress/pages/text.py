"""HTML to plain text with its headings, lists, tables and links, for a model to read.

The standard library's parser, which takes any input, and a hundred lines: the packages that do this are copyleft, or
bring a compiled tree, or guess at what the article is and lose tables and code.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

_SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "select"})
_BLOCK_NAMES = (
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer form "
    "header hgroup hr html li main menu nav ol p pre section summary table tbody tfoot thead tr ul"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_SPACES = re.compile(r"[ \t\r\n\f\v\u00a0]+")
_VOID_NAMES = "area base br col embed hr img input link meta source track wbr"
_VOID = frozenset(_VOID_NAMES.split())
# Their end tags are often left out, so that a hidden one would hide the rest of the page.
_SELF_CLOSED = frozenset({"html", "body", "li", "p", "td", "th", "tr", "dt", "dd"})
MAX_DEPTH = 2000


def html_to_text(html: str, base_url: str = "") -> str:
    """Return the text of a page: `# ` headings, `- ` items, ` | ` between a table's cells, links as `[text](url)`.

    Args:
        base_url: what relative links are made whole with.
    """
    reader = _Reader(base_url)
    reader.feed(html)
    reader.close()
    return reader.result()


class _Reader(HTMLParser):
    def __init__(self, base_url: str) -> None:
        super().__init__(convert_charrefs=True)
        self._base = base_url
        self._out: list[str] = []
        self._skipping: list[str] = []
        self._in_pre = 0
        self._cells = 0
        self._lists: list[int | None] = []
        self._links: list[tuple[str, int]] = []
        self._title: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._skipping:
            if tag not in _VOID and len(self._skipping) < MAX_DEPTH:
                self._skipping.append(tag)
            return
        hidden = "hidden" in given or given.get("aria-hidden") == "true"
        if tag in _SKIPPED or (hidden and tag not in _SELF_CLOSED):
            if tag not in _VOID:
                self._skipping.append(tag)
            return
        if tag == "base" and given.get("href"):
            self._base = urljoin(self._base, given["href"] or "")
        elif tag == "title":
            self._in_title = True
        elif tag in _HEADINGS:
            self._out.append("\n\n" + _HEADINGS[tag])
        elif tag == "br":
            self._out.append("\n")
        elif tag in ("ul", "ol", "menu"):
            self._lists.append(1 if tag == "ol" else None)
            self._out.append("\n")
        elif tag == "li":
            self._item()
        elif tag in ("td", "th"):
            self._out.append(" | " if self._cells else "")
            self._cells += 1
        elif tag == "tr":
            self._cells = 0
            self._out.append("\n")
        elif tag == "pre":
            self._in_pre += 1
            self._out.append("\n\n```\n")
        elif tag == "a":
            self._links.append((given.get("href") or "", len(self._out)))
        elif tag == "img" and (alt := (given.get("alt") or "").strip()):
            self._out.append(f"[image: {alt}]")
        elif tag in _BLOCKS:
            self._out.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            # A tag that closes an outer element closes what was left open within it.
            if tag in self._skipping:
                while self._skipping.pop() != tag:
                    pass
            return
        if tag == "title":
            self._in_title = False
        elif tag in ("ul", "ol", "menu"):
            if self._lists:
                self._lists.pop()
            self._out.append("\n" if self._lists else "\n\n")
        elif tag == "pre" and self._in_pre:
            self._in_pre -= 1
            self._out.append("\n```\n\n")
        elif tag == "a" and self._links:
            self._link(*self._links.pop())
        elif tag in ("li", "td", "th", "tr"):
            return
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._out.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._skipping:
            return
        if self._in_title:
            self._title.append(data)
        elif self._in_pre:
            self._out.append(data)
        else:
            self._out.append(_SPACES.sub(" ", data))

    def result(self) -> str:
        lines: list[str] = []
        fenced = False
        for line in "".join(self._out).split("\n"):
            fenced = fenced != (line.strip() == "```")
            shown = line.rstrip() if fenced else _SPACES.sub(" ", line).strip()
            if not fenced and line.startswith("  ") and shown.startswith(("- ", "1", "2")):
                shown = line[: len(line) - len(line.lstrip(" "))] + shown
            if shown or (lines and lines[-1]):
                lines.append(shown)
        body = "\n".join(lines).strip()
        title = _SPACES.sub(" ", "".join(self._title)).strip()
        if title and not body.startswith(f"# {title}"):
            return f"{title}\n\n{body}".strip()
        return body

    def _item(self) -> None:
        indent = "  " * (len(self._lists) - 1)
        number = self._lists[-1] if self._lists else None
        if number is None:
            self._out.append(f"\n{indent}- ")
        else:
            self._lists[-1] = number + 1
            self._out.append(f"\n{indent}{number}. ")

    def _link(self, href: str, start: int) -> None:
        text = _SPACES.sub(" ", "".join(self._out[start:])).strip()
        target = href.strip()
        if (
            not text
            or not target
            or target.startswith(("#", "javascript:", "data:"))
            or "\n" in "".join(self._out[start:])
        ):
            return
        try:
            whole = urljoin(self._base, target)
        except ValueError:
            return
        if whole != text:
            lead = " " if self._out[start:] and self._out[start].startswith(" ") else ""
            self._out[start:] = [f"{lead}[{text}]({whole})"]
