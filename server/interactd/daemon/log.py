"""The daemon's log: one rotating file, 0600, without secrets; everything the process prints ends there too."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
import re
import sys
import threading
from io import TextIOWrapper
from types import TracebackType

from interactd.paths import Paths

MAX_BYTES = 2_000_000
BACKUPS = 5
# Libraries that say at INFO what they ask for, addresses with keys included.
_TALKATIVE = ("httpx", "httpx2", "httpcore", "httpcore2", "mcp", "uvicorn.access", "asyncio", "urllib3")
_SECRETS = re.compile(
    r"(?i)(bearer\s+|\b(?:api[_-]?key|key|token|secret|password|authorization)\b[\"']?\s*[=:]\s*[\"']?(?:bearer\s+)?)"
    r"[^\s\"'&,;)}]{6,}"
    r"|\b(?:sk|pk|rk|gsk|xai|AIza|ghp|hf)[-_A-Za-z0-9]{16,}"
)
_known: set[str] = set()


def remember_secrets(values: set[str]) -> None:
    """Never write these; what hosts send as keys is told here. Short ones are left to the patterns."""
    _known.update(value for value in values if len(value) >= 8)
    while len(_known) > 1000:
        _known.pop()


def redact(text: str) -> str:
    """Return the text with everything that looks like, or is known as, a secret replaced."""
    for value in tuple(_known):
        if value in text:
            text = text.replace(value, "[redacted]")
    return _SECRETS.sub(lambda found: (found[1] or "") + "[redacted]", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _File(logging.handlers.RotatingFileHandler):
    """Rotates, and takes the process's own stdout and stderr along."""

    def __init__(self, paths: Paths, *, take_standard: bool) -> None:
        self._take_standard = take_standard
        super().__init__(paths.log_file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", errors="replace")
        self._point_standard_here()

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        if sys.platform != "win32":
            os.fchmod(stream.fileno(), 0o600)  # whatever the umask is, or was when the file was made
        return stream

    def doRollover(self) -> None:
        super().doRollover()
        self._point_standard_here()

    def _point_standard_here(self) -> None:
        if self._take_standard and self.stream is not None:  # pyright: ignore[reportUnnecessaryComparison]
            for fd in (1, 2):
                os.dup2(self.stream.fileno(), fd)


def set_up(paths: Paths, *, foreground: bool, take_standard: bool | None = None) -> None:
    """Log to the file; in the foreground to stderr as well. Uncaught exceptions and crashes of C code land there.

    Args:
        paths: where the log is.
        foreground: somebody looks at stderr.
        take_standard: point the process's own stdout and stderr at the file; default: unless in the foreground.
    """
    root = logging.getLogger()
    form = _Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handlers: list[logging.Handler] = [
        _File(paths, take_standard=not foreground if take_standard is None else take_standard)
    ]
    if foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(form)
        root.addHandler(handler)
    # Whatever asks for a handler of its own later gets none: basicConfig does nothing now.
    root.setLevel(logging.INFO)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    faulthandler.enable(sys.stderr)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def set_rotation(max_bytes: int, files: int) -> None:
    """Set how large the log file may grow, and how many old ones stay beside it, once the configuration is known."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.maxBytes, handler.backupCount = max_bytes, max(1, files)


def set_level(name: str) -> None:
    """Set the level once the configuration is known."""
    logging.getLogger().setLevel(name.upper())
    if name == "debug":
        logging.getLogger("mcp").setLevel(logging.INFO)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("interactd.daemon").critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
