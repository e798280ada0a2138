"""Who is at the other end of a unix socket. The kernel's word, which no process can forge."""

from __future__ import annotations

import socket
import struct
import sys


def identity(sock: socket.socket) -> tuple[int | None, int | None]:
    """Return `(uid, pid)` of the process that connected, or that listens; None where the system does not tell."""
    if sys.platform == "linux":
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return uid, pid
    if sys.platform == "darwin":
        # struct xucred {u_int version; uid_t uid; short ngroups; gid_t groups[16]}, and LOCAL_PEERPID beside it.
        credentials = sock.getsockopt(0, 0x001, 76)
        return struct.unpack_from("=2I", credentials)[1], struct.unpack("i", sock.getsockopt(0, 0x002, 4))[0]
    return None, None
