"""A bounded log file for the children's own words: `embedded.log` and one older one beside it, 0600."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO


class ChildLog:
    """Append lines; at `limit` bytes the file becomes `NAME.1` and a new one begins. Never raises: a full disk must not
    stop a model that needs none."""

    def __init__(self, path: Path, limit: int = 1_000_000) -> None:
        self.path = path
        self._limit = limit
        self._file: BinaryIO | None = None

    def write(self, name: str, line: str) -> None:
        """Add one line, with the time and the model's name before it."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        with contextlib.suppress(OSError):
            file = self._open()
            file.write(f"{stamp} {name}: {line}\n".encode(errors="replace"))
            if file.tell() >= self._limit:
                self.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", 0)
        return self._file
