"""One attempt at an interaction, from its claim to its outcome.

Only waiting and reading are ever interrupted: `stop` cancels a scope that holds the wait for a slot, for a key and the
model call. Writes happen outside of it, so that the journal says what the runner did whatever comes in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal, TypeVar, cast

import anyio

from interactd.engine.core import Core
from interactd.engine.dispatch.retries import pause_before
from interactd.engine.money.purse import Purse
from interactd.engine.run.draft import Draft
from interactd.engine.run.history import tools_of
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import Verdict, judge, unanswered
from interactd.errors import (
    ContextOverflow,
    Fenced,
    InteractdError,
    MissingKey,
    StorageError,
    StorageFull,
    StreamTruncated,
)
from interactd.models.port import Finished, Model, ModelRequest
from interactd.nouns import Interaction, Json, Session, Status, Step, Usage

log = logging.getLogger(__name__)
T = TypeVar("T")
_AT_ONCE_S: Final = 0.01

Stop = Literal["hand_over", "timeout", "cancel", "fenced"]
"""Why: the daemon leaves; its time is over; somebody cancelled it; another daemon has it or it has ended."""
_STRONGER: Final = ("hand_over", "timeout", "cancel", "fenced")


class Run:
    """A claimed interaction being run. `done` is set when the runner has written its last."""

    def __init__(
        self,
        core: Core,
        interaction: Interaction,
        session: Session,
        own: Sequence[Step],
        note: Note,
        model: Model | None,
    ) -> None:
        self.interaction = interaction
        self.done = asyncio.Event()
        self.settled = asyncio.Event()
        """Set when the outcome is written; a runner may have to clear up after that."""
        self.over = asyncio.Event()
        """Set by whoever runs it, when nobody counts it as running any more."""
        self.slot = asyncio.Event()
        """Set by whoever runs it, when it may work."""
        self.again: Note | None = None
        """With this note it waits in the line again, to be tried once more."""
        self.settling = False
        """Whether the outcome is known and only has to be written."""
        self.draft: Draft | None = None
        self._core = core
        self._session = session
        self._own: list[Step] = list(own)
        self._note = note.begun()
        self._model = model
        self._terms = core.settings.terms_of(interaction)
        self._begun_at: float | None = None
        self._stop: Stop | None = None
        self._scope: anyio.CancelScope | None = None
        self.purse = Purse(core.money, interaction, lambda: self.stop("timeout"))
        self.channel = core.hub.open(interaction.id)
        self.channel.attempt = interaction.epoch
        core.refused.pop(interaction.id, None)

    @property
    def connection(self) -> str | None:
        return self._note.connection

    def stop(self, why: Stop) -> None:
        """Stop what it does and go: settle as cancelled or as out of time, leave the rest to the next daemon, or write
        nothing at all. Returns at once."""
        if self._stop is None or _STRONGER.index(why) > _STRONGER.index(self._stop):
            self._stop = why
        if self._scope is not None:
            self._scope.cancel()

    async def go(self) -> None:
        """Run to the end. Raises nothing but cancellation; what goes wrong is the interaction's outcome."""
        try:
            try:
                await self._go()
            except asyncio.CancelledError:
                raise
            except (Fenced, StorageError, StorageFull):
                raise
            except InteractdError as error:
                await self._fail(error.as_dict())
            except Exception:
                log.exception("run of %s failed", self.interaction.id)
                await self._fail(
                    {
                        "code": "internal",
                        "message": "Something went wrong inside interactd; the log has the details.",
                        "repair": "Send the turn again. If it fails again, report it with the daemon's log.",
                    }
                )
        except Fenced:
            # Somebody else has settled it or runs it now; whatever is written is theirs.
            log.info("run of %s was fenced", self.interaction.id)
        except InteractdError as error:
            # The disk refused the outcome for too long. The interaction stays in progress in the journal, and the
            # sweeper takes it up again.
            log.error("the outcome of %s cannot be written: %s", self.interaction.id, error)
            self._core.refused[self.interaction.id] = error
        finally:
            self.purse.close()
            self.settled.set()
            self.done.set()

    def partial(self) -> list[Step]:
        """What it has made and not written yet: kept by whoever has to end it."""
        return self.draft.partial() if self.draft else []

    @property
    def at_work(self) -> bool:
        """Whether a stop now would cut something short that cannot simply be begun later."""
        return self.draft is not None

    async def _go(self) -> None:
        self.channel.status(self.interaction)
        self.channel.journalled(self._own, 0)
        if waiting := self._waits():
            # A crash between the claim and the answers of `respond`: the caller still has to give them.
            log.info("%s still waits for %d function results", self.interaction.id, len(waiting))
            await self._settle("requires_action", ())
            return
        with self._interruptible() as scope:
            # Whoever may go at once is told so within a few turns of the loop; that is no waiting to write down.
            with anyio.move_on_after(_AT_ONCE_S):
                await self.slot.wait()
        if not (self.slot.is_set() or scope.cancelled_caught):
            await self._write_note(replace(self._note, waiting=True))
        with self._interruptible() as scope:
            await self.slot.wait()
        if scope.cancelled_caught:
            await self._stopped()
            return
        if self._note.waiting:
            await self._write_note(replace(self._note, waiting=False))
        loop = asyncio.get_running_loop()
        self._begun_at = loop.time()
        limit = self._terms.get("timeout_s")
        timer = loop.call_later(max(0.0, limit - self._note.ran), self.stop, "timeout") if limit else None
        try:
            await self._work()
        finally:
            if timer is not None:
                timer.cancel()

    def _ran(self) -> float:
        """Seconds this turn has worked, earlier attempts included."""
        if self._begun_at is None:
            return self._note.ran
        return self._note.ran + asyncio.get_running_loop().time() - self._begun_at

    def _timed(self, note: Note) -> Note:
        """The note with the time worked so far."""
        ran = self._ran()
        if self._begun_at is not None:
            self._begun_at = asyncio.get_running_loop().time()
        return replace(note, ran=round(ran, 3)) if self._terms.get("timeout_s") else note

    def _waits(self) -> list[Step]:
        """Calls that only the caller can answer, before anything else can be done."""
        return unanswered(self._own)

    async def _work(self) -> None:
        """From the first model call to the outcome."""
        while await self._call(generated(self._own)):
            pass

    async def _call(self, index: int) -> bool:
        """Make one model call and write what came of it. True when another one must follow."""
        self.draft = draft = Draft(self.channel, index, self._core.settings.max_output_bytes)
        failure: InteractdError | None = None
        with self._interruptible() as scope:
            try:
                await self._ask(draft)
            except InteractdError as error:
                failure = error
        if scope.cancelled_caught or (self._stop and draft.finished is None and failure is None):
            await self._stopped()
            return False
        if failure is not None:
            await self._fail(failure.as_dict())
            return False
        finished = draft.finished
        if finished is None:
            await self._outgrown()
            return False
        usage = plus(self._note.usage, finished.usage)
        verdict = self.purse.judged(self._judge(draft, finished))
        if verdict.status is None and self._note.bad_calls + 1 < self._core.settings.bad_call_limit:
            await self._go_on(verdict, usage)
            return True
        if verdict.status is None:
            verdict = replace(verdict, status="failed", error=_bad_calls(verdict, self._note.bad_calls + 1))
        await self._settle(
            cast("Status", verdict.status),
            verdict.steps,
            usage=usage,
            error=verdict.error,
            finish_reason=verdict.finish_reason,
        )
        return False

    async def _ask(self, draft: Draft) -> None:
        """Stream one model call into the draft; once more with half the history if it was too long."""
        model = self._model = self._model or await self._resolve()
        shrink = 1.0
        while True:
            request = await self._request(model, shrink)
            await self._core.lease.check(self.interaction)
            try:
                async with aclosing(self.purse.stream(model, request)) as events:
                    async for event in events:
                        draft.feed(event)
                        if draft.overflowed:
                            return
            except ContextOverflow:
                if draft.produced or shrink < 1 or not self._can_shrink():
                    raise
                shrink = 0.5
                continue
            if draft.finished is None:
                raise StreamTruncated(
                    "The model's stream ended before it said that it was done.",
                    repair="Send the turn again; what came is kept.",
                )
            self._core.history.learn(model, request, draft.finished.usage and draft.finished.usage.input)
            return

    async def _request(self, model: Model, shrink: float) -> ModelRequest:
        return await self._core.history.request(model, self._session, self.interaction, self._own, shrink=shrink)

    def _can_shrink(self) -> bool:
        """Whether anything can be left out of a request that is too long."""
        return self.interaction.previous_interaction_id is not None

    async def _resolve(self) -> Model:
        """Find the model again after a restart. Its key may still be on the way: hosts connect after we start."""
        name = self.interaction.model or self._session.model or "auto"
        loop = asyncio.get_running_loop()
        end = loop.time() + self._core.settings.resume_key_wait_s
        pause = 0.05
        while True:
            try:
                return await self._core.catalog.resolve(name, connection=self._note.connection)
            except MissingKey as error:
                if loop.time() + pause > end:
                    raise MissingKey(
                        f"{error.message} No host connected again in time to bring it.",
                        repair="Open the host that has the key, or configure one, and send the turn again.",
                        **error.fields,
                    ) from error
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def _judge(self, draft: Draft, finished: Finished) -> Verdict:
        config = self.interaction.generation_config
        answered = any(step.type == "function_result" for step in self._own)
        return judge(
            draft.partial(),
            finished,
            tools=[str(tool["name"]) for tool in tools_of(self._session, self.interaction)],
            must_call=config.tool_choice == "any" and not answered,
            call_ids=[str(step.body.get("id")) for step in self._own if step.type == "function_call"],
        )

    async def _go_on(self, verdict: Verdict, usage: Usage | None) -> None:
        note, bill = self._timed(self._note.next_call(usage, bad=bool(verdict.bad_calls))), self.purse.bill()
        written = await self._held(
            lambda: self._core.store.append(
                self.interaction.id, self.interaction.epoch, verdict.steps, pending=note.as_dict(), bill=bill
            )
        )
        self.draft = None
        self._note = note
        self._own += written
        self.channel.journalled(written, generated(self._own) - len(written))

    async def _stopped(self) -> None:
        self._fenced()
        if self._stop == "hand_over":
            await self._write_note(self._timed(replace(self._note, handed_over=True)))
            return
        steps = self.draft.partial() if self.draft else ()
        if self._stop == "timeout":
            error = self._out_of_time()
            await self._settle(ended_as(error, "incomplete"), steps, usage=self._note.usage, error=error)
            return
        await self._settle("cancelled", steps, usage=self._note.usage)

    def _out_of_time(self) -> Json:
        return self.purse.over or {
            "code": "time_exceeded",
            "message": f"The turn was stopped after {self._terms['timeout_s']:g} s (timeout_s).",
            "repair": 'Everything it did is kept. Send another turn in this session ("go on") to let it continue, '
            "or one with a larger timeout_s.",
        }

    def _fenced(self) -> None:
        if self._stop == "fenced":
            raise Fenced(f"interaction {self.interaction.id} is another runner's now", id=self.interaction.id)

    async def _outgrown(self) -> None:
        limit = self._core.settings.max_output_bytes
        error: Json = {
            "code": "output_too_large",
            "message": f"The model was stopped after {limit:,} bytes of output.",
            "repair": "Ask for less at a time, or set max_output_tokens.",
        }
        steps = self.draft.partial() if self.draft else ()
        await self._settle("incomplete", steps, usage=self._note.usage, error=error, finish_reason="length")

    async def _fail(self, error: Json) -> None:
        if await self._try_again(error):
            return
        steps = self.draft.partial() if self.draft else ()
        await self._settle(ended_as(error), steps, usage=self._note.usage, error=error)

    async def _try_again(self, error: Json) -> bool:
        """Put it back into the line if it failed for a reason that may pass; True when that was done.

        Not when the answer that broke off has finished steps: they would be lost, or made a second time.
        """
        pause = pause_before(error, self._note.retries, int(self._terms["retries"]))
        if pause is None or self._core.handing_over or (self.draft is not None and self.draft.steps()):
            return False
        note = self._timed(self._note.again(pause, self._core.clock(), str(error["code"])))
        self.settling = True
        self.interaction = await self._core.store.requeue(
            self.interaction.id, self.interaction.epoch, pending=note.as_dict(), bill=self.purse.bill()
        )
        log.info("%s: %s; trying again in %.1f s", self.interaction.id, error["code"], pause)
        self.again = note
        self.channel.status(self.interaction)
        return True

    async def _write_note(self, note: Note) -> None:
        bill = self.purse.bill(leaving=note.handed_over)
        await self._core.store.append(
            self.interaction.id, self.interaction.epoch, (), pending=note.as_dict(), bill=bill
        )
        self._note = note

    async def _settle(
        self,
        status: Status,
        steps: Sequence[Step],
        *,
        usage: Usage | None = None,
        error: Json | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """Write the outcome."""
        self.settling = True
        bill = self.purse.bill()
        settled = await self._held(
            lambda: self._core.store.settle(
                self.interaction.id,
                self.interaction.epoch,
                status,
                steps=steps,
                usage=usage,
                error=error,
                finish_reason=finish_reason,
                # A clock that goes back must not end a run before it began.
                now=max(self._core.clock(), self.interaction.started_at or 0.0),
                bill=bill,
            )
        )
        self.settled.set()
        self.interaction = settled
        self.channel.journalled(steps, generated(self._own))
        self.channel.status(settled)
        await self._keep_alive(settled)

    async def _held(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write what was made; while the disk refuses it, hold it for a bounded time and try again: a model's answer
        and a tool's result cannot be had a second time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._core.settings.journal_patience_s
        pause = 0.1
        while True:
            try:
                written = await write()
                break
            except (StorageFull, StorageError) as refused:
                self._core.refused[self.interaction.id] = refused
                if loop.time() + pause > end:
                    raise
                log.warning("%s: %s; trying again", self.interaction.id, refused)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
        self._core.refused.pop(self.interaction.id, None)
        return written

    async def _keep_alive(self, settled: Interaction) -> None:
        """A run that took long must not find its session expired before anybody read the answer."""
        session = self._session
        if session.ttl_s is None:
            return
        now = self._core.clock()
        if now - settled.created_at > session.ttl_s / 2:
            await self._core.store.set_expiry(session.id, session.ttl_s, now + session.ttl_s)

    def _interruptible(self, timeout_s: float | None = None) -> anyio.CancelScope:
        self._scope = scope = anyio.CancelScope()
        if timeout_s is not None:
            scope.deadline = anyio.current_time() + timeout_s
        if self._stop is not None:
            scope.cancel()
        return scope


def generated(steps: Sequence[Step]) -> int:
    """How many of the steps are not the user's: indexes of events count those."""
    return sum(step.type != "user_input" for step in steps)


def ended_as(error: Json, else_: Status = "failed") -> Status:
    """What a turn that ends with this error is: one that ran out of budget has not failed."""
    return "budget_exceeded" if error.get("code") == "budget_exceeded" else else_


def plus(a: Usage | None, b: Usage | None) -> Usage | None:
    """Add two usages, either of which may be missing."""
    return b if a is None else a if b is None else a.plus(b)


def _bad_calls(verdict: Verdict, rounds: int) -> Json:
    names = ", ".join(dict.fromkeys(verdict.bad_calls))
    return {
        "code": "bad_tool_calls",
        "message": f"In {rounds} answers in a row the model called functions that cannot be answered: {names}.",
        "repair": "Declare those functions in tools, or use a model that is better at calling functions.",
    }
