"""One attempt at an agent's turn: model call, tool calls, results, until the model answers without a call.

Everything is journalled before it acts. The model's answer is committed with its calls, and with the names of those
that run next, before the first of them runs; each result is committed before the model or anybody else sees it. A
run that is taken up after a crash therefore knows three kinds of calls: with a result (never made again), in flight
when it died (see `BuiltinTool.replay`), and not begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

from interactd.agents.port import AgentDefinition, RunLimits
from interactd.builtins.hooks.guard import Guard
from interactd.builtins.port import Outcome
from interactd.builtins.tools import builtin_tools
from interactd.engine.agents.batch import Batch
from interactd.engine.agents.endings import LOST, Ending, babbling, bad_calls, closing, looping, too_large
from interactd.engine.agents.judging import built_in, judged
from interactd.engine.agents.limits import Spent, exceeded, time_exceeded, tokens_of
from interactd.engine.agents.live import live
from interactd.engine.agents.loops import loop_of
from interactd.engine.agents.placed import PlacedRun
from interactd.engine.agents.prompt import system_prompt
from interactd.engine.agents.shown import AgentChannel
from interactd.engine.agents.steps import due_of, is_question, open_calls, own_result, rounds
from interactd.engine.agents.toolbox import Toolbox, python_of
from interactd.engine.approvals.asking import approvals
from interactd.engine.approvals.asking import replay as ask_again
from interactd.engine.approvals.gate import Gate, gate_for
from interactd.engine.run.draft import Draft
from interactd.engine.run.history import Frame, estimate_request, instruction_of, tools_of
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import unanswered
from interactd.engine.run.runner import Run, ended_as, generated, plus
from interactd.errors import Fenced, InteractdError, StorageError, StorageFull
from interactd.models.port import Finished, Model, ModelRequest
from interactd.nouns import Interaction, Status, Step, Usage
from interactd.sandbox.environments_port import Workspace

BAD_ROUNDS: Final = 5
"""Answers in a row whose calls were all unusable, before a run is given up."""


class AgentRun(PlacedRun):
    """A claimed turn of an agent's."""

    _gate: Gate
    _frame: Frame | None = None
    _shown: AgentChannel | None = None
    _asked: ModelRequest | None = None
    _batch: Batch | None = None
    _empty: bool = False
    _calling: bool = False
    _left: bool = False
    """Whether the rest was left to the next daemon."""

    @property
    def at_work(self) -> bool:
        return self.draft is not None or self._calling

    def _waits(self) -> list[Step]:
        """Without a place: what waits for a word waits for nothing else."""
        asked = unanswered(self._own)
        return asked if any(map(is_question, asked)) or not open_calls(self._own) else []

    def partial(self) -> list[Step]:
        made = super().partial() if self._batch is None else self._batch.cut_short("the turn was cancelled")
        return [*made, *closing([*self._own, *made], "cancelled", self._note.flight)]

    async def _act(self, definition: AgentDefinition, workspace: Workspace) -> None:
        toolbox = self._toolbox(definition, workspace)
        if "code_execution" in toolbox.tools:
            # While the model thinks.
            workspace.warm()
        self._gate = gate_for(self._core, definition, workspace.environment, self._session, self.interaction)
        self._frame = await self._frame_of(definition, toolbox)
        limits = self._limits(definition)
        ending = await self._loop(toolbox, limits)
        if ending is not None and ending.status == "failed" and await self._try_again(ending.error or {}):
            return
        if ending is not None:
            await self._settle(
                ending.status,
                ending.steps,
                usage=self._note.usage,
                error=ending.error,
                finish_reason=ending.finish_reason,
            )

    def _toolbox(self, definition: AgentDefinition, workspace: Workspace) -> Toolbox:
        fetcher = self._core.fetcher
        online = fetcher if workspace.environment.network else None
        tools = builtin_tools(definition.tools, online)
        tools |= {tool.name: tool for tool in self._core.extra_tools if tool.name in definition.tools}
        given = {
            str(tool["name"]): tool for tool in (*definition.functions, *tools_of(self._session, self.interaction))
        }
        functions = [tool for name, tool in given.items() if name not in tools]
        guard = Guard(definition.hooks, workspace, trusted=definition.origin != "project")
        return Toolbox(dict(sorted(tools.items())), functions, workspace, guard, self.interaction.id)

    async def _frame_of(self, definition: AgentDefinition, toolbox: Toolbox) -> Frame:
        workspace = toolbox.workspace
        python = None
        if "code_execution" in toolbox.tools:
            launcher = workspace.isolation.launcher
            if launcher not in self._core.pythons:
                self._core.pythons[launcher] = await python_of(workspace)
            python = self._core.pythons[launcher]
        system = system_prompt(
            definition,
            workspace.environment,
            tools=list(toolbox.tools),
            python=python,
            instruction=instruction_of(self._session, self.interaction),
        )
        names = frozenset(toolbox.tools)
        self._shown = AgentChannel(self.channel, names)
        return Frame(system, toolbox.declarations)

    def _limits(self, definition: AgentDefinition) -> RunLimits:
        return replace(definition.limits, **self._note.limits) if self._note.limits else definition.limits

    # -- the loop --------------------------------------------------------------------------------------------
    async def _loop(self, toolbox: Toolbox, limits: RunLimits) -> Ending | None:
        """Go on until something ends the turn. `None` when it is left to the next daemon."""
        await self._settle_doubts(toolbox)
        while True:
            if self._stop or self._core.handing_over:
                return await self._leave()
            pending = open_calls(self._own)
            if refused := self._gate.refused(pending, self._own):
                await self._journal(refused, replace(self._note, flight=()))
                continue
            if calls := self._gate.ready(pending, self._own):
                ending = await self._make(toolbox, calls, limits)
                if ending is not None or self._left:
                    return ending
                continue
            if asked := self._gate.asked(pending, self._own):
                await self._put(approvals(self._core, str(self.interaction.agent), asked))
            if unanswered(self._own):
                return Ending("requires_action", finish_reason="tool_calls")
            if circle := loop_of(self._own):
                return Ending("incomplete", error=looping(circle))
            if over := exceeded(limits, self._spent()):
                return Ending("incomplete", error=over)
            ending = await self._think(toolbox, limits)
            if ending is not None or self._left:
                return ending

    async def _put(self, questions: list[Step]) -> None:
        """Ask the caller. From here on the questions are answered in time, or by default."""
        due = due_of([*filter(is_question, unanswered(self._own)), *questions])
        await self._journal(questions, self._tick(replace(self._note, flight=(), due=due)))

    def _spent(self) -> Spent:
        now = asyncio.get_running_loop().time()
        seconds = self._note.seconds + (now - self._since if self._since is not None else 0)
        tokens = tokens_of(self.interaction.usage) + tokens_of(self._note.usage)
        return Spent(rounds(self._own), tokens, seconds)

    def _remaining(self, limits: RunLimits) -> float:
        return max(0.0, limits.seconds - self._spent().seconds)

    def _tick(self, note: Note) -> Note:
        """The note with the time worked so far."""
        spent = self._spent().seconds
        self._since = asyncio.get_running_loop().time()
        return replace(note, seconds=spent)

    # -- thinking --------------------------------------------------------------------------------------------
    async def _think(self, toolbox: Toolbox, limits: RunLimits) -> Ending | None:
        """One model call. `None` when the loop goes on, or the run is left to the next daemon."""
        shown, most = self._shown or self.channel, self._core.settings.max_output_bytes
        self.draft = draft = Draft(shown, generated(self._own), most, watched=True)
        failure: InteractdError | None = None
        with self._interruptible(self._remaining(limits)) as scope:
            try:
                await self._ask(draft)
            except InteractdError as error:
                failure = error
        finished = draft.finished
        if failure is not None and not self._stop:
            return Ending(ended_as(failure.as_dict()), draft.partial(), failure.as_dict())
        if finished is not None:
            return await self._take(draft, finished, toolbox)
        if self._stop:
            return await self._stopped_short(draft.partial())
        if scope.cancelled_caught:
            return Ending("incomplete", draft.partial(), time_exceeded(limits))
        why = babbling() if draft.repeating else too_large()
        return Ending("incomplete", draft.partial(), why, "length")

    async def _take(self, draft: Draft, finished: Finished, toolbox: Toolbox) -> Ending | None:
        """Journal an answer, with the calls that are made next; or end the turn with it."""
        usage = plus(self._note.usage, self._used(draft, finished.usage))
        must_call = self.interaction.generation_config.tool_choice == "any"
        verdict = self.purse.judged(judged(draft.partial(), finished, self._own, toolbox, must_call=must_call))
        goes_on = verdict.status in (None, "requires_action")
        code = (verdict.error or {}).get("code")
        # Some models say nothing once, most of all after a tool's result, and answer when asked again.
        again = code == "empty_answer" and not self._empty
        self._empty = again
        goes_on = goes_on or again
        if not goes_on:
            self._note = replace(self._note, usage=usage)
            return Ending(cast("Status", verdict.status), verdict.steps, verdict.error, verdict.finish_reason)
        calls = built_in(verdict.steps)
        useless = bool(verdict.bad_calls) and not calls and verdict.status is None
        note = self._tick(self._note.next_call(usage, bad=useless))
        if note.bad_calls >= BAD_ROUNDS:
            self._note = note
            return Ending("failed", verdict.steps, bad_calls(verdict.bad_calls, note.bad_calls))
        ready = self._gate.ready(calls, [*self._own, *verdict.steps])
        first = toolbox.batches(ready)[0] if ready else []
        await self._journal(verdict.steps, replace(note, flight=_ids(first)))
        self.draft = None
        return None

    def _used(self, draft: Draft, said: Usage | None) -> Usage | None:
        """Tokens of a call: what its provider counts, and an estimate of what it does not, or says to be nothing. An
        unknown figure must not pass a limit as zero."""
        if self._asked is None:
            return said
        said = said or Usage()
        return replace(
            said,
            input=said.input or estimate_request(self._asked),
            output=said.output or max(1, draft.size // 4),
        )

    async def _leave(self) -> Ending | None:
        """Stop between two steps: nothing that has begun is unfinished."""
        if not self._stop:
            self.stop("hand_over")
        self._note = replace(self._note, flight=())
        return await self._stopped_short()

    async def _stopped_short(self, steps: Sequence[Step] = ()) -> Ending | None:
        """Cancelled, or left to the next daemon. Raises: Fenced."""
        self._fenced()
        if self._stop == "cancel":
            return Ending("cancelled", steps)
        if self._stop == "timeout":
            error = self._out_of_time()
            return Ending(ended_as(error, "incomplete"), steps, error)
        self._left = True
        await self._write_note(self._timed(self._tick(replace(self._note, handed_over=True))))
        return None

    # -- calling ---------------------------------------------------------------------------------------------
    async def _settle_doubts(self, toolbox: Toolbox) -> None:
        """Decide what becomes of the calls that were in flight when the last runner died."""
        made: list[Step] = []
        asked: list[Step] = []
        for call in open_calls(self._own):
            if call.body["id"] in self._note.flight:
                replay = toolbox.replay(call)
                if replay == "never":
                    made.append(own_result(call, Outcome(LOST, is_error=True)))
                elif replay == "ask":
                    asked.append(ask_again(self._core, call))
        if asked:
            await self._put([*made, *asked])
        elif made or self._note.flight:
            await self._journal(made, replace(self._note, flight=()))

    async def _make(self, toolbox: Toolbox, calls: list[Step], limits: RunLimits) -> Ending | None:
        """Make all these calls, batch by batch. `None` when the loop goes on, or the run is left."""
        batches = toolbox.batches(calls)
        self._calling = True
        try:
            for at, calls_now in enumerate(batches):
                if self._stop or self._core.handing_over:
                    return await self._leave()
                if self._note.flight != _ids(calls_now):
                    await self._journal([], self._tick(replace(self._note, flight=_ids(calls_now))))
                after = () if at + 1 == len(batches) else _ids(batches[at + 1])
                ending = await self._make_batch(toolbox, calls_now, after, limits)
                if ending is not None or self._left:
                    return ending
        finally:
            self._calling = False
        return None

    async def _make_batch(
        self, toolbox: Toolbox, calls: list[Step], after: tuple[str, ...], limits: RunLimits
    ) -> Ending | None:
        async def record(result: Step, left: tuple[str, ...]) -> None:
            await self._journal([result], self._tick(replace(self._note, flight=left or after, deaths=0)))

        shown = live(self.channel, self._own, calls, toolbox)
        self._batch = batch = Batch(toolbox, calls, self._own, record, shown)
        with self._interruptible(self._remaining(limits)):
            await self._core.lease.check(self.interaction)
            await batch.make()
        self._batch = None
        if isinstance(batch.failure, Fenced | StorageError | StorageFull):
            raise batch.failure
        if batch.done:
            return None
        self._fenced()
        if self._stop == "hand_over":
            # They were stopped half-way; the next daemon treats them as what they are: in doubt.
            return await self._stopped_short()
        if self._stop == "cancel":
            why, ending = "the turn was cancelled", Ending("cancelled")
        elif self._stop == "timeout":
            error = self._out_of_time()
            why, ending = "the time for this turn is over", Ending(ended_as(error, "incomplete"), error=error)
        elif batch.failure is not None:
            why, ending = batch.failure.message, Ending("failed", error=batch.failure.as_dict())
        else:
            why, ending = "the time for this run is over", Ending("incomplete", error=time_exceeded(limits))
        await self._journal(batch.cut_short(why), self._tick(replace(self._note, flight=())))
        return ending

    # -- writing ---------------------------------------------------------------------------------------------
    async def _journal(self, steps: Sequence[Step], note: Note) -> None:
        """Commit steps and what happens next, to the disk and before anything else happens."""
        first = generated(self._own)
        note, bill = self._timed(note), self.purse.bill()
        written = await self._held(
            lambda: self._core.store.append(
                self.interaction.id, self.interaction.epoch, steps, pending=note.as_dict(), durable=True, bill=bill
            )
        )
        self._note = note
        self._own.extend(written)
        self.channel.journalled(written, first)

    async def _ask(self, draft: Draft) -> None:
        try:
            await super()._ask(draft)
        except InteractdError as error:
            if draft.produced or not self._core.history.goes_blind(self._model, self._asked, error):
                raise
            await super()._ask(draft)

    async def _request(self, model: Model, shrink: float) -> ModelRequest:
        request = await self._core.history.request(
            model, self._session, self.interaction, self._own, shrink=shrink, frame=self._frame
        )
        self._asked = request
        return request

    def _can_shrink(self) -> bool:
        return True


def _ids(calls: Sequence[Step]) -> tuple[str, ...]:
    return tuple(str(call.body["id"]) for call in calls)


def run_of(*args: Any) -> Run:
    """An `AgentRun` for an agent's interaction, else a plain one; arguments as theirs."""
    interaction: Interaction = args[1]
    return (AgentRun if interaction.agent else Run)(*args)
