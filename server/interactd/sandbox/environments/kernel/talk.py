"""The host's side of a kernel: one request at a time, capped output, interrupts, and the truth about its death.

The code that runs can write anything to the stream that the kernel answers on, so an answer is only what follows the
nonce of the request, which was not known before; and all that an answer can do is to end its own request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any, Final, cast

from interactd.errors import SandboxFailed
from interactd.nouns import Json
from interactd.sandbox.environments.output import Capped
from interactd.sandbox.environments_port import Ran
from interactd.sandbox.port import Exit, Output, Sandbox, Why

log = logging.getLogger(__name__)

GRACE_S: Final = 1.5
"""How long code may go on after an interrupt before its process is ended."""
SETTLE_S: Final = 1.0
START_S: Final = 30.0
ANSWER_MAX: Final = 4096
QUIET_THREADS: Final = 2
"""Of the kernel itself: the one that runs code, the one that listens."""
_START: Final = 'p=$(command -v python3) || p=$0; exec "$p" -u -c "$1"'


def source() -> str:
    """Return the program that runs in the sandbox."""
    return resources.files(__package__ or "").joinpath("script.py").read_text("utf-8")


class _Request:
    """What is being waited for. `bare` requests have no output of their own."""

    def __init__(self, limit: int, on_output: Callable[[bytes], None] | None) -> None:
        self.nonce = secrets.token_hex(16)
        self.marker = b"\0" + self.nonce.encode() + b" "
        self.held = b""
        self.output = Capped()
        self.limit = limit
        self.on_output = on_output
        self.flooded = asyncio.Event()
        self.answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    def take(self, data: bytes) -> None:
        if self.answer.done():
            return
        data = self.held + data
        found = data.find(self.marker)
        if found < 0:
            # The marker may have begun at the end of this piece.
            keep = min(len(self.marker) - 1, len(data))
            at = data.rfind(b"\0", len(data) - keep) if keep else -1
            if at >= 0 and self.marker.startswith(data[at : at + len(self.marker)]):
                self._print(data[:at])
                self.held = data[at:]
            else:
                self._print(data)
                self.held = b""
            return
        self._print(data[:found])
        self.held = data[found:]
        end = self.held.find(b"\0", len(self.marker))
        if end >= 0:
            self.answer.set_result(_parse(self.held[len(self.marker) : end]))
        elif len(self.held) > ANSWER_MAX:
            self.answer.set_result({})

    def _print(self, data: bytes) -> None:
        if not data:
            return
        self.output.add(data)
        if self.on_output is not None and self.output.total <= self.limit:
            self.on_output(data)
        if self.output.total > self.limit:
            self.flooded.set()


def _parse(data: bytes) -> Json:
    try:
        said: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("Json", said) if isinstance(said, dict) else {}


class Kernel:
    """A Python process in a sandbox that remembers names from one piece of code to the next."""

    def __init__(self, sandbox: Sandbox, *, fallback: str = "python3") -> None:
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._current: _Request | None = None
        self.exit: Exit | None = None
        """How it ended; None while it lives."""
        self._gone = asyncio.Event()
        self._stream = sandbox.exec(
            ["/bin/sh", "-c", _START, fallback, source()],
            stdin=self._feed(),
            env={"MPLBACKEND": "Agg"},
            wall_s=math.inf,
            output_bytes=1 << 60,
        )
        self._reader = asyncio.create_task(self._read(), name="kernel")

    @property
    def dead(self) -> bool:
        return self._gone.is_set()

    async def alive(self) -> bool:
        """Whether it answers (bounded; a slow start counts as alive)."""
        await self._ask("settle", START_S)
        return not self.dead

    async def run(
        self, code: str, *, wall_s: float, output_bytes: int, on_output: Callable[[bytes], None] | None = None
    ) -> Ran:
        """Run one piece of code. When it does not stop for an interrupt the process is ended, and `dead` is set."""
        request = _Request(output_bytes, on_output)
        began = time.monotonic()
        self._current = request
        try:
            self._send({"run": request.nonce, "code": code})
            why = await self._first(request, wall_s)
            if why is not None:
                self._send({"interrupt": request.nonce})
                await self._first(request, GRACE_S, heed_flood=False)
                if not request.answer.done():
                    await self.aclose()
        except BaseException:
            # Cancelled: nothing of it may go on, and half-run code is no state to build on.
            await asyncio.shield(self.aclose())
            raise
        finally:
            self._current = None
        return self._ran(request, why, time.monotonic() - began)

    async def settle(self) -> bool:
        """End what the code left running; whether the kernel is quiet now and may be kept."""
        said = await self._ask("settle", SETTLE_S)
        return said.get("threads") == QUIET_THREADS and said.get("children") == 0

    async def aclose(self) -> None:
        """End the process and all that it started."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._gone.set()

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _ask(self, what: str, within_s: float) -> Json:
        request = _Request(1 << 20, None)
        self._current = request
        try:
            self._send({what: request.nonce})
            await self._first(request, within_s)
        finally:
            self._current = None
        return request.answer.result() if request.answer.done() else {}

    def _send(self, message: Json) -> None:
        self._requests.put_nowait(json.dumps(message).encode() + b"\n")

    async def _feed(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._requests.get()

    async def _read(self) -> None:
        try:
            async for item in self._stream:
                if isinstance(item, Exit):
                    self.exit = item
                else:
                    self._take(item)
        except SandboxFailed as error:
            log.info("a kernel's sandbox was gone: %s", error)
        finally:
            closing = getattr(self._stream, "aclose", None)
            if closing is not None:
                await closing()
            self._gone.set()

    def _take(self, item: Output) -> None:
        if self._current is not None:
            self._current.take(item.data)

    async def _first(self, request: _Request, within_s: float, *, heed_flood: bool = True) -> Why | None:
        """Wait for the answer or the kernel's end; else say what came instead."""
        flooded = asyncio.ensure_future(request.flooded.wait())
        gone = asyncio.ensure_future(self._gone.wait())
        waiting: set[asyncio.Future[Any]] = {request.answer, gone, *([flooded] if heed_flood else [])}
        try:
            done, _ = await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flooded.cancel()
            gone.cancel()
        if request.answer in done or gone in done:
            return None
        return "output" if flooded in done else "timeout"

    def _ran(self, request: _Request, why: Why | None, wall: float) -> Ran:
        output = request.output
        text = output.text()
        said = request.answer.result() if request.answer.done() else {}
        if request.answer.done() and (why is None or said.get("interrupted") is False):
            ok, code = said.get("ok") is True, said.get("code")
            ended = code if isinstance(code, int) and 0 <= code < 256 else 0 if ok else 1
            return Ran(text, Exit(ended, None, "exit", wall, _cpu(said)), output.truncated)
        if request.answer.done():
            what = f"after {wall:.0f} s" if why == "timeout" else "because it printed too much"
            text += f"\n[Interrupted {what}. The names that were defined are still there.]\n"
            return Ran(text, Exit(None, 2, why or "exit", wall, _cpu(said)), output.truncated)
        ended_as = self.exit or Exit(None, 9, why or "sandbox_died", wall)
        true_why = why or ended_as.why
        text += f"\n[The Python process ended ({_how(ended_as, true_why)}): names defined so far are gone.]\n"
        last = Exit(ended_as.code, ended_as.signal, true_why, wall, ended_as.cpu_s, ended_as.peak_memory)
        return Ran(text, last, output.truncated)


def _cpu(said: Json) -> float | None:
    cpu = said.get("cpu")
    return float(cpu) if isinstance(cpu, int | float) and 0 <= cpu < 1e9 else None


def _how(ended: Exit, why: Why) -> str:
    if why != "exit":
        return {"timeout": "it did not stop in time", "output": "it printed too much"}.get(why, why)
    return f"signal {ended.signal}" if ended.signal else f"exit code {ended.code}"
