"""Calls that are made at the same time, and what is left of them when they are cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.abc

from interactd.builtins.port import Outcome
from interactd.engine.agents.live import Live
from interactd.engine.agents.steps import own_result
from interactd.engine.agents.told import told_once
from interactd.engine.agents.toolbox import Toolbox
from interactd.errors import InteractdError
from interactd.nouns import Step


class Batch:
    """Makes some calls at once.

    Args:
        toolbox: what makes them.
        calls: built-in calls of ours.
        before: the run's steps so far.
        record: commits a result; is told which calls are still being made.
        live: shows what they print while they run, if anything does.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        calls: Sequence[Step],
        before: Sequence[Step],
        record: Callable[[Step, tuple[str, ...]], Awaitable[None]],
        live: Live | None = None,
    ) -> None:
        self.failure: InteractdError | None = None
        """What ended the run, if one of the calls did."""
        self._toolbox = toolbox
        self._calls = {str(call.body["id"]): call for call in calls}
        self._contexts = {id: toolbox.context(call) for id, call in self._calls.items()}
        self._left = dict.fromkeys(self._calls)
        self._before = list(before)
        self._record = record
        self._lock = asyncio.Lock()
        self._live = live
        if live is not None:
            for context in self._contexts.values():
                context.printed.listen(live.heard)

    @property
    def done(self) -> bool:
        """Whether every call has its result."""
        return not self._left

    async def make(self) -> None:
        """Make them all. Cancelling this stops them; results that are there by then are recorded."""
        try:
            async with anyio.create_task_group() as group:
                for id in self._calls:
                    group.start_soon(self._one, id, group)
        finally:
            self._end_of_output()

    def cut_short(self, why: str) -> list[Step]:
        """Results for the calls that have none: what they had printed, and why they were stopped."""
        made: list[Step] = []
        for id in self._left:
            said = self._contexts[id].printed.tail.rstrip("\n")
            text = f"{said}\n[It was stopped: {why}]".lstrip("\n")
            made.append(own_result(self._calls[id], Outcome(text, is_error=True)))
        return made

    async def _one(self, id: str, group: anyio.abc.TaskGroup) -> None:
        try:
            outcome = await told_once(
                self._toolbox.make(self._calls[id], self._contexts[id], self._before), f"call {id}"
            )
            self._end_of_output()
            with anyio.CancelScope(shield=True):
                async with self._lock:
                    await self._record(own_result(self._calls[id], outcome), tuple(n for n in self._left if n != id))
                    del self._left[id]
        except InteractdError as error:
            self.failure = self.failure or error
            group.cancel_scope.cancel()

    def _end_of_output(self) -> None:
        if self._live is not None:
            self._live.end()
