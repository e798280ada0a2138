"""The main process of a container: lives as long as the pipe on its stdin, and carries the proxy's port to its socket.

Run as `python3 -I -S resident.py [PORT SOCKET]`; says `ready` when a command may be run. A container has no network at
all, so that its way to the proxy is a socket in a folder that is mounted into it. This only carries bytes: code in the
container may use the socket itself, replace this process or end it, and gains nothing; the proxy judges.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

CHUNK = 65536
CONNECTIONS = 128


class End:
    """One end of a carried connection: what it said goes to `other`; nothing more is read until that has taken it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other: End = self
        self.owed = b""
        """Bytes that are still to be written to this end."""
        self.reads = True
        self.shut = False


class Relay:
    def __init__(self, port: int, path: str) -> None:
        self.path = path
        self.ends = 0
        self.watch = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.listener.setblocking(False)
        self.watch.register(self.listener, selectors.EVENT_READ)

    def run(self) -> None:
        self.watch.register(0, selectors.EVENT_READ)
        while True:
            for key, events in self.watch.select():
                if key.fd == 0:
                    if not os.read(0, CHUNK):
                        return
                elif key.fileobj is self.listener:
                    self.accept()
                else:
                    self.move(key.data, events)

    def accept(self) -> None:
        try:
            ours, _ = self.listener.accept()
        except OSError:
            return
        theirs = socket.socket(socket.AF_UNIX)
        try:
            if self.ends >= CONNECTIONS:
                raise OSError("too many connections")
            theirs.connect(self.path)
        except OSError:
            ours.close()
            theirs.close()
            return
        pair = End(ours), End(theirs)
        pair[0].other, pair[1].other = pair[1], pair[0]
        self.ends += 1
        for end in pair:
            end.sock.setblocking(False)
            self.watch.register(end.sock, selectors.EVENT_READ, end)

    def move(self, end: End, events: int) -> None:
        if end.sock.fileno() < 0:
            return  # its other end was the reason to close both, a moment ago
        try:
            if events & selectors.EVENT_WRITE:
                end.owed = end.owed[end.sock.send(end.owed) :]
            if events & selectors.EVENT_READ and end.reads:
                data = end.sock.recv(CHUNK)
                end.reads = bool(data)
                end.other.owed += data
        except BlockingIOError:
            pass
        except OSError:
            self.close(end)
            return
        for one in (end, end.other):
            if not one.owed and not one.other.reads and not one.shut:
                one.shut = True
                try:
                    one.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self.close(end)
                    return
        if end.shut and end.other.shut:
            self.close(end)
            return
        for one in (end, end.other):
            wanted = selectors.EVENT_READ if one.reads and not one.other.owed else 0
            wanted |= selectors.EVENT_WRITE if one.owed else 0
            self.want(one, wanted)

    def want(self, end: End, events: int) -> None:
        known = end.sock in self.watch.get_map()
        if events and known:
            self.watch.modify(end.sock, events, end)
        elif events:
            self.watch.register(end.sock, events, end)
        elif known:
            self.watch.unregister(end.sock)

    def close(self, end: End) -> None:
        self.ends -= 1
        for one in (end, end.other):
            self.want(one, 0)
            one.sock.close()


def main() -> None:
    relay = Relay(int(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else None
    os.write(1, b"ready\n")
    if relay is not None:
        relay.run()
        return
    while os.read(0, CHUNK):
        continue


main()
