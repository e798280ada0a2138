"""What a call prints while it runs: its tail, and whoever listens."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from typing import Final

KEPT: Final = 8_000
"""Characters of the newest output that are kept."""


class Printed:
    """Takes bytes as they come, whole characters or not, and keeps the end of them: its memory does not grow."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: deque[str] = deque()
        self._size = 0
        self._listener: Callable[[str], None] | None = None

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have every further piece of text given to `listener`, too."""
        self._listener = listener

    def feed(self, data: bytes) -> None:
        """Take what was printed."""
        text = self._decoder.decode(data)
        if not text:
            return
        self._pieces.append(text[-self._kept :])
        self._size += len(self._pieces[-1])
        while self._size - len(self._pieces[0]) >= self._kept:
            self._size -= len(self._pieces.popleft())
        if self._listener is not None:
            self._listener(text)

    @property
    def tail(self) -> str:
        """The newest characters, at most as many as are kept."""
        return "".join(self._pieces)[-self._kept :]
