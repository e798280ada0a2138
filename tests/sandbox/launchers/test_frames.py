"""A supervisor that was taken over can say anything; the host believes only what it must say."""

from __future__ import annotations

import asyncio
import socket

import pytest

from interactd.errors import SandboxFailed
from interactd.sandbox.launchers.supervised import EXIT, HEADER, READY, Supervised
from interactd.sandbox.port import Exit, Isolation, Limits

pytestmark = pytest.mark.anyio
NONE = Isolation("test", *["absent"] * 7)  # type: ignore[arg-type]


def frame(kind: int, number: int = 0, status: int = 0) -> bytes:
    return bytes([kind, 0, 0, 0]) + number.to_bytes(4, "little") + status.to_bytes(4, "little") + bytes(20)


class Taken:
    """A host side whose sandbox is us."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.killed = asyncio.Event()
        self.host = Supervised(ours, isolation=NONE, limits=Limits(wall_s=5), env={}, kill=self.kill)

    def kill(self) -> None:
        self.killed.set()
        self.host.died()

    async def run(self, *answers: bytes) -> Exit:
        """Let the host run a command, and answer it like this."""

        async def answer() -> None:
            loop = asyncio.get_running_loop()
            self.theirs.setblocking(False)
            await loop.sock_recv(self.theirs, HEADER)  # descriptors that came along are dropped by the kernel
            for data in answers:
                await loop.sock_sendall(self.theirs, data)

        task = asyncio.ensure_future(answer())
        last = [event async for event in self.host.exec(["true"])][-1]
        await task
        assert isinstance(last, Exit)
        return last

    async def close(self) -> None:
        await self.host.aclose()
        self.theirs.close()


@pytest.mark.parametrize(
    "said",
    [frame(9), frame(0), frame(READY) + frame(READY), frame(EXIT, 77), frame(EXIT, 1, 1 << 20), b"\xff" * 32],
    ids=["unknown kind", "zero", "ready twice", "an exit of nothing", "an impossible status", "noise"],
)
async def test_a_frame_that_must_not_be_ends_the_sandbox(said: bytes) -> None:
    taken = Taken()
    try:
        ended = await taken.run(said)
        assert taken.killed.is_set()
        assert ended.why == "sandbox_died"
    finally:
        await taken.close()


async def test_a_command_cannot_end_twice() -> None:
    taken = Taken()
    try:
        await taken.run(frame(EXIT, 1) + frame(EXIT, 1))
        assert taken.killed.is_set()
    finally:
        await taken.close()


async def test_half_a_frame_is_waited_for_and_a_closed_socket_is_the_end() -> None:
    taken = Taken()
    try:
        ended = await taken.run(frame(EXIT, 1, 3 << 8)[:10], frame(EXIT, 1, 3 << 8)[10:])
        assert (ended.code, taken.killed.is_set()) == (3, False)
        taken.theirs.close()
        async with asyncio.timeout(2):
            await taken.killed.wait()
    finally:
        await taken.close()


async def test_half_a_message_to_a_supervisor_that_does_not_read_ends_the_sandbox() -> None:
    taken = Taken()
    try:

        async def run() -> None:
            async for _ in taken.host.exec(["true", "x" * 3_000_000]):
                continue

        task = asyncio.ensure_future(run())
        await asyncio.sleep(0.1)
        assert not task.done(), "its text does not fit into the socket"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert taken.killed.is_set()
        with pytest.raises(SandboxFailed):
            await run()
    finally:
        await taken.close()
