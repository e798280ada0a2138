"""create_trigger, list_triggers, update_trigger, run_trigger, delete_trigger, list_executions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from interactd.agents.port import DEFAULT_AGENT
from interactd.nouns import Json
from interactd.store.port import Page
from interactd_tools.answers import schedules as read
from interactd_tools.answers.text import answer, call, plural
from interactd_tools.arguments.amounts import Budget
from interactd_tools.arguments.content import Input
from interactd_tools.arguments.fields import Arguments, Cursor, Key, Labels, Line, Prose, Ttl, pack_cursor
from interactd_tools.arguments.places import AgentName, Approvals, Place
from interactd_tools.arguments.schedules import Object, RunSession, Schedule, Seconds, TriggerId, Zone, choice
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.keys import key_for
from interactd_tools.registry import tool

_SET = "schedules"
_STATUS = ("active", "paused", "error", "completed")
_EXECUTION_STATUS = ("queued", "in_progress", "completed", "failed", "skipped", "timed_out")


class _What(Arguments):
    """What a trigger runs, and its policies; all of it may be changed later."""

    agent: Annotated[AgentName, Field(description=f"Who does it; default {DEFAULT_AGENT}.")] | None = None
    model: Annotated[Line, Field(description="A model instead of an agent.")] | None = None
    session: RunSession | None = None
    environment: Annotated[Place, Field(description="Where an agent works; its runs share one.")] | None = None
    share_environment: Annotated[bool, Field(description="false: a fresh one for each run.")] | None = None
    time_zone: Zone | None = None
    display_name: Annotated[Line, Field(description="What to call it.")] | None = None
    missed: Annotated[str, choice("skip", "once")] | None = None
    overlap: Annotated[str, choice("skip", "queue")] | None = None
    max_consecutive_failures: (
        Annotated[int, Field(ge=0, le=1_000_000, description="So many stop it; default 5, 0 never.")] | None
    ) = None
    execution_timeout_seconds: Annotated[Seconds, Field(description="Of one run; default 600.")] | None = None
    budget: Annotated[Budget, Field(description='Of one run: "$2", or JSON {usd, tokens, steps, seconds}.')] | None = (
        None
    )
    approvals: (
        Annotated[
            Approvals, Field(description="Ask the user before tools run: always_ask, or JSON {tools, rules, ...}.")
        ]
        | None
    ) = None
    dispatch: (
        Annotated[Object, Field(description="{priority, delay_s, start_timeout_s, timeout_s, retries}.")] | None
    ) = None
    labels: Labels | None = None
    title: Annotated[Line, Field(description="Of the sessions.")] | None = None
    system_instruction: Annotated[Prose, Field(description="Of the sessions.")] | None = None
    ttl: Annotated[Ttl, Field(description="How long a run's session is kept; default 7d.")] = None

    def work(self, task: object) -> Json:
        """What `Turns.check` takes."""
        names = ("agent", "model", "session", "environment", "share_environment", "budget", "approvals", "dispatch")
        given: Json = {name: getattr(self, name) for name in (*names, "labels", "title", "system_instruction")}
        given |= {"input": task, "ttl_s": self.ttl}
        return {name: value for name, value in given.items() if value is not None}

    def policies(self) -> Json:
        """The trigger's own settings that were given."""
        names = ("time_zone", "display_name", "missed", "overlap")
        given = {
            name: getattr(self, name) for name in (*names, "max_consecutive_failures", "execution_timeout_seconds")
        }
        return {name: value for name, value in given.items() if value is not None}


class CreateTrigger(_What):
    schedule: Schedule
    input: Annotated[Input, Field(description="The task.")]
    paused: Annotated[bool, Field(description="Do not start by itself yet.")] = False
    idempotency_key: Key | None = None


@tool(
    CreateTrigger,
    title="Create trigger",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='create_trigger(schedule="0 9 * * 1-5", input="...")',
    toolset=_SET,
)
async def create_trigger(args: CreateTrigger, ctx: CallContext) -> ToolResult:
    """Have an agent (or a model) do a task at its times, by itself, in the background. Each run is an interaction like
    any other: list_executions names it, get_interaction shows it. Times missed while no daemon ran are skipped, or
    made up for by one run (missed: once); a time at which the last run has not ended is skipped or queued (overlap).
    Too many failures in a row stop it. Then run_trigger tries it now."""
    work = args.work(args.input)
    if args.agent is None and args.model is None and work.get("session", "new") in ("new", "same"):
        work["agent"] = DEFAULT_AGENT
    made = await ctx.engine.schedules.create_trigger(
        schedule=args.schedule,
        work=work,
        paused=args.paused,
        **args.policies(),
        idempotency_key=key_for(ctx, "create_trigger", args, args.idempotency_key),
        caller=ctx.caller,
    )
    following: Json = {"tool": "run_trigger", "arguments": {"trigger_id": made.id}}
    return ToolResult(
        answer(
            read.trigger_head(made),
            read.trigger_about(made),
            read.ALIVE,
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {**read.trigger_fields(made), "next": following},
    )


class ListTriggers(Arguments):
    trigger_id: Annotated[TriggerId, Field(description="Show this one in full.")] | None = None
    status: Annotated[str, choice(*_STATUS)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    cursor: Cursor | None = None


@tool(
    ListTriggers,
    title="List triggers",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_triggers()",
    toolset=_SET,
)
async def list_triggers(args: ListTriggers, ctx: CallContext) -> ToolResult:
    """List what runs by itself, with schedules and next times in UTC and in their zones; with trigger_id, show one in
    full with its latest runs."""
    schedules = ctx.engine.schedules
    if args.trigger_id is not None:
        one = await schedules.get_trigger(args.trigger_id, caller=ctx.caller)
        runs = await schedules.list_executions(trigger_id=one.id, limit=5, caller=ctx.caller)
        latest = "\n".join(["Latest runs:", *map(read.execution_line, runs.items)]) if runs.items else "Not run yet."
        following: Json = {"tool": "list_executions", "arguments": {"trigger_id": one.id}}
        return ToolResult(
            answer(
                read.trigger_head(one),
                read.trigger_about(one),
                latest,
                "Next: " + call(following["tool"], following["arguments"]),
            ),
            {**read.trigger_fields(one), "next": following},
        )
    page = await schedules.list_triggers(status=args.status, limit=args.limit, cursor=args.cursor, caller=ctx.caller)
    if not page.items:
        return ToolResult(
            answer(
                "No triggers" + (f" with status {args.status}." if args.status else "."),
                'Next: create_trigger(schedule="0 9 * * 1-5", input="...")',
            ),
            {"triggers": [], "cursor": None},
        )
    more = more_of("list_triggers", args, page)
    return ToolResult(
        answer(
            plural(len(page.items), "trigger") + (" (there are more)" if page.cursor else ""),
            "\n".join(map(read.trigger_line, page.items)),
            f"Next: {call('list_triggers', {'trigger_id': page.items[0].id})}{more}",
        ),
        {"triggers": [one.id for one in page.items], "cursor": pack_cursor(page.cursor)},
    )


def more_of(name: str, args: Arguments, page: Page) -> str:
    """The call for the next page, to be put behind another; nothing where there is none."""
    if page.cursor is None:
        return ""
    given = {name: value for name, value in args.model_dump(exclude_none=True).items() if name != "cursor"}
    return f"; more: {call(name, {**given, 'cursor': pack_cursor(page.cursor)})}"


class UpdateTrigger(_What):
    trigger_id: TriggerId
    status: Annotated[str, choice("active", "paused")] | None = None
    schedule: Schedule | None = None
    input: Annotated[Input, Field(description="Another task.")] | None = None


@tool(
    UpdateTrigger,
    title="Update trigger",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=True),
    example='update_trigger(trigger_id="trg_...", status="paused")',
    toolset=_SET,
)
async def update_trigger(args: UpdateTrigger, ctx: CallContext) -> ToolResult:
    """Change anything of a trigger: status paused stops it until status active resumes it (also after too many
    failures; what came due meanwhile is not run), another schedule, time zone, task or setting. A run under way is not
    touched."""
    changes: Json = args.policies()
    if args.schedule is not None:
        changes["schedule"] = args.schedule
    if args.status is not None:
        changes["status"] = args.status
    if work := args.work(args.input):
        changes["work"] = work
    one = await ctx.engine.schedules.update_trigger(args.trigger_id, changes, caller=ctx.caller)
    following: Json = {"tool": "list_triggers", "arguments": {"trigger_id": one.id}}
    return ToolResult(
        answer(
            read.trigger_head(one),
            read.trigger_about(one),
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {**read.trigger_fields(one), "next": following},
    )


class RunTrigger(Arguments):
    trigger_id: TriggerId
    idempotency_key: Key | None = None


@tool(
    RunTrigger,
    title="Run trigger",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='run_trigger(trigger_id="trg_...")',
    toolset=_SET,
)
async def run_trigger(args: RunTrigger, ctx: CallContext) -> ToolResult:
    """Run a trigger now, also while it is paused; its schedule stays as it is. Returns the interaction_id at once and
    the run goes on in the background. Then get_interaction."""
    one = await ctx.engine.schedules.run_trigger(
        args.trigger_id,
        idempotency_key=key_for(ctx, "run_trigger", args, args.idempotency_key),
        caller=ctx.caller,
    )
    following: Json = {"tool": "list_executions", "arguments": {"trigger_id": one.trigger_id}}
    if one.interaction_id:
        following = {"tool": "get_interaction", "arguments": {"interaction_id": one.interaction_id, "wait_s": 30}}
    fields = {"execution_id": one.id, "trigger_id": one.trigger_id, "status": one.status}
    ids = {"interaction_id": one.interaction_id, "session_id": one.session_id}
    return ToolResult(
        answer(
            f"{one.status} · execution {one.id} of trigger {one.trigger_id}",
            read.execution_line(one),
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {**fields, **{name: id for name, id in ids.items() if id}, "next": following},
        # One that was started is read like any other interaction, however fast it ended.
        is_error=one.status == "failed" and one.interaction_id is None,
    )


class DeleteTrigger(Arguments):
    trigger_id: TriggerId


@tool(
    DeleteTrigger,
    title="Delete trigger",
    annotations=Annotations(read_only=False, destructive=True, idempotent=False, open_world=False),
    example='delete_trigger(trigger_id="trg_...")',
    toolset=_SET,
)
async def delete_trigger(args: DeleteTrigger, ctx: CallContext) -> ToolResult:
    """Delete a trigger for good. What it ran stays on record with its interactions; a run under way goes on
    (cancel_interaction stops it). To stop it for a while, update_trigger with status paused."""
    gone = await ctx.engine.schedules.delete_trigger(args.trigger_id, caller=ctx.caller)
    kept, running = gone.counts["executions_kept"], gone.counts["still_running"]
    return ToolResult(
        answer(
            f"deleted · trigger {gone.id}",
            f"{plural(kept, 'execution')} kept on record, {running} of them still running.",
            "Next: list_triggers()",
        ),
        {"trigger_id": gone.id, **gone.counts},
    )


class ListExecutions(Arguments):
    trigger_id: Annotated[TriggerId, Field(description="Of one trigger, also of a deleted one.")] | None = None
    status: Annotated[str, choice(*_EXECUTION_STATUS)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    cursor: Cursor | None = None


@tool(
    ListExecutions,
    title="List executions",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_executions()",
    toolset=_SET,
)
async def list_executions(args: ListExecutions, ctx: CallContext) -> ToolResult:
    """List what triggers ran, newest first: when it was due, how it ended and why, and its interaction_id. Skipped
    times are in it with the reason. Then get_interaction for what a run said."""
    page = await ctx.engine.schedules.list_executions(
        trigger_id=args.trigger_id, status=args.status, limit=args.limit, cursor=args.cursor, caller=ctx.caller
    )
    if not page.items:
        return ToolResult(
            answer("No executions.", "Next: list_triggers()"), {"executions": [], "interactions": [], "cursor": None}
        )
    ids = [one.interaction_id for one in page.items if one.interaction_id]
    then = call("get_interaction", {"interaction_id": ids[0]}) if ids else "list_triggers()"
    return ToolResult(
        answer(
            plural(len(page.items), "execution") + (" (there are more)" if page.cursor else ""),
            "\n".join(map(read.execution_line, page.items)),
            f"Next: {then}{more_of('list_executions', args, page)}",
        ),
        {"executions": [one.id for one in page.items], "interactions": ids, "cursor": pack_cursor(page.cursor)},
    )


TOOLS = (create_trigger, list_triggers, update_trigger, run_trigger, delete_trigger, list_executions)
