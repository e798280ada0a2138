"""The daemon's listening socket. Only the holder of the lock may touch it."""

from __future__ import annotations

import os
import secrets
import socket
import sys

from interactd.paths import Paths
from interactd.shim import link

BACKLOG = 512


class Listener:
    """A bound, listening socket and the file by which it is found."""

    def __init__(self, paths: Paths, *, tcp: bool | None = None) -> None:
        """Bind. `tcp` None means as INTERACTD_TRANSPORT says; Windows has nothing else.

        Raises:
            OSError: the socket cannot be made.
        """
        self.tcp = tcp if tcp is not None else sys.platform == "win32" or os.environ.get("INTERACTD_TRANSPORT") == "tcp"
        self.token = secrets.token_hex(32) if self.tcp else ""
        self._path = link.port_path(paths) if self.tcp else link.socket_path(paths)
        self._other = link.socket_path(paths) if self.tcp else link.port_path(paths)
        self.sock = self._bind()
        self._inode = self._stat()

    @property
    def address(self) -> str:
        """Return where clients connect, for people."""
        return f"127.0.0.1:{self.sock.getsockname()[1]}" if self.tcp else self._path

    def still_there(self) -> bool:
        """False when the file was removed or replaced (a cleaner of temporary files): nobody would find us."""
        found = self._stat()
        return found is not None and found == self._inode

    def rebind(self) -> None:
        """Listen anew under the same name; connections that are open stay. Raises OSError."""
        self.sock.close()
        self.sock = self._bind()
        self._inode = self._stat()

    def remove(self) -> None:
        """Stop being found. What is already connected stays."""
        if self.still_there():
            os.unlink(self._path)  # noqa: PTH108 - a string, shared with the shim
        self.sock.close()

    def _bind(self) -> socket.socket:
        for path in (self._path, self._other):
            # We hold the lock, so whoever left this is gone.
            if os.path.lexists(path):
                os.unlink(path)  # noqa: PTH108
        if self.tcp:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            if sys.platform == "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            sock.bind(("127.0.0.1", 0))
            sock.listen(BACKLOG)
            draft = f"{self._path}.new"
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(f"{sock.getsockname()[1]} {self.token}\n")
            os.replace(draft, self._path)  # noqa: PTH105
        elif sys.platform != "win32":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                sock.bind(self._path)
            finally:
                os.umask(before)
            sock.listen(BACKLOG)
        else:
            raise OSError("unix sockets are not used on Windows")
        sock.setblocking(False)
        return sock

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
