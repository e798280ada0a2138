"""The loop that fires triggers, starts what they fired, and ends what takes too long.

Nothing here is remembered: every pass reads from the store what is due, so that the next daemon after one that was
killed, or a second one on the same store, goes on with the same. It sleeps until the next thing is due, and no longer
than the recheck, because the clock may be set and a machine may sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from interactd.durable.bell import Bell
from interactd.durable.port import Turns
from interactd.durable.settings import DurableSettings
from interactd.durable.triggers.deciding import decide
from interactd.errors import (
    Fenced,
    InteractdError,
    NotFound,
    Overloaded,
    ProviderTimeout,
    ProviderUnavailable,
    StorageError,
    StorageFull,
)
from interactd.nouns import Json
from interactd.store.schedules_port import Due, Execution, ScheduleStore

log = logging.getLogger(__name__)

_AGAIN_S = 5.0
_SOON_S = 0.05
_STOP_S = 5.0
_NOT_NOW = (Overloaded, StorageFull, StorageError, Fenced)
"""Failures that say nothing about the work: it is started when there is room."""
_PERHAPS_LATER = (ProviderUnavailable, ProviderTimeout)
"""Failures that may be over in a minute: a model server that is being started. A person who asked is told at once."""
_LATER_S = 30.0


class Firing:
    """One per daemon, from `start` to `aclose`."""

    def __init__(
        self, store: ScheduleStore, turns: Turns, settings: DurableSettings, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._turns = turns
        self._settings = settings
        self._clock = clock
        self.bell = Bell()
        self.holding = 0
        self._room = asyncio.Semaphore(settings.starts_at_once)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._prune_at = 0.0

    async def start(self) -> None:
        """Begin; what is held is known when this returns."""
        self.holding = _held(await self._store.due())
        self._task = asyncio.create_task(self._run(), name="triggers")

    async def aclose(self) -> None:
        """Fire nothing more, and wait a little for what is being started."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._busy:
            await asyncio.wait(set(self._busy.values()), timeout=_STOP_S)
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def idle(self) -> None:
        """Wait until nothing is being started or stopped."""
        while self._busy:
            await asyncio.wait(set(self._busy.values()))

    async def run_now(self, execution_id: str, timeout_s: float) -> None:
        """Wait, bounded, until an execution that was recorded by hand has been started or could not be."""
        self.bell.ring()
        end = asyncio.get_running_loop().time() + timeout_s
        while (left := end - asyncio.get_running_loop().time()) > 0:
            execution = await self._store.get_execution(execution_id)
            if execution.status != "in_progress" or execution.interaction_id is not None:
                return
            task = self._busy.get(execution_id)
            if task is not None:
                await asyncio.wait([task], timeout=left)
            await asyncio.sleep(min(left, _SOON_S))

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._pass()
            except InteractdError as error:
                # A full disk today is no reason not to look again.
                log.warning("triggers: %s", error)
                pause = _AGAIN_S
            except Exception:
                log.exception("triggers: a pass failed")
                pause = _AGAIN_S
            await self.bell.wait(pause)

    async def _pass(self) -> float | None:
        """Do all that is due; returns the seconds until the next thing is, `None` when nothing is waited for."""
        now = self._clock()
        for trigger in await self._store.due_triggers(now):
            try:
                decision = decide(trigger, now, self._settings)
            except InteractdError as error:
                log.warning("trigger %s cannot be worked out: %s", trigger.id, error)
                await self._stop(trigger.id, error.as_dict())
                continue
            for execution in await self._store.fire(decision):
                log.info("trigger %s: %s (%s)", trigger.id, execution.status, execution.reason or execution.cause)
        due = await self._store.due()
        if due.queued or _past(due.start_at, now):
            for execution in await self._store.claim_starts(now, self._settings.start_lease_s):
                self._do(execution.id, self._start(execution))
        if _past(due.deadline_at, now):
            await self._store.expire(now)
        for execution in await self._store.to_cancel():
            self._do(f"{execution.id}:cancel", self._cancel(execution))
        if now >= self._prune_at:
            self._prune_at = now + self._settings.prune_every_s
            await self._store.prune(now - self._settings.kept_s)
        due = await self._store.due()
        self.holding = _held(due)
        if not self.holding:
            return None
        waits = [at for at in (due.next_run_at, due.start_at, due.deadline_at) if at is not None]
        # What is still due was changed by somebody else in between: look again, but not at once.
        until = max(min(waits) - self._clock(), _SOON_S) if waits else self._settings.recheck_s
        return min(until, self._settings.recheck_s)

    def _do(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        if name in self._busy or self._closing:
            work.close()
            return
        task = asyncio.create_task(work, name=f"trigger {name}")
        self._busy[name] = task
        task.add_done_callback(lambda _: self._done(name))

    def _done(self, name: str) -> None:
        self._busy.pop(name, None)
        self.bell.ring()

    async def _start(self, execution: Execution) -> None:
        now = self._clock()
        try:
            async with self._room:
                cwd = await self._cwd(execution)
                await self._turns.start(execution, cwd)
        except InteractdError as error:
            if (pause := self._pause(error, execution, now)) is None:
                await self._failed(execution, error.as_dict())
                return
            log.info("execution %s is started later: %s", execution.id, error)
            with contextlib.suppress(InteractdError):
                await self._store.put_off(execution.id, now + pause)
        except Exception as error:
            log.exception("execution %s could not be started", execution.id)
            await self._failed(execution, {"code": "internal", "message": f"{type(error).__name__} at its start"})

    def _pause(self, error: InteractdError, execution: Execution, now: float) -> float | None:
        """After how long to try a start again; `None` when it has failed."""
        patient = now - execution.created_at < self._settings.start_patience_s
        if isinstance(error, _NOT_NOW):
            return _AGAIN_S if patient or self._closing else None
        if isinstance(error, _PERHAPS_LATER) and execution.cause != "manual" and patient:
            return _LATER_S
        return None

    async def _cwd(self, execution: Execution) -> str | None:
        try:
            return (await self._store.get_trigger(execution.trigger_id)).cwd
        except NotFound:
            return None

    async def _failed(self, execution: Execution, error: Json) -> None:
        kept = {name: error[name] for name in ("code", "message", "repair", "field") if error.get(name)}
        try:
            # Not if the turn was accepted after all, by this call or by another daemon's.
            if await self._store.failed_to_start(execution.id, kept, self._clock()):
                log.warning("execution %s failed: %s", execution.id, kept.get("message"))
        except InteractdError as problem:
            log.warning("execution %s: its failure is noted later: %s", execution.id, problem)

    async def _cancel(self, execution: Execution) -> None:
        try:
            if execution.interaction_id is not None:
                await self._turns.cancel(execution.interaction_id, execution.owner)
            await self._store.cancelled(execution.id)
        except InteractdError as error:
            log.warning("execution %s timed out and cannot be stopped yet: %s", execution.id, error)
            await asyncio.sleep(1)

    async def _stop(self, trigger_id: str, error: Json) -> None:
        """Set a trigger to error that cannot be worked out any more (its zone is gone from this machine)."""
        trigger = await self._store.get_trigger(trigger_id)
        revision = trigger.revision
        trigger.status, trigger.error, trigger.next_run_at = "error", error, None
        trigger.updated_at, trigger.revision = self._clock(), revision + 1
        await self._store.put_trigger(trigger, revision)


def _held(due: Due) -> int:
    return due.triggers + due.running + due.queued + due.cancels


def _past(at: float | None, now: float) -> bool:
    return at is not None and at <= now
