"""run_agent_background: a task for an agent, which goes on when everybody else has left."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from interactd.agents.port import DEFAULT_AGENT
from interactd.engine.port import Result
from interactd.errors import InteractdError, InvalidArgument
from interactd_tools.answers.interaction import View, show
from interactd_tools.arguments.amounts import Budget
from interactd_tools.arguments.content import Input
from interactd_tools.arguments.dispatch import Shown, dispatch_of
from interactd_tools.arguments.fields import DEFAULT_TOKENS, Arguments, Key, Line, SessionId
from interactd_tools.arguments.places import AgentName, Approvals, Place, RunSeconds, RunTokens, Steps, limits
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.keys import key_for
from interactd_tools.registry import tool
from interactd_tools.turns import REPEATED, left

_LONGEST_KEY = 240


class RunAgentBackground(Arguments):
    input: Annotated[Input, Field(description="The task; may have images as in send_turn.")]
    agent: Annotated[AgentName, Field(description=f"Default {DEFAULT_AGENT}; list_agents shows them.")] | None = None
    session_id: Annotated[SessionId, Field(description="Go on in this session; else a new one.")] | None = None
    environment: Place | None = None
    model: Annotated[Line, Field(description="For the agent, in a new session.")] | None = None
    approvals: (
        Annotated[Approvals, Field(description="Ask the user before tools run: always_ask, or JSON {tools, rules}.")]
        | None
    ) = None
    title: Annotated[Line, Field(description="Of the new session.")] | None = None
    max_steps: Steps | None = None
    max_tokens: Annotated[RunTokens, Field(description="In and out, of the whole run.")] | None = None
    max_seconds: RunSeconds | None = None
    dispatch: Shown | None = None
    budget: Annotated[Budget, Field(description="As in send_turn.")] | None = None
    idempotency_key: Key | None = None


@tool(
    RunAgentBackground,
    title="Run agent in background",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='run_agent_background(input="...")',
)
async def run_agent_background(args: RunAgentBackground, ctx: CallContext) -> ToolResult:
    """Give an agent a task: in its own sandbox it writes and runs code, makes files and fetches what it is allowed to.
    Returns ids at once; the work goes on even if this client closes. Then get_interaction, at last fetch_artifacts."""
    key = key_for(ctx, "run_agent_background", args, args.idempotency_key)
    if args.session_id is None:
        result = await _anew(args, ctx, key)
    else:
        result = await _go_on(args, args.session_id, ctx, key)
    repeated = result.replayed and args.idempotency_key is not None
    view = View(DEFAULT_TOKENS, note=REPEATED if repeated else "", artifacts=await left(ctx, result))
    return show(result, view)


async def _anew(args: RunAgentBackground, ctx: CallContext, key: str | None) -> Result:
    session = await ctx.engine.create_session(
        model=args.model,
        agent=args.agent or DEFAULT_AGENT,
        environment=args.environment,
        title=args.title,
        # Two things are started under one key of the caller's; each needs a key of its own.
        idempotency_key=f"{key[:_LONGEST_KEY]}:session" if key else None,
        caller=ctx.caller,
    )
    try:
        return await _send(args, session.id, ctx, key)
    except InteractdError:
        # With a key the caller may come again and go on with it; without, nobody would ever know of it.
        if args.idempotency_key is None:
            await ctx.engine.delete_session(session.id, caller=ctx.caller)
        raise


async def _go_on(args: RunAgentBackground, session_id: str, ctx: CallContext, key: str | None) -> Result:
    for name in ("title", "model"):
        if getattr(args, name) is not None:
            raise InvalidArgument(
                f"{name}: is for a new session, and session_id names an old one",
                repair=f"Leave {name} out, or session_id.",
                field=name,
            )
    session = await ctx.engine.get_session(session_id, caller=ctx.caller)
    return await _send(args, session.id, ctx, key, agent=args.agent or session.agent or DEFAULT_AGENT)


async def _send(
    args: RunAgentBackground, session_id: str, ctx: CallContext, key: str | None, *, agent: str | None = None
) -> Result:
    return await ctx.engine.send_turn(
        session_id,
        args.input,
        agent=agent,
        environment=args.environment if args.session_id else None,
        limits=limits(args.max_steps, args.max_tokens, args.max_seconds),
        approvals=args.approvals,
        budget=args.budget or None,
        background=True,
        dispatch=dispatch_of(args.dispatch),
        idempotency_key=key,
        caller=ctx.caller,
    )


TOOLS = (run_agent_background,)
