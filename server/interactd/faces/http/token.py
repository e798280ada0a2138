"""The bearer token of the HTTP face: 32 random bytes in a 0600 file, made at first need, the same from then on."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path

from interactd.errors import ConfigError
from interactd.paths import Paths

BYTES = 32
_SHORTEST = 20
_DRAFT_S = 60.0


def load_or_create(paths: Paths) -> str:
    """Return the token, making it if there is none. Blocking, a few system calls.

    Raises:
        ConfigError: the file cannot be read or made, or holds something too short to be a token.
    """
    path = paths.token_file
    try:
        if not path.exists():
            _write(path, replace=False)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token file {path} cannot be used: {error}", repair="Remove it and start again; a new one is made."
        ) from None
    if len(token) < _SHORTEST or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token file {path} does not hold a token of at least {_SHORTEST} characters",
            repair="`interactd token --new` makes a new one.",
        )
    return token


def renew(paths: Paths) -> str:
    """Replace the token and return the new one. What listens already keeps the old one until it is started again.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        _write(paths.token_file, replace=True)
    except OSError as error:
        raise ConfigError(f"the token file {paths.token_file} cannot be written: {error}") from None
    return load_or_create(paths)


def _write(path: Path, *, replace: bool) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _drop_drafts(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            # Of two processes that make it at once one wins, and both read the winner's. A file system without
            # hard links has no such test, and a rename leaves one of the two tokens just as well.
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            except OSError:
                draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _drop_drafts(path: Path) -> None:
    """Remove what processes that were killed here left: the token may be in it. Writing one takes no minute."""
    for old in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):
            if old.stat().st_mtime < time.time() - _DRAFT_S:
                old.unlink()
