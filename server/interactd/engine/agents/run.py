"""One attempt at an agent's turn: model call, tool calls, results, until the model answers without a call.

Everything is journalled before it acts. The model's answer is committed with its calls, and with the names of those
that run next, before the first of them runs; each result is committed before the model or anybody else sees it. A
run that is taken up after a crash therefore knows three kinds of calls: with a result (never made again), in flight
when it died (see `BuiltinTool.replay`), and not begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

import anyio

from interactd.agents.port import AgentDefinition, RunLimits
from interactd.builtins.hooks.guard import Guard
from interactd.builtins.port import Outcome
from interactd.builtins.tools import builtin_tools
from interactd.engine.agents import choice
from interactd.engine.agents.batch import Batch
from interactd.engine.agents.endings import Ending, babbling, bad_calls, environment_gone, looping, too_large
from interactd.engine.agents.judging import built_in, judged
from interactd.engine.agents.limits import Spent, exceeded, time_exceeded, tokens_of
from interactd.engine.agents.live import live
from interactd.engine.agents.loops import loop_of
from interactd.engine.agents.prompt import system_prompt
from interactd.engine.agents.shown import AgentChannel
from interactd.engine.agents.stay import Stay
from interactd.engine.agents.steps import QUESTION, answer_of, function_of, open_calls, own_result, question, rounds
from interactd.engine.agents.toolbox import Toolbox, python_of
from interactd.engine.run.draft import Draft
from interactd.engine.run.history import Frame, estimate_request, instruction_of, tools_of
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import unanswered
from interactd.engine.run.runner import Run, plus
from interactd.errors import (
    Deleted,
    Expired,
    Fenced,
    InteractdError,
    NotFound,
    SandboxUnavailable,
    StorageError,
    StorageFull,
)
from interactd.models.port import Finished, Model, ModelRequest
from interactd.nouns import Interaction, Json, Status, Step, Usage
from interactd.sandbox.environments_port import Workspace

log = logging.getLogger(__name__)

CAPTURE_S: Final = 120.0
CAPTURE_CANCELLED_S: Final = 10.0
BAD_ROUNDS: Final = 5
"""Answers in a row whose calls were all unusable, before a run is given up."""
_NOT_RUN: Final = "It was not run: the turn was {}."
_LOST: Final = "Outcome unknown: the machine stopped while it ran. It may have taken effect, wholly or in part: look."
_ASK: Final = "The daemon died while {name} ran, and nobody knows whether it took effect. Shall it run again?"


class AgentRun(Run):
    """A claimed turn of an agent's."""

    _workspace: Workspace | None = None
    _stay: Stay | None = None
    _frame: Frame | None = None
    _shown: AgentChannel | None = None
    _asked: ModelRequest | None = None
    _since: float | None = None
    _empty: bool = False
    _calling: bool = False
    _left: bool = False
    """Whether the rest was left to the next daemon."""

    @property
    def at_work(self) -> bool:
        return self.draft is not None or self._calling

    def _waits(self) -> list[Step]:
        return [] if open_calls(self._own) else unanswered(self._own)

    # -- the place -------------------------------------------------------------------------------------------
    async def _work(self) -> None:
        """Run in the environment, and leave it whatever happens."""
        try:
            definition = await self._definition()
            workspace = await self._arrive(definition)
            if workspace is None:
                await self._stopped()
                return
            toolbox = self._toolbox(definition, workspace)
            self._frame = await self._frame_of(definition, toolbox)
            limits = self._limits(definition)
            ending = await self._loop(toolbox, limits)
            if ending is not None:
                await self._settle(
                    ending.status,
                    ending.steps,
                    usage=self._note.usage,
                    error=ending.error,
                    finish_reason=ending.finish_reason,
                )
        finally:
            with anyio.CancelScope(shield=True):
                await self._depart()

    async def _definition(self) -> AgentDefinition:
        agents = self._core.agents
        if agents is None or self.interaction.agent is None:
            raise SandboxUnavailable("This daemon runs no agents.", repair="Send the turn to a model instead.")
        return await agents.resolve(self.interaction.agent, cwd=self._note.cwd, pinned=self.interaction.agent_hash)

    async def _arrive(self, definition: AgentDefinition) -> Workspace | None:
        """Find or make the environment and take it. `None` when the run was stopped meanwhile."""
        environments = self._core.environments
        if environments is None:
            raise SandboxUnavailable("This daemon has no environments.", repair="Send the turn to a model instead.")
        workspace: Workspace | None = None
        environment_id = ""
        with self._interruptible():
            environment_id = self.interaction.environment_id or await self._environment(definition)
            self._stay = Stay(
                environments,
                environment_id,
                self.interaction.id,
                requires=definition.requires,
                agent_folder=definition.folder,
            )
            try:
                workspace = await self._stay.begin()
            except (NotFound, Expired, Deleted) as gone:
                raise environment_gone(gone, environment_id) from gone
        if workspace is None or self._stop:
            if self._stay is not None:
                await self._stay.give_up()
            return None
        self._workspace = workspace
        await self._place(environment_id, workspace.isolation.as_dict())
        self._since = asyncio.get_running_loop().time()
        return workspace

    async def _environment(self, definition: AgentDefinition) -> str:
        """The session's environment by now; or a new one as the turn, the session or the agent wants it."""
        environments = self._core.environments
        assert environments is not None
        wanted = self._note.environment or self._session.environment
        if isinstance(wanted, str):
            return wanted
        body = definition.environment if wanted is None or wanted == choice.FRESH else wanted
        made = await environments.create(body, owner=self._session.owner, cwd=self._note.cwd)
        with anyio.CancelScope(shield=True):
            await self._place(made.id, None)
        return made.id

    async def _place(self, environment_id: str, isolation: Json | None) -> None:
        await self._core.store.place(
            self.interaction.id, self.interaction.epoch, environment_id=environment_id, isolation=isolation
        )
        self.interaction.environment_id = self._session.environment = environment_id
        self.interaction.isolation = isolation or self.interaction.isolation

    async def _depart(self) -> None:
        """Keep the files it made, then give the environment back. Does so once."""
        stay, workspace = self._stay, self._workspace
        self._stay = self._workspace = None
        if workspace is not None:
            patience = CAPTURE_CANCELLED_S if self._stop else CAPTURE_S
            try:
                async with asyncio.timeout(patience):
                    kept = await workspace.capture(self.interaction.id)
                log.info("%s: %d files kept", self.interaction.id, len(kept))
            except TimeoutError:
                log.error("%s: keeping its files took longer than %.0f s", self.interaction.id, patience)
            except InteractdError as error:
                log.error("%s: its files could not be kept: %s", self.interaction.id, error)
        if stay is not None:
            await stay.end()

    async def _settle(
        self,
        status: Status,
        steps: Sequence[Step],
        *,
        usage: Usage | None = None,
        error: Json | None = None,
        finish_reason: str | None = None,
    ) -> None:
        # First, so that whoever sees the turn ended finds its files.
        await self._depart()
        closing = self._closing(status) if status != "requires_action" else []
        await super()._settle(status, [*steps, *closing], usage=usage, error=error, finish_reason=finish_reason)

    def _closing(self, status: Status) -> list[Step]:
        """Results for built-in calls that never ran: a call without one would be the caller's to answer."""
        why = "cancelled" if status == "cancelled" else "stopped"
        return [
            own_result(call, Outcome(_LOST if call.body["id"] in self._note.flight else _NOT_RUN.format(why), True))
            for call in open_calls(self._own)
        ]

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
            if calls := self._callable():
                ending = await self._make(toolbox, calls, limits)
                if ending is not None or self._left:
                    return ending
                continue
            if unanswered(self._own):
                return Ending("requires_action", finish_reason="tool_calls")
            if circle := loop_of(self._own):
                return Ending("incomplete", error=looping(circle))
            if over := exceeded(limits, self._spent()):
                return Ending("incomplete", error=over)
            ending = await self._think(toolbox, limits)
            if ending is not None or self._left:
                return ending

    def _callable(self) -> list[Step]:
        """Built-in calls that may be made now: not those about which the caller is being asked."""
        asked = {
            str(step.body["arguments"]["call_id"]) for step in unanswered(self._own) if (step.state or {}).get(QUESTION)
        }
        return [call for call in open_calls(self._own) if call.body["id"] not in asked]

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
        first = sum(step.type != "user_input" for step in self._own)
        self.draft = draft = Draft(
            self._shown or self.channel, first, self._core.settings.max_output_bytes, watched=True
        )
        failure: InteractdError | None = None
        with self._interruptible(self._remaining(limits)) as scope:
            try:
                await self._ask(draft)
            except InteractdError as error:
                failure = error
        finished = draft.finished
        if failure is not None and not self._stop:
            return Ending("failed", draft.partial(), failure.as_dict())
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
        usage = plus(self._note.usage, finished.usage or self._estimated(draft))
        must_call = self.interaction.generation_config.tool_choice == "any"
        verdict = judged(draft.partial(), finished, self._own, toolbox, must_call=must_call)
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
        first = toolbox.batches(calls)[0] if calls else []
        await self._journal(verdict.steps, replace(note, flight=_ids(first)))
        self.draft = None
        return None

    def _estimated(self, draft: Draft) -> Usage | None:
        """Tokens of a call whose provider does not count: an unknown figure must not pass a limit as zero."""
        if self._asked is None:
            return None
        return Usage(input=estimate_request(self._asked), output=max(1, draft.size // 4))

    async def _leave(self) -> Ending | None:
        """Stop between two steps: nothing that has begun is unfinished."""
        if not self._stop:
            self.stop("hand_over")
        self._note = replace(self._note, flight=())
        return await self._stopped_short()

    async def _stopped_short(self, steps: Sequence[Step] = ()) -> Ending | None:
        """Cancelled, or left to the next daemon."""
        if self._stop == "cancel":
            return Ending("cancelled", steps)
        self._left = True
        await self._write_note(self._tick(replace(self._note, handed_over=True)))
        return None

    # -- calling ---------------------------------------------------------------------------------------------
    async def _settle_doubts(self, toolbox: Toolbox) -> None:
        """Decide what becomes of the calls that were in flight when the last runner died, and of those about which the
        caller was asked and said no."""
        made: list[Step] = []
        for call in open_calls(self._own):
            call_id = str(call.body["id"])
            answer = answer_of(self._own, call_id)
            if call_id in self._note.flight:
                replay = toolbox.replay(call)
                if replay == "never":
                    made.append(own_result(call, Outcome(_LOST, is_error=True)))
                elif replay == "ask":
                    made.append(question(call, "replay", _ASK.format(name=function_of(call))))
            elif answer is not None and not answer.allow:
                reason = f" Reason: {answer.reason}" if answer.reason else ""
                made.append(own_result(call, Outcome(f"The user did not allow this call.{reason}", is_error=True)))
        if made or self._note.flight:
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

        batch = Batch(toolbox, calls, self._own, record, live(self.channel, self._own, calls, toolbox))
        with self._interruptible(self._remaining(limits)):
            await batch.make()
        if isinstance(batch.failure, Fenced | StorageError | StorageFull):
            raise batch.failure
        if batch.done:
            return None
        if self._stop == "hand_over":
            # They were stopped half-way; the next daemon treats them as what they are: in doubt.
            return await self._stopped_short()
        if self._stop == "cancel":
            why, ending = "the turn was cancelled", Ending("cancelled")
        elif batch.failure is not None:
            why, ending = batch.failure.message, Ending("failed", error=batch.failure.as_dict())
        else:
            why, ending = "the time for this run is over", Ending("incomplete", error=time_exceeded(limits))
        await self._journal(batch.cut_short(why), self._tick(replace(self._note, flight=())))
        return ending

    # -- writing ---------------------------------------------------------------------------------------------
    async def _journal(self, steps: Sequence[Step], note: Note) -> None:
        """Commit steps and what happens next, to the disk and before anything else happens."""
        first = sum(step.type != "user_input" for step in self._own)
        written = await self._core.store.append(
            self.interaction.id, self.interaction.epoch, steps, pending=note.as_dict(), durable=True
        )
        self._note = note
        self._own.extend(written)
        seen = len(self.draft.partial()) if self.draft is not None else 0
        # What was shown while it came is not shown again.
        self.channel.replay(written[seen:], first + seen)

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
