"""Server-sent events out of bytes that arrive cut anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from interactd.errors import StreamMalformed

MAX_EVENT_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class ServerSent:
    """One event: its `event:` name, if it had one, and its data lines joined."""

    event: str | None
    data: str


class SseReader:
    """Feed it bytes; it returns the events that became whole.

    Lines end in LF, CRLF or CR; comments and unknown fields are skipped; an event without data is no event (as the
    HTML standard has it). Only those three end a line: a model's text may hold any other Unicode line break.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._event: str | None = None
        self._data: list[str] = []
        self._first = True

    def feed(self, chunk: bytes) -> list[ServerSent]:
        """Take the next bytes.

        Raises:
            StreamMalformed: one event is larger than the limit.
        """
        out: list[ServerSent] = []
        if chunk:
            # The LF of a CRLF that was cut in two.
            chunk, self._after_cr = chunk[self._after_cr and chunk[0] == 10 :], chunk.endswith(b"\r")
        for line in chunk.splitlines(keepends=True):
            self._line.append(line)
            self._size += len(line)
            if self._size > self._max:
                raise StreamMalformed(
                    f"one event of the provider's stream is larger than {self._max:,} bytes",
                    repair="Try again; if it happens again, use another model.",
                )
            if line.endswith((b"\n", b"\r")):
                whole = b"".join(self._line).rstrip(b"\r\n")
                self._line.clear()
                if (event := self._take(whole)) is not None:
                    out.append(event)
        return out

    def end(self) -> ServerSent | None:
        """The stream ended. Returns an event that lacked only its closing empty line, if there is one."""
        if self._line:
            self._take(b"".join(self._line))
            self._line.clear()
        return self._take(b"")

    def _take(self, line: bytes) -> ServerSent | None:
        if self._first:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._first = False
        if not line:
            event = ServerSent(self._event, "\n".join(self._data)) if self._data else None
            self._event, self._data, self._size = None, [], 0
            return event
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._data.append(text)
        elif name == b"event":
            self._event = text or None
        return None
