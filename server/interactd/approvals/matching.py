"""Whether the conditions of a rule hold for a call.

Patterns are RE2's: they take time in proportion to the text, whatever somebody wrote. A pattern has to match the whole
text, so that `ls` allows `ls` and not `rm -rf / ; ls`; `.*` in front and behind searches, over lines too.
"""

from __future__ import annotations

import functools
import importlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

MAX_PATTERN: Final = 1_000
MAX_TEXT: Final = 65_536
"""Characters of an argument that are compared; a longer one is put to the user, whatever the rules say."""
_ROOT: Final = "/workspace"
_DOMAIN: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class BadPattern(ValueError):
    """A pattern that cannot be used; the sentence says why."""


class TooLong(Exception):
    """An argument is too long to be compared."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What has to hold; what is empty holds always."""

    paths: tuple[str, ...] = ()
    command: str | None = None
    domains: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    read_only: bool | None = None

    def hold(self, arguments: Mapping[str, Any], *, read_only: bool) -> bool:
        """Whether all hold.

        Args:
            arguments: of the call, as its tool takes them.
            read_only: whether the tool only looks.

        Raises:
            TooLong: an argument that matters is too long to be compared.
        """
        if self.read_only is not None and self.read_only != read_only:
            return False
        if self.paths and not _any_path(self.paths, arguments.get("path")):
            return False
        if self.command is not None and not _matches(self.command, arguments.get("code"), strip=True):
            return False
        if self.domains and not _any_domain(self.domains, arguments.get("url")):
            return False
        return all(_matches(pattern, arguments.get(name)) for name, pattern in self.arguments)


def check_regex(pattern: str) -> None:
    """Raises: BadPattern."""
    if not pattern or len(pattern) > MAX_PATTERN:
        raise BadPattern(f"expected a pattern of 1 to {MAX_PATTERN:,} characters")
    _regex(pattern)


def check_glob(glob: str) -> None:
    """Raises: BadPattern."""
    if len(glob) > MAX_PATTERN or not glob.isprintable() or ".." in glob.split("/"):
        raise BadPattern("expected a path in the workspace such as reports/** or *.csv, without ..")
    _regex(_glob_pattern(glob))


def check_domain(domain: str) -> None:
    """Raises: BadPattern."""
    if not _DOMAIN.fullmatch(_host(domain.removeprefix("*.")) or "?"):
        raise BadPattern("expected a domain such as example.org or *.example.org, without scheme, port and path")


def _matches(pattern: str, value: Any, *, strip: bool = False) -> bool:
    if value is None:
        return False
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_TEXT:
        raise TooLong
    text = text.strip() if strip else text
    return bool(_regex(pattern).fullmatch(text.encode("utf-8", "replace")))


def _any_path(globs: tuple[str, ...], value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if len(value) > MAX_TEXT:
        raise TooLong
    path = posixpath.normpath(posixpath.join(_ROOT, value))
    if path != _ROOT and not path.startswith(f"{_ROOT}/"):
        return False
    inside = path.removeprefix(_ROOT).lstrip("/") or "."
    return any(_regex(_glob_pattern(glob)).fullmatch(inside.encode("utf-8", "replace")) for glob in globs)


def _any_domain(domains: tuple[str, ...], value: Any) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        host = _host(parts.hostname or "") if parts is not None else ""
    except ValueError:
        return False
    if not host:
        return False
    for domain in domains:
        base = _host(domain.removeprefix("*."))
        if host.endswith(f".{base}") if domain.startswith("*.") else host == base:
            return True
    return False


def _host(name: str) -> str:
    """The name as it is compared: lower case, in the letters of the domain system; empty for what is none."""
    plain = name.strip().rstrip(".").lower()
    if plain.isascii():
        return plain
    import idna

    try:
        return idna.encode(plain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""


def _glob_pattern(glob: str) -> str:
    """A glob as a pattern: `*` and `?` stay in one folder, `**` goes over folders, a glob without `/` fits any folder's
    files."""
    glob = glob.removeprefix(f"{_ROOT}/").removeprefix("./")
    if "/" not in glob:
        glob = f"**/{glob}"
    out: list[str] = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        else:
            one = glob[at]
            out.append("[^/]*" if one == "*" else "[^/]" if one == "?" else re.escape(one))
            at += 1
    return "".join(out)


@functools.lru_cache(maxsize=1024)
def _regex(pattern: str) -> Any:
    # Only who writes rules pays for it.
    try:
        re2: Any = importlib.import_module("re2")
    except ImportError as error:
        raise BadPattern(f"patterns need the package google-re2, which is not there: {error}") from None
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    options.encoding = re2.Options.Encoding.UTF8
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        said: Any = error.args[0] if error.args else error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise BadPattern(f"not a regular expression that RE2 takes: {text}") from None
