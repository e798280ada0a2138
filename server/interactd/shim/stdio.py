"""The host's side: file descriptors 0 and 1 as they are, blocking or not, pipe, socket, file or terminal."""

from __future__ import annotations

import os
import select
import sys
import threading


class Host:
    """Reads the host and writes to it; the process ends when the host no longer reads."""

    def __init__(self, fd_in: int = 0, fd_out: int = 1) -> None:
        self._in = fd_in
        self._out = fd_out
        self._writing = threading.Lock()
        self.closing = False
        """Set when the host has closed its end, and only answers are still due."""
        if sys.platform == "win32":
            import msvcrt

            msvcrt.setmode(fd_in, os.O_BINARY)
            msvcrt.setmode(fd_out, os.O_BINARY)

    def read(self, size: int) -> bytes:
        """Return what came, at most `size` bytes, waiting for it; nothing at the end."""
        while True:
            try:
                return os.read(self._in, size)
            except BlockingIOError:
                select.select([self._in], [], [])
            except OSError:
                return b""

    def write(self, data: bytes) -> None:
        """Write all of it, as slowly as the host reads. Ends the process when the host is gone."""
        view = memoryview(data)
        with self._writing:
            while view:
                try:
                    view = view[os.write(self._out, view) :]
                except BlockingIOError:
                    select.select([], [self._out], [])
                except OSError:
                    os._exit(0)

    def listens(self) -> bool:
        """False when nobody can read what we write any more."""
        if sys.platform == "win32":
            return True
        poll = select.poll()
        poll.register(self._out, 0)
        return not any(event & (select.POLLERR | select.POLLNVAL | select.POLLHUP) for _, event in poll.poll(0))
