"""send_turn, get_interaction, respond, cancel_interaction."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from interactd.engine.port import Result
from interactd.errors import InteractdError, InvalidArgument
from interactd.nouns import Json
from interactd.sandbox.environments_port import Artifact
from interactd_tools.answers.inbox import nothing_unread, picked
from interactd_tools.answers.interaction import View, read_already, show
from interactd_tools.answers.progress import is_agents
from interactd_tools.answers.text import call
from interactd_tools.arguments.amounts import Budget
from interactd_tools.arguments.content import Input
from interactd_tools.arguments.dispatch import Hidden, dispatch_of
from interactd_tools.arguments.fields import (
    DEFAULT_TOKENS,
    Arguments,
    Generation,
    InteractionId,
    Key,
    Line,
    MaxTokens,
    Offset,
    OtherFunctions,
    Prose,
    SessionId,
    Thinking,
    WaitS,
    generation_config,
    wrong,
)
from interactd_tools.arguments.places import AgentName, Approvals, Place
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.keys import key_for
from interactd_tools.notices import notice
from interactd_tools.registry import tool
from interactd_tools.waiting import wait, wait_for_any

DEFAULT_WAIT_S = 30
REPEATED = "This key was used before: here is that work, nothing new was started."
_LISTING_S = 2.0
Background = Annotated[bool, Field(description="Return a handle at once.")]


class SendTurn(Arguments):
    session_id: SessionId
    input: Input
    wait_s: WaitS = DEFAULT_WAIT_S
    background: Background = False
    max_tokens: MaxTokens = DEFAULT_TOKENS
    previous_interaction_id: Annotated[InteractionId, Field(description="Go on from this earlier turn.")] | None = None
    model: Annotated[Line, Field(description="Another model, for this turn.")] | None = None
    agent: Annotated[AgentName, Field(description="An agent takes this turn.")] | None = None
    environment: Annotated[Place, Field(description="As in run_agent_background.")] | None = None
    approvals: Approvals | None = None
    system_instruction: Annotated[Prose, Field(description="Replaces the session's, for this turn.")] | None = None
    thinking_level: Thinking | None = None
    generation_config: (
        Annotated[
            Generation,
            Field(
                description="As in create_session, for this turn.",
                json_schema_extra={"x-published": {"type": "object"}},
            ),
        ]
        | None
    ) = None
    tools: OtherFunctions | None = None
    budget: Budget | None = None
    if_busy: Annotated[
        Literal["conflict", "queue"], Field(description="While another turn runs: refuse, or wait in line.")
    ] = "conflict"
    dispatch: Hidden | None = None
    idempotency_key: Key | None = None


@tool(
    SendTurn,
    title="Send turn",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='send_turn(session_id="ses_...", input="...")',
)
async def send_turn(args: SendTurn, ctx: CallContext) -> ToolResult:
    """Say something in a session and get the model's answer. Waits up to wait_s; a longer turn runs on, and you get
    its interaction_id for get_interaction: do not send it again. If the model calls functions the status is
    requires_action: run them and call respond. A long answer is cut and says how to read on."""
    begun = time.monotonic()
    if args.model and args.agent:
        raise InvalidArgument(
            "agent: expected either agent or model for a turn, got both",
            repair=f"Next: {call('send_turn', {'session_id': args.session_id, 'agent': args.agent, 'input': '...'})}",
            field="agent",
        )
    result = await ctx.engine.send_turn(
        args.session_id,
        args.input,
        previous_interaction_id=args.previous_interaction_id,
        model=args.model,
        agent=args.agent,
        environment=args.environment,
        approvals=args.approvals,
        system_instruction=args.system_instruction,
        generation_config=generation_config(args.thinking_level, args.generation_config),
        tools=args.tools,
        background=args.background,
        budget=args.budget or None,
        if_busy=args.if_busy,
        dispatch=dispatch_of(args.dispatch),
        idempotency_key=key_for(ctx, "send_turn", args, args.idempotency_key),
        caller=ctx.caller,
    )
    return await outcome(result, args, ctx, begun)


async def outcome(
    started: Result, args: SendTurn | Respond, ctx: CallContext, begun: float, answered: set[str] | None = None
) -> ToolResult:
    """Wait for a turn that was started, as long as its caller would, and show what came of it."""
    result = started
    if not args.background:
        result = await wait(ctx, started.interaction.id, args.wait_s, begun=begun)
        result.replayed = started.replayed
    # A key of our own making is found again only when the same request is sent again: nobody needs to be told.
    repeated = started.replayed and args.idempotency_key is not None
    view = View(
        args.max_tokens,
        skip=read_already(result, answered) if answered else 0,
        unread=await notice(ctx) if result.interaction.terminal else "",
        note=REPEATED if repeated else "",
        artifacts=await left(ctx, result),
    )
    answer = show(result, view)
    answer.is_error = result.interaction.status == "failed"
    return answer


async def left(ctx: CallContext, result: Result) -> list[Artifact]:
    """Return the files that an agent's finished turn left."""
    one = result.interaction
    if not one.terminal or not is_agents(one):
        return []
    try:
        # The answer is here: what cannot be listed now must not lose it.
        async with asyncio.timeout(_LISTING_S):
            return await ctx.engine.artifacts(one.id, caller=ctx.caller)
    except (TimeoutError, InteractdError):
        return []


class GetInteraction(Arguments):
    interaction_id: Annotated[InteractionId, Field(description="Without it: the next unread result.")] | None = None
    session_id: SessionId | None = None
    unread: bool = False
    wait_s: WaitS = DEFAULT_WAIT_S
    offset: Annotated[Offset, Field(description="Character to read on from, as a cut result says.")] | None = None
    max_tokens: MaxTokens = DEFAULT_TOKENS
    response_format: Annotated[
        Literal["concise", "detailed"], Field(description="detailed: input, calls, results and thoughts too.")
    ] = "concise"


@tool(
    GetInteraction,
    title="Get interaction",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='get_interaction(interaction_id="int_...")',
)
async def get_interaction(args: GetInteraction, ctx: CallContext) -> ToolResult:
    """Get the result of a turn, waiting up to wait_s if it still runs (of an agent: what it does now), or read on in a
    long answer with offset. Call it again while the status is queued or in_progress. Reading twice costs nothing."""
    begun = time.monotonic()
    view = View(args.max_tokens, offset=args.offset, detailed=args.response_format == "detailed")
    interaction_id = args.interaction_id
    wait_s = args.wait_s
    if interaction_id is None:
        found, asks = await wait_for_any(ctx, args.session_id, wait_s, begun=begun)
        if not (found.unread or found.running or asks):
            return nothing_unread(found, args.session_id)
        interaction_id, view.note = picked(found, args.session_id, asks=asks)
        # The patience of this call was spent on all of them.
        wait_s = 0
    elif args.session_id is not None or args.unread:
        raise InvalidArgument(
            "session_id, unread: say which result is wanted where interaction_id does not",
            repair=f"Next: {call('get_interaction', {'interaction_id': interaction_id})}",
            field="session_id" if args.session_id is not None else "unread",
        )
    result = await wait(ctx, interaction_id, wait_s, begun=begun)
    view.artifacts = await left(ctx, result)
    if view.detailed and is_agents(result.interaction):
        view.requests = await ctx.engine.requests(result.interaction.id, caller=ctx.caller)
    if args.interaction_id is None:
        view.unread = await notice(ctx)
    return show(result, view)


class FunctionResult(Arguments):
    call_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            json_schema_extra={"schema": {"type": "string", "x-expected": "text of 1 to 200 characters"}},
        ),
    ]
    result: Annotated[
        Any,
        Field(
            description="Text, JSON, allow or deny.",
            json_schema_extra={"schema": {"type": "string", "x-expected": "text or JSON"}},
        ),
    ]
    is_error: Annotated[bool, Field(description="It failed; result says why.")] = False


def _each_once(results: list[FunctionResult]) -> list[FunctionResult]:
    ids = [one.call_id for one in results]
    if twice := next((one for one in ids if ids.count(one) > 1), None):
        raise wrong(f"expected each call_id once, got {twice[:60]} twice")
    return results


_RESULTS = "a list of {call_id, result}"


class Respond(Arguments):
    interaction_id: InteractionId
    results: Annotated[
        list[FunctionResult],
        AfterValidator(_each_once),
        Field(
            description="One for each call.",
            min_length=1,
            max_length=128,
            json_schema_extra={"x-published-without": ["minItems", "maxItems"], "x-expected": _RESULTS},
        ),
    ]
    wait_s: WaitS = DEFAULT_WAIT_S
    background: Background = False
    max_tokens: MaxTokens = DEFAULT_TOKENS
    idempotency_key: Key | None = None


@tool(
    Respond,
    title="Respond",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='respond(interaction_id="int_...", results=[{"call_id": "...", "result": "..."}])',
)
async def respond(args: Respond, ctx: CallContext) -> ToolResult:
    """Give an interaction with status requires_action what it waits for, by call_id: results of functions, or allow or
    deny for what an agent wants to do. When nothing is missing it goes on; the answer comes as from send_turn."""
    begun = time.monotonic()
    result = await ctx.engine.respond(
        args.interaction_id,
        [_sent(one) for one in args.results],
        idempotency_key=key_for(ctx, "respond", args, args.idempotency_key),
        caller=ctx.caller,
    )
    return await outcome(result, args, ctx, begun, {one.call_id for one in args.results})


def _sent(one: FunctionResult) -> Json:
    sent: Json = {"call_id": one.call_id, "result": one.result}
    return {**sent, "is_error": True} if one.is_error else sent


class CancelInteraction(Arguments):
    interaction_id: InteractionId


@tool(
    CancelInteraction,
    title="Cancel interaction",
    annotations=Annotations(read_only=False, destructive=True, idempotent=True, open_world=False),
    example='cancel_interaction(interaction_id="int_...")',
)
async def cancel_interaction(args: CancelInteraction, ctx: CallContext) -> ToolResult:
    """Stop a turn that is queued, running or waiting for respond; the provider call ends at once and what it made is
    kept. A finished turn stays as it is. The session can be used again right away."""
    result = await ctx.engine.cancel(args.interaction_id, caller=ctx.caller)
    return show(result, View(DEFAULT_TOKENS, artifacts=await left(ctx, result)))


TOOLS = (send_turn, get_interaction, respond, cancel_interaction)
