"""What a command printed, kept within bounds: the beginning, the end, and how much is missing between."""

from __future__ import annotations

from typing import Final

KEEP: Final = 100_000


class Capped:
    """Takes bytes as they come; never holds more than about twice `keep`."""

    def __init__(self, keep: int = KEEP) -> None:
        self._head_max = keep * 2 // 3
        self._tail_max = keep - self._head_max
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_max - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            if len(self._tail) > 2 * self._tail_max:
                del self._tail[: -self._tail_max]

    @property
    def truncated(self) -> bool:
        return self.total > len(self._head) + min(len(self._tail), self._tail_max)

    def text(self) -> str:
        """Return it as text; what is no UTF-8 shows as U+FFFD, and NUL as U+2400."""
        if self.truncated:
            tail = bytes(self._tail[-self._tail_max :])
            missing = self.total - len(self._head) - len(tail)
            parts = [bytes(self._head), f"\n... [{missing} bytes left out here] ...\n".encode(), tail]
            whole = b"".join(parts)
        else:
            whole = bytes(self._head + self._tail)
        return whole.decode("utf-8", "replace").replace("\0", "\u2400")
