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
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import anyio

from interactd.agents.port import AgentDefinition, RunLimits
from interactd.builtins.arguments import BadArguments
from interactd.builtins.hooks.guard import Guard
from interactd.builtins.port import Outcome, ToolContext
from interactd.builtins.tools import builtin_tools
from interactd.engine.agents.limits import Spent, exceeded, time_exceeded, tokens_of
from interactd.engine.agents.loops import Made, loop_of
from interactd.engine.agents.prompt import system_prompt
from interactd.engine.agents.shown import AgentChannel
from interactd.engine.agents.stay import Stay
from interactd.engine.agents.steps import answer_of, function_of, open_calls, own_call, own_result, question, rounds
from interactd.engine.agents.toolbox import Toolbox, python_of
from interactd.engine.run.draft import Draft
from interactd.engine.run.history import Frame, estimate_request, instruction_of, tools_of
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import Verdict, judge, refused, unanswered
from interactd.engine.run.runner import Run, plus
from interactd.errors import Deleted, Expired, InteractdError, NotFound, SandboxUnavailable
from interactd.models.port import Finished, Model, ModelRequest
from interactd.nouns import Interaction, Json, Status, Step, Usage
from interactd.sandbox.environments_port import Workspace

log = logging.getLogger(__name__)

CAPTURE_S: Final = 120.0
CAPTURE_CANCELLED_S: Final = 10.0
BAD_ROUNDS: Final = 5
"""Answers in a row whose calls were all unusable, before a run is given up."""
_LOST: Final = "Outcome unknown: the machine stopped while it ran. It may have taken effect, wholly or in part: look."
_ASK: Final = "The daemon died while {name} ran, and nobody knows whether it took effect. Shall it run again?"


@dataclass(frozen=True, slots=True)
class Ending:
    """How the loop ended; what `settle` is told."""

    status: Status
    steps: Sequence[Step] = ()
    error: Json | None = None
    finish_reason: str | None = None


class AgentRun(Run):
    """A claimed turn of an agent's."""

    _workspace: Workspace | None = None
    _stay: Stay | None = None
    _frame: Frame | None = None
    _since: float | None = None
    _empty: int = 0
    _calling: bool = False

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
        remembered = self.interaction.environment_id
        with self._interruptible() as scope:
            if remembered is None:
                body = self._note.environment or self._session.environment
                if isinstance(body, str):
                    remembered = body
                else:
                    made = await environments.create(
                        definition.environment if body is None else body, owner=self._session.owner, cwd=self._note.cwd
                    )
                    with anyio.CancelScope(shield=True):
                        await self._place(made.id, None)
            environment_id = remembered or self.interaction.environment_id or ""
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
                raise _gone(gone, environment_id) from gone
        if scope.cancelled_caught or self._stop:
            await self._stay.give_up() if self._stay else None
            return None
        self._workspace = workspace
        await self._place(environment_id, workspace.isolation.as_dict())
        self._since = asyncio.get_running_loop().time()
        return workspace

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
        outcome = Outcome(f"It was not run: the turn was {why}.", is_error=True)
        return [own_result(call, outcome) for call in open_calls(self._own)]

    def _toolbox(self, definition: AgentDefinition, workspace: Workspace) -> Toolbox:
        fetcher = self._core.fetcher
        online = fetcher if workspace.environment.network else None
        tools = builtin_tools(definition.tools, online)
        tools |= {tool.name: tool for tool in self._core.extra_tools if tool.name in definition.tools}
        given = {
            str(tool["name"]): tool for tool in (*definition.functions, *tools_of(self._session, self.interaction))
        }
        functions = [tool for name, tool in given.items() if name not in tools]
        guard = Guard(definition.hooks, workspace, fetcher)
        return Toolbox(dict(sorted(tools.items())), functions, workspace, guard, self.interaction.id, definition.folder)

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
            if calls := self._callable():
                ending = await self._make(toolbox, calls, limits)
                if ending is not None or self._stop == "hand_over":
                    return ending
            if unanswered(self._own):
                return Ending("requires_action", finish_reason="tool_calls")
            if looping := loop_of(self._own):
                return Ending("incomplete", error=_looping(looping))
            if over := exceeded(limits, self._spent()):
                return Ending("incomplete", error=over)
            if self._core.handing_over and self._stop is None:
                self.stop("hand_over")
            if self._stop == "hand_over":
                await self._write_note(replace(self._note, handed_over=True, seconds=self._spent().seconds))
                return None
            ending = await self._think(toolbox, limits)
            if ending is not None or self._stop == "hand_over":
                return ending

    def _callable(self) -> list[Step]:
        """Built-in calls that may be made now: not those about which the caller is being asked."""
        asked = {str(step.body["arguments"]["call_id"]) for step in unanswered(self._own) if _is_question(step)}
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
        """One model call. `None` when the loop goes on."""
        first = sum(step.type != "user_input" for step in self._own)
        self.draft = draft = Draft(self._shown, first, self._core.settings.max_output_bytes)
        failure: InteractdError | None = None
        with self._interruptible(self._remaining(limits)) as scope:
            try:
                await self._ask(draft)
            except InteractdError as error:
                failure = error
        if self._stop and draft.finished is None and failure is None:
            if self._stop == "hand_over":
                await self._write_note(self._tick(replace(self._note, handed_over=True)))
                return None
            return Ending("cancelled", draft.partial())
        if scope.cancelled_caught and draft.finished is None:
            return Ending("incomplete", draft.partial(), time_exceeded(limits))
        if failure is not None:
            return Ending("failed", draft.partial(), failure.as_dict())
        finished = draft.finished
        if finished is None:
            problem: Json = {
                "code": "output_too_large",
                "message": "The model was stopped: it produced more than one answer may hold.",
                "repair": "Ask for less at a time.",
            }
            return Ending("incomplete", draft.partial(), problem, "length")
        return await self._take(draft, finished, toolbox)

    async def _take(self, draft: Draft, finished: Finished, toolbox: Toolbox) -> Ending | None:
        """Journal an answer, with the calls that are made next; or end the turn with it."""
        used = finished.usage or self._estimated(draft)
        usage = plus(self._note.usage, used)
        verdict = self._judged(draft, finished, toolbox)
        calls = [step for step in verdict.steps if function_of(step) and not step.type.endswith("_result")]
        goes_on = verdict.status is None or verdict.status == "requires_action"
        if (
            verdict.error is not None
            and verdict.error["code"] == "empty_answer"
            and rounds(self._own)
            and not self._empty
        ):
            # Some models say nothing once after a tool's result, and answer when asked again.
            self._empty += 1
            goes_on = True
        if not goes_on:
            self._note = replace(self._note, usage=usage)
            return Ending(cast("Status", verdict.status), verdict.steps, verdict.error, verdict.finish_reason)
        useless = bool(verdict.bad_calls) and not calls and verdict.status is None
        note = self._tick(self._note.next_call(usage, bad=useless))
        if note.bad_calls >= BAD_ROUNDS:
            self._note = note
            return Ending("failed", verdict.steps, _bad_calls(verdict, note.bad_calls))
        batch = toolbox.batches(calls)[0] if calls else []
        note = replace(note, flight=tuple(str(call.body["id"]) for call in batch))
        await self._journal(verdict.steps, note)
        self.draft = None
        return None

    def _judged(self, draft: Draft, finished: Finished, toolbox: Toolbox) -> Verdict:
        """What the answer means; its usable calls of ours are built-in calls from here on."""
        config = self.interaction.generation_config
        verdict = judge(
            draft.partial(),
            finished,
            tools=toolbox.names,
            must_call=config.tool_choice == "any" and not rounds(self._own),
            call_ids=[str(step.body["id"]) for step in self._own if "id" in step.body],
        )
        if verdict.status not in (None, "requires_action"):
            return verdict
        refusals = {str(s.body["call_id"]): s for s in verdict.steps if s.type == "function_result"}
        kept: list[Step] = []
        for step in verdict.steps:
            name = str(step.body.get("name"))
            if step.type == "function_call" and str(step.body["id"]) in refusals:
                if hint := toolbox.instead_of(name):
                    told = refusals[str(step.body["id"])].body
                    told["result"] = f"{told['result']} {hint}"
            elif step.type == "function_call" and name in toolbox.tools:
                try:
                    step = own_call(step, toolbox.read(step))
                except BadArguments as problem:
                    refusals[str(step.body["id"])] = refused(step, f"{name}: {problem}")
                    verdict.bad_calls.append(name)
            if step.type != "function_result":
                kept.append(step)
        theirs = any(s.type == "function_call" and not function_of(s) and s.body["id"] not in refusals for s in kept)
        status: Status | None = "requires_action" if theirs else None
        return replace(verdict, steps=[*kept, *refusals.values()], status=status)

    def _estimated(self, draft: Draft) -> Usage | None:
        """Tokens of a call whose provider does not count: an unknown figure must not pass a limit as zero."""
        if self._asked is None:
            return None
        return Usage(input=estimate_request(self._asked), output=max(1, draft.size // 4))

    # -- calling ---------------------------------------------------------------------------------------------
    async def _settle_doubts(self, toolbox: Toolbox) -> None:
        """Decide what becomes of the calls that were in flight when the last runner died."""
        doubtful = [call for call in open_calls(self._own) if call.body["id"] in self._note.flight]
        note = replace(self._note, flight=())
        made: list[Step] = []
        for call in doubtful:
            replay = toolbox.replay(call)
            if replay == "never":
                made.append(own_result(call, Outcome(_LOST, is_error=True)))
            elif replay == "ask":
                made.append(question(call, "replay", _ASK.format(name=function_of(call))))
        for call in open_calls(self._own):
            answer = answer_of(self._own, str(call.body["id"]))
            if call not in doubtful and answer is not None and not answer.allow:
                reason = f" Reason: {answer.reason}" if answer.reason else ""
                made.append(own_result(call, Outcome(f"The user did not allow this call.{reason}", is_error=True)))
        if made or self._note.flight:
            await self._journal(made, note)

    async def _make(self, toolbox: Toolbox, calls: list[Step], limits: RunLimits) -> Ending | None:
        """Make all these calls, batch by batch. `None` when the loop goes on."""
        batches = toolbox.batches(calls)
        self._calling = True
        try:
            for at, batch in enumerate(batches):
                ids = tuple(str(call.body["id"]) for call in batch)
                if self._note.flight != ids:
                    await self._journal([], self._tick(replace(self._note, flight=ids)))
                after = tuple(str(call.body["id"]) for call in batches[at + 1]) if at + 1 < len(batches) else ()
                ending = await self._make_batch(toolbox, batch, after, limits)
                if ending is not None or self._stop == "hand_over":
                    return ending
                if self._core.handing_over and after:
                    # What is next has not begun: the next daemon begins it.
                    self.stop("hand_over")
                    await self._write_note(self._tick(replace(self._note, flight=(), handed_over=True)))
                    return None
        finally:
            self._calling = False
        return None

    async def _make_batch(
        self, toolbox: Toolbox, batch: list[Step], after: tuple[str, ...], limits: RunLimits
    ) -> Ending | None:
        contexts = {str(call.body["id"]): toolbox.context(call) for call in batch}
        before = list(self._own)
        lock = asyncio.Lock()
        left = set(contexts)
        failures: list[InteractdError] = []

        async def one(call: Step, group: anyio.abc.TaskGroup) -> None:
            call_id = str(call.body["id"])
            try:
                outcome = await toolbox.make(call, contexts[call_id], before)
            except InteractdError as error:
                failures.append(error)
                group.cancel_scope.cancel()
                return
            with anyio.CancelScope(shield=True):
                async with lock:
                    left.discard(call_id)
                    flight = tuple(one for one in contexts if one in left) or after
                    await self._journal(
                        [own_result(call, outcome)], self._tick(replace(self._note, flight=flight, deaths=0))
                    )

        with self._interruptible(self._remaining(limits)) as scope:
            async with anyio.create_task_group() as group:
                for call in batch:
                    group.start_soon(one, call, group)
        if not left and not failures:
            return None
        if self._stop == "hand_over":
            # They were killed half-way; the next daemon treats them as what they are: in doubt.
            await self._write_note(replace(self._note, handed_over=True))
            return None
        return await self._cut_short(batch, contexts, left, failures, scope.cancelled_caught, limits)

    async def _cut_short(
        self,
        batch: list[Step],
        contexts: dict[str, ToolContext],
        left: set[str],
        failures: list[InteractdError],
        interrupted: bool,
        limits: RunLimits,
    ) -> Ending:
        """Record what the unfinished calls had printed, and end the turn."""
        cancelled = self._stop == "cancel"
        why = "the turn was cancelled" if cancelled else "the run's time is over" if interrupted else "the run ended"
        if failures and not cancelled:
            why = failures[0].message
        made: list[Step] = []
        for call in batch:
            call_id = str(call.body["id"])
            if call_id in left:
                said = "".join(contexts[call_id].output)
                text = f"{said[-_KEPT:]}\n[It was stopped: {why}]".lstrip("\n")
                made.append(own_result(call, Outcome(text, is_error=True)))
        await self._journal(made, self._tick(replace(self._note, flight=())))
        if cancelled:
            return Ending("cancelled")
        if failures:
            return Ending("failed", error=failures[0].as_dict())
        return Ending("incomplete", error=time_exceeded(limits))

    # -- writing ---------------------------------------------------------------------------------------------
    async def _journal(self, steps: Sequence[Step], note: Note) -> None:
        """Commit steps and what happens next, to the disk and before anything else happens."""
        first = sum(step.type != "user_input" for step in self._own)
        written = await self._core.store.append(
            self.interaction.id, self.interaction.epoch, steps, pending=note.as_dict(), durable=True
        )
        self._note = note
        self._own.extend(written)
        seen = sum(not step.type.endswith("_result") for step in written) if self.draft is not None else 0
        # What a draft showed while it came is not shown again.
        self.channel.replay(written[seen:], first + seen)

    async def _request(self, model: Model, shrink: float) -> ModelRequest:
        request = await self._core.history.request(
            model, self._session, self.interaction, self._own, shrink=shrink, frame=self._frame
        )
        self._asked = request
        return request

    def _can_shrink(self) -> bool:
        return True

    _asked: ModelRequest | None = None
    _shown: Any = None


_KEPT: Final = 8_000


def _is_question(step: Step) -> bool:
    return bool((step.state or {}).get("interactd_question"))


def _looping(call: Made) -> Json:
    what = "failed in the same way" if call.failed else "gave the same result"
    return {
        "code": "loop_detected",
        "message": f"The agent was stopped: it made the same call of {call.name} again and again, and it {what} each "
        f"time: {call.arguments[:200]} -> {call.result[:300]}",
        "repair": "Everything it did is kept. Send another turn in this session that says how to go on, or use a "
        "stronger model.",
    }


def _bad_calls(verdict: Verdict, times: int) -> Json:
    names = ", ".join(dict.fromkeys(verdict.bad_calls))
    return {
        "code": "bad_tool_calls",
        "message": f"In {times} answers in a row the model made only calls that cannot be used: {names}.",
        "repair": "Everything it did before is kept. Use a model that is better at calling functions.",
    }


def _gone(error: InteractdError, environment_id: str) -> InteractdError:
    return type(error)(
        f"{error.message} The agent's files were in environment {environment_id}.",
        repair='Send the turn with environment "remote" to go on in a fresh one.',
        **{**error.fields, "environment_id": environment_id},
    )


def run_of(*args: Any) -> Run:
    """An `AgentRun` for an agent's interaction, else a plain one; arguments as theirs."""
    interaction: Interaction = args[1]
    return (AgentRun if interaction.agent else Run)(*args)
