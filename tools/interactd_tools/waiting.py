"""Waiting for an interaction inside the client's deadline, and telling it what comes meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from interactd.engine.port import Event, Inbox, Result
from interactd.errors import InteractdError
from interactd.nouns import Json, Step
from interactd_tools.answers.inbox import at_work
from interactd_tools.answers.printed import last_line
from interactd_tools.answers.progress import progress
from interactd_tools.arguments.fields import MAX_WAIT_S
from interactd_tools.context import CallContext, Place, Progress, ProgressKind
from interactd_tools.deadlines import longest_wait

TEXT_EVERY_S = 0.25
STATUS_AFTER_S = 5.0
OUTPUT_EVERY_S = 1.0
_KEPT = 2_000
_LAST_WORDS_S = 0.5
_LOOKED_AT = 20

log = logging.getLogger(__name__)


async def wait(ctx: CallContext, interaction_id: str, wait_s: float, *, begun: float) -> Result:
    """Wait until the interaction needs nobody's patience any more, or the time is up.

    Args:
        ctx: the call; its progress is fed while waiting.
        interaction_id: whole.
        wait_s: what the caller asked for; cut to what its client allows.
        begun: `time.monotonic()` when the call came in: what was used since then is taken off.
    """
    timeout_s = _allowed(ctx, wait_s, begun)
    if ctx.progress is None or timeout_s == 0:
        return await ctx.engine.wait(interaction_id, timeout_s, caller=ctx.caller)
    async with _progress(ctx, ctx.progress, interaction_id) as telling:
        result = await ctx.engine.wait(interaction_id, timeout_s, caller=ctx.caller)
        if result.interaction.status not in ("queued", "in_progress"):
            # The stream has ended too: let its last words out before the answer.
            await asyncio.wait({telling}, timeout=_LAST_WORDS_S)
    return result


async def wait_for_any(ctx: CallContext, session_id: str | None, wait_s: float, *, begun: float) -> tuple[Inbox, bool]:
    """Wait until there is an unread background result; arguments as of `wait`. Reads nothing.

    Returns:
        What there is now, and whether one that ran when the call came in asks something now: that is then the first
        of `waiting`.
    """
    found = await ctx.engine.inbox(session_id=session_id, limit=_LOOKED_AT, caller=ctx.caller)
    timeout_s = _allowed(ctx, wait_s, begun)
    if found.unread or not found.running or timeout_s == 0:
        return found, False
    ran = {one.id for one in found.running}
    looking = ctx.engine.inbox(session_id=session_id, limit=_LOOKED_AT, wait_s=timeout_s, caller=ctx.caller)
    if ctx.progress is None:
        found = await looking
    else:
        first = at_work(found)
        send = ctx.progress if len(ran) == 1 else _one_of(ctx.progress, first, found.running_total)
        async with _progress(ctx, send, first):
            found = await looking
    found.waiting.sort(key=lambda one: one.interaction.id not in ran)
    asks = bool(found.waiting) and found.waiting[0].interaction.id in ran and not found.unread
    return found, asks


def _one_of(send: Progress, interaction_id: str, total: int) -> Progress:
    async def tell(message: str, kind: ProgressKind) -> None:
        # Another one may end first: the text of this one would be taken for that one's answer.
        if kind == "status":
            await send(f"{interaction_id}, one of {total}: {message}", kind)

    return tell


def _allowed(ctx: CallContext, wait_s: float, begun: float) -> float:
    allowed = longest_wait(ctx.client_name, ctx.deadline_s) - (time.monotonic() - begun)
    return max(0.0, min(wait_s, MAX_WAIT_S, allowed))


@asynccontextmanager
async def _progress(ctx: CallContext, send: Progress, interaction_id: str) -> AsyncGenerator[asyncio.Task[None]]:
    telling = asyncio.create_task(_tell(ctx, send, interaction_id), name=f"progress {interaction_id}")
    try:
        yield telling
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _tell(ctx: CallContext, send: Progress, interaction_id: str) -> None:
    place = ctx.place
    if place.interaction_id != interaction_id:
        place.interaction_id, place.after, place.partial = interaction_id, 0, False
    teller = _Teller(send, place)
    try:
        if place.partial:
            await send("The daemon was started anew: the text begins again where its last step began.", "status")
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(teller.clock())
            async for event in ctx.engine.events(interaction_id, after=place.after):
                teller.take(event)
            clock.cancel()
        await teller.flush()
    except* InteractdError as errors:
        # The wait beside this meets the same trouble and reports it.
        log.debug("no progress for %s: %s", interaction_id, errors.exceptions[0])
    except* Exception:
        # The client's side of progress must never fail the call it is about.
        log.warning("progress for %s stopped", interaction_id, exc_info=True)


class _Teller:
    """Gathers deltas and sends them at most four times a second; a line about running code's output at most every
    second; a status line after five silent seconds."""

    def __init__(self, send: Progress, place: Place) -> None:
        self._send = send
        self._place = place
        self._after, self._partial = place.after, place.partial
        self._begun = self._spoke = time.monotonic()
        self._buffer: list[str] = []
        self._characters = 0
        self._status = "in_progress"
        self._types: dict[int, str] = {}
        self._calls: list[Step] = []
        self._told = self._now = ""
        self._printed = self._printed_told = ""

    def take(self, event: Event) -> None:
        data = event.data
        self._after = event.seq
        if event.type == "step.start":
            step: Json = data.get("step") or {}
            self._types[data.get("index", 0)] = step.get("type", "")
        elif event.type == "step.stop":
            self._partial = False
            self._stopped(data.get("step") or {})
        elif event.type == "step.delta":
            delta: Json = data.get("delta") or {}
            is_output = self._types.get(data.get("index", 0), "model_output") == "model_output"
            if delta.get("type") == "text" and is_output and delta.get("text"):
                self._partial = True
                self._buffer.append(delta["text"])
                self._characters += len(delta["text"])
            elif delta.get("type") == "code_execution_result":
                self._printed = (self._printed + str(delta.get("result") or ""))[-_KEPT:]
        elif event.type == "interaction.status":
            self._status = data.get("status") or self._status

    def _stopped(self, step: Json) -> None:
        """Note what an agent does now: the call that was made last, until its result is there."""
        kind = str(step.get("type") or "")
        if kind.endswith(("_call", "_result")):
            self._calls.append(Step(kind, {name: value for name, value in step.items() if name != "type"}))
            self._now = progress(self._calls)
            self._printed = self._printed_told = ""

    async def clock(self) -> None:
        while True:
            await asyncio.sleep(TEXT_EVERY_S)
            await self.flush()
            now = time.monotonic()
            printed = last_line(self._printed)
            news = printed != self._printed_told and now - self._spoke >= OUTPUT_EVERY_S
            if self._now != self._told or news:
                self._told, self._printed_told, self._spoke = self._now, printed, now
                await self._send(f"{self._now} · printed: {printed}" if printed else self._now, "status")
            elif now - self._spoke >= STATUS_AFTER_S:
                self._spoke = now
                status = self._status.replace("_", " ")
                what = self._now or f"{self._characters:,} characters so far"
                line = f"{status} {now - self._begun:.0f} s, {what}"
                await self._send(line, "status")

    async def flush(self) -> None:
        self._place.after, self._place.partial = self._after, self._partial
        if self._buffer:
            text, self._buffer = "".join(self._buffer), []
            self._spoke = time.monotonic()
            await self._send(text, "text")
