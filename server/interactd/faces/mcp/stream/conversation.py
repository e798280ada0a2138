"""Both directions of one message stream: what came in, what is still owed an answer, and batches.

`Conversation` is the SDK's write stream, `Inbox` its read stream. They stand directly on the bytes (or events) of a
transport: no memory channel and no pump task in between, which is where the stock transports spend their time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import anyio
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import INVALID_REQUEST, JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId

from interactd.faces.mcp.peer import Peer
from interactd.faces.mcp.stream.frames import Frame, encode, refusal

BATCH_VERSIONS = frozenset({"2024-11-05", "2025-03-26"})
"""JSON-RPC batches came with the first and left in 2025-06-18."""
YIELD_EVERY = 32

Write = Callable[[bytes], Awaitable[None]]
"""Sends one message; raises ConnectionError when the peer is gone."""


class Source(Protocol):
    """Where frames come from; `None` is the end."""

    async def next(self) -> Frame | None: ...

    async def linger(self, answered: asyncio.Event) -> None:
        """After the end: wait while the peer may still read answers, until all are sent."""
        ...


class _Batch:
    """A batch being answered. Requests leave it answered, or cancelled and so without an answer."""

    def __init__(self, refusals: list[JSONRPCError], waiting: set[RequestId]) -> None:
        self.answers: list[JSONRPCMessage] = list(refusals)
        self.waiting = waiting

    def encode(self) -> bytes:
        return b"[" + b",".join(encode(answer) for answer in self.answers) + b"]"


class Conversation:
    """What is owed to the peer of one connection."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._batches: dict[RequestId, _Batch] = {}
        self._owed: dict[RequestId, int] = {}
        self.answered = asyncio.Event()
        self.answered.set()
        self.version: str | None = None
        """The handshake's protocol version, once there is one."""

    @property
    def owed(self) -> int:
        """How many different requests wait for an answer."""
        return len(self._owed)

    async def take(self, frame: Frame) -> list[SessionMessage]:
        """Answer what the frame holds of refusals, and return its messages ready for the dispatcher."""
        if frame.batch:
            return await self._take_batch(frame)
        for error in frame.refusals:
            await self._put(encode(error))
        return [self._admit(message) for message in frame.messages]

    async def _take_batch(self, frame: Frame) -> list[SessionMessage]:
        if self.version is not None and self.version not in BATCH_VERSIONS:
            problem = f"protocol {self.version} has no JSON-RPC batches: send each message by itself"
            for message in frame.messages:
                if isinstance(message, JSONRPCRequest):
                    await self._put(encode(refusal(message.id, INVALID_REQUEST, problem)))
            return []
        waiting = {message.id for message in frame.messages if isinstance(message, JSONRPCRequest)}
        batch = _Batch(frame.refusals, waiting)
        if not waiting and batch.answers:
            await self._put(batch.encode())
        self._batches.update(dict.fromkeys(waiting, batch))
        return [self._admit(message) for message in frame.messages]

    def _admit(self, message: JSONRPCMessage) -> SessionMessage:
        if not isinstance(message, JSONRPCRequest):
            return SessionMessage(message)
        self._owed[message.id] = self._owed.get(message.id, 0) + 1
        self.answered.clear()
        return SessionMessage(
            message, metadata=ServerMessageMetadata(on_request_unanswered=partial(self._unanswered, message.id))
        )

    def _settle(self, number: RequestId) -> None:
        left = self._owed.get(number, 0) - 1
        if left > 0:
            self._owed[number] = left
        else:
            self._owed.pop(number, None)
        if not self._owed:
            self.answered.set()

    async def _unanswered(self, number: RequestId) -> None:
        """The peer cancelled the request: nothing may be sent for it, but its batch must not wait for it."""
        self._settle(number)
        batch = self._batches.pop(number, None)
        if batch is not None:
            batch.waiting.discard(number)
            await self._finish(batch)

    async def _finish(self, batch: _Batch) -> None:
        if not batch.waiting and batch.answers:
            await self._put(batch.encode())

    async def _put(self, data: bytes) -> None:
        try:
            await self._write(data)
        except (ConnectionError, RuntimeError) as error:
            # RuntimeError: the transport was closed under us.
            raise anyio.BrokenResourceError from error

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message of ours; the answer to part of a batch waits for the rest of it.

        Raises:
            anyio.BrokenResourceError: the peer is gone.
        """
        message = item.message
        if not isinstance(message, (JSONRPCResponse, JSONRPCError)) or message.id is None:
            await self._put(encode(message))
            return
        batch = self._batches.pop(message.id, None)
        try:
            if batch is None:
                await self._put(encode(message))
            else:
                batch.waiting.discard(message.id)
                batch.answers.append(message)
                await self._finish(batch)
        finally:
            self._settle(message.id)

    async def aclose(self) -> None:
        """The transport closes what it opened; nothing to do here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class Inbox:
    """The messages of one connection, in order, as the SDK's dispatcher reads them."""

    def __init__(self, source: Source, conversation: Conversation, peer: Peer) -> None:
        self._source = source
        self._conversation = conversation
        self._peer = peer
        self._ready: list[SessionMessage] = []
        self._count = 0

    async def receive(self) -> SessionMessage:
        """Return the next message.

        Raises:
            anyio.EndOfStream: the peer is done, and its requests are answered or it cannot hear the answers.
        """
        self._count += 1
        if self._count % YIELD_EVERY == 0 or self._conversation.owed > YIELD_EVERY:
            # Buffered input is read without a pause otherwise, and the calls it starts would never run.
            await asyncio.sleep(0)
        while not self._ready:
            try:
                frame = await self._source.next()
                if frame is None:
                    await self._source.linger(self._conversation.answered)
                    break
                self._ready = (await self._conversation.take(frame))[::-1]
            except (ConnectionError, anyio.BrokenResourceError):
                break
        if not self._ready:
            self._peer.left = True
            raise anyio.EndOfStream
        return self._ready.pop()

    async def aclose(self) -> None:
        """The transport closes what it opened; nothing to do here."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
