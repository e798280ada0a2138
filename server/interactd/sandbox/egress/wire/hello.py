"""The first message of a TLS client: whom it says it wants to talk to (RFC 8446 4.1.2, RFC 6066 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from interactd.sandbox.egress.wire.stream import Reader

MAX_HELLO = 64 * 1024
_SERVER_NAME = 0
# encrypted_client_hello and the older encrypted_server_name: the true name would be hidden from us.
_HIDDEN_NAME = (0xFE0D, 0xFFCE)


class NotTls(Exception):
    """What came is no TLS ClientHello, or a broken one; the message says which."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`raw` is every byte read so far, to be passed on. `names` are the server names as sent."""

    raw: bytes
    names: tuple[str, ...]
    hidden_name: bool


async def read_client_hello(reader: Reader) -> ClientHello:
    """Read records until the ClientHello is whole. Not bounded in time.

    Raises:
        NotTls: see there.
        EOFError: the client went away.
    """
    raw, message = b"", b""
    while True:
        header = await reader.exactly(1)
        raw += header
        if header[0] != 0x16:
            raise NotTls("what was sent into the tunnel is not TLS")
        rest = await reader.exactly(4)
        raw += rest
        major, length = rest[0], struct.unpack("!H", rest[2:])[0]
        if major != 3 or not 1 <= length <= 1 << 14:
            raise NotTls("what was sent into the tunnel is not TLS")
        fragment = await reader.exactly(length)
        raw, message = raw + fragment, message + fragment
        if message[0] != 1:
            raise NotTls("the TLS connection does not begin with a ClientHello")
        if len(message) >= 4:
            needed = 4 + int.from_bytes(message[1:4], "big")
            if needed > MAX_HELLO:
                raise NotTls("the ClientHello is too long")
            if len(message) >= needed:
                if len(message) > needed:
                    raise NotTls("the ClientHello is followed by something else in its record")
                names, hidden = _parse(message[4:needed])
                return ClientHello(raw, names, hidden)
        if len(raw) > 2 * MAX_HELLO:
            raise NotTls("the ClientHello is too long")


def _parse(body: bytes) -> tuple[tuple[str, ...], bool]:
    cursor = _Cursor(body)
    cursor.take(2 + 32)
    cursor.vector(1)
    cursor.vector(2)
    cursor.vector(1)
    if cursor.at_end:
        return (), False
    extensions = _Cursor(cursor.vector(2))
    if not cursor.at_end:
        raise NotTls("the ClientHello is malformed")
    names: list[str] = []
    hidden, seen = False, set[int]()
    while not extensions.at_end:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind in seen:
            raise NotTls("the ClientHello has an extension twice")
        seen.add(kind)
        hidden = hidden or kind in _HIDDEN_NAME
        if kind == _SERVER_NAME:
            entries = _Cursor(_Cursor(content).vector(2))
            while not entries.at_end:
                entry_kind, name = entries.number(1), entries.vector(2)
                if entry_kind != 0:
                    raise NotTls("the ClientHello has a server name of an unknown kind")
                names.append(name.decode("ascii", "backslashreplace"))
    return tuple(names), hidden


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        out = self._data[self._at : self._at + count]
        if len(out) != count:
            raise NotTls("the ClientHello is malformed")
        self._at += count
        return out

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))
