"""create_session, list_sessions, get_session, fork_session, delete_session."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from interactd.engine.port import Standing
from interactd.nouns import Session
from interactd_tools.answers import session as read
from interactd_tools.answers.text import answer, call, iso, plural, when
from interactd_tools.arguments.amounts import Budget
from interactd_tools.arguments.fields import (
    DEFAULT_TOKENS,
    Arguments,
    Cursor,
    Functions,
    Generation,
    InteractionId,
    Key,
    Labels,
    Line,
    MaxTokens,
    Prose,
    SessionId,
    Thinking,
    Ttl,
    generation_config,
    pack_cursor,
)
from interactd_tools.arguments.places import AgentName, Approvals, Place
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.keys import key_for
from interactd_tools.notices import notice
from interactd_tools.registry import tool

_UNREAD = 200
_STANDINGS = 200


class CreateSession(Arguments):
    model: Annotated[Line, Field(description="provider/name or auto (default); list_agents shows them.")] | None = None
    agent: Annotated[AgentName, Field(description="Takes the turns, on that model.")] | None = None
    environment: Annotated[Place, Field(description="As in run_agent_background.")] | None = None
    approvals: Approvals | None = None
    system_instruction: Annotated[Prose, Field(description="Instructions for every turn.")] | None = None
    thinking_level: Thinking | None = None
    generation_config: (
        Annotated[
            Generation,
            Field(
                description="{temperature, top_p, seed, max_output_tokens, stop_sequences, tool_choice: auto|any|none}",
                json_schema_extra={"x-published": {"type": "object"}},
            ),
        ]
        | None
    ) = None
    tools: Functions | None = None
    budget: Annotated[Budget, Field(description="Of all turns.")] | None = None
    ttl: Ttl = None
    title: Annotated[Line, Field(description="Shown in lists.")] | None = None
    labels: Annotated[Labels, Field(description="Your own tags, for list_sessions.")] | None = None
    idempotency_key: Key | None = None


@tool(
    CreateSession,
    title="Create session",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=False),
    example='create_session(model="auto")',
)
async def create_session(args: CreateSession, ctx: CallContext) -> ToolResult:
    """Start a durable conversation with a model and get its session_id. Nothing is sent to the model yet. It survives
    restarts and can be used from any client of this machine. Then call send_turn."""
    session = await ctx.engine.create_session(
        model=args.model,
        agent=args.agent,
        environment=args.environment,
        approvals=args.approvals,
        system_instruction=args.system_instruction,
        generation_config=generation_config(args.thinking_level, args.generation_config),
        tools=args.tools,
        budget=args.budget or None,
        ttl_s=args.ttl,
        title=args.title,
        labels=args.labels,
        idempotency_key=key_for(ctx, "create_session", args, args.idempotency_key),
        caller=ctx.caller,
    )
    return _made(session)


def _made(session: Session, origin: str = "") -> ToolResult:
    following: dict[str, Any] = {"tool": "send_turn", "arguments": {"session_id": session.id, "input": "..."}}
    if session.state != "active":
        # An old key: what it started is gone, and nothing new is started under it.
        origin, following = "This key was used before, for this session.", {"tool": "create_session", "arguments": {}}
    return ToolResult(
        answer(
            read.head(session),
            "\n".join(part for part in (origin, read.lifetime(session), read.about_model(session.model)) if part),
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {**read.fields(session), "next": following},
    )


class ListSessions(Arguments):
    state: Literal["active", "expired", "all"] = "active"
    labels: Annotated[Labels, Field(description="Only with all these.")] | None = None
    unread: Annotated[bool, Field(description="Only with background results nobody read.")] = False
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Cursor | None = None


@tool(
    ListSessions,
    title="List sessions",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_sessions(limit=20)",
)
async def list_sessions(args: ListSessions, ctx: CallContext) -> ToolResult:
    """List sessions, last used first, with titles, models, turns and times. Use it to find a session_id again, or with
    unread=true the background results that wait for you. Then get_session or get_interaction."""
    page = await ctx.engine.list_sessions(
        state=args.state,
        labels=args.labels,
        unread=args.unread,
        limit=args.limit,
        cursor=args.cursor,
        caller=ctx.caller,
    )
    sessions: list[Session] = page.items
    unread_ids = await _unread(ctx) if args.unread else {}
    kind = "" if args.state == "all" else f"{args.state} "
    found = plural(len(sessions), f"{kind}session") + (" with unread results" if args.unread else "")
    if not sessions:
        narrowed = args.labels or args.unread or args.state != "all"
        return ToolResult(
            answer(
                f"No {kind}sessions{' with unread results' if args.unread else ''}"
                f"{' with these labels' if args.labels else ''}{' after this cursor' if args.cursor else ''}.",
                f"Next: {call('list_sessions', {'state': 'all'}) if narrowed else 'create_session()'}",
            ),
            {"sessions": [], "unread": [], "cursor": None},
        )
    unread = [id for one in sessions for id in unread_ids.get(one.id, [])]
    # What has expired answers nothing but that it has.
    alive = next((one for one in sessions if one.state == "active"), None)
    following: dict[str, Any] = {"tool": "create_session", "arguments": {}}
    if alive is not None:
        following = {"tool": "get_session", "arguments": {"session_id": alive.id}}
    if unread:
        following = {"tool": "get_interaction", "arguments": {"interaction_id": unread[0]}}
    then = call(following["tool"], following["arguments"])
    cursor = pack_cursor(page.cursor)
    if cursor:
        more = {name: value for name, value in args.model_dump(exclude_defaults=True).items() if name != "cursor"}
        then += f"; more: {call('list_sessions', {**more, 'cursor': cursor})}"
    at = await _standings(ctx)
    lines = "\n".join(read.line(one, unread=unread_ids.get(one.id), now_at=at.get(one.id)) for one in sessions)
    return ToolResult(
        answer(
            found + (" (there are more)" if cursor else ""),
            lines,
            "\n".join(part for part in (await notice(ctx), f"Next: {then}") if part),
        ),
        {
            "sessions": [one.id for one in sessions],
            "unread": unread,
            "cursor": cursor,
            "next": following,
        },
    )


async def _standings(ctx: CallContext) -> dict[str, Standing]:
    """What each session is at: its oldest turn that runs or waits."""
    found: dict[str, Standing] = {}
    if ctx.engine.busy:
        for one in await ctx.engine.queue(limit=_STANDINGS, caller=ctx.caller):
            found.setdefault(one.interaction.session_id, one)
    return found


async def _unread(ctx: CallContext) -> dict[str, list[str]]:
    """The unread results by session, oldest first."""
    found: dict[str, list[str]] = {}
    for one in (await ctx.engine.inbox(limit=_UNREAD, caller=ctx.caller)).unread:
        found.setdefault(one.session_id, []).append(one.id)
    return found


class GetSession(Arguments):
    session_id: SessionId
    response_format: Annotated[
        Literal["concise", "detailed"], Field(description="detailed: whole texts, calls, results, thoughts.")
    ] = "concise"
    limit: Annotated[int, Field(ge=1, le=50, description="Most turns.")] = 10
    before: Annotated[InteractionId, Field(description="Only turns before this one: pages back.")] | None = None
    max_tokens: MaxTokens = DEFAULT_TOKENS


@tool(
    GetSession,
    title="Read session",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='get_session(session_id="ses_...")',
)
async def get_session(args: GetSession, ctx: CallContext) -> ToolResult:
    """Read a session: its settings and its last turns, oldest first. Use it to catch up before send_turn; page back
    with before. For the whole text of one answer use get_interaction."""
    session, turns = await ctx.engine.transcript(
        args.session_id, limit=args.limit, before=args.before, caller=ctx.caller
    )
    blocks, shown = read.pages(turns, args.response_format, args.max_tokens)
    turns = turns[len(turns) - shown :]
    oldest = turns[0].interaction if turns else None
    older = oldest is not None and oldest.previous_interaction_id is not None
    settings = [f"{plural(session.turns, 'turn')}. {read.lifetime(session)}"]
    if session.forked_from:
        settings.append(f"Forked from {session.forked_from} at {session.forked_at}.")
    if session.system_instruction and args.before is None:
        settings.append("System instruction: " + read.one_line(session.system_instruction, 300))
    then = call("send_turn", {"session_id": session.id, "input": "..."})
    if oldest and older:
        page: dict[str, Any] = {"session_id": session.id, "before": oldest.id}
        if args.response_format == "detailed":
            page["response_format"] = "detailed"
        then = f"{call('get_session', page)} for older turns, or {then}"
    return ToolResult(
        answer(
            read.head(session),
            "\n".join(settings),
            *(blocks or ["(no turns before this one)" if args.before else "(no turns yet)"]),
            f"Next: {then}",
        ),
        {
            **read.fields(session),
            "interactions": [{"id": t.interaction.id, "status": t.interaction.status} for t in turns],
            "before": oldest.id if oldest and older else None,
            "next": {"tool": "send_turn", "arguments": {"session_id": session.id, "input": "..."}},
        },
    )


class ForkSession(Arguments):
    session_id: SessionId
    at: Annotated[InteractionId, Field(description="The interaction to fork after; default: the last.")] | None = None
    title: Annotated[Line, Field(description="Shown in lists.")] | None = None
    model: Annotated[Line, Field(description="Another model for the fork.")] | None = None
    ttl: Annotated[Ttl, Field(description="As in create_session; default: the old one's.")] = None
    idempotency_key: Key | None = None


@tool(
    ForkSession,
    title="Fork session",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=False),
    example='fork_session(session_id="ses_...")',
)
async def fork_session(args: ForkSession, ctx: CallContext) -> ToolResult:
    """Make a new session that shares the history up to one interaction and goes its own way from there; the old one
    stays as it is. Use it to try something else or go back. Then send_turn to the new session_id."""
    session = await ctx.engine.fork_session(
        args.session_id,
        at=args.at,
        title=args.title,
        model=args.model,
        ttl_s=args.ttl,
        idempotency_key=key_for(ctx, "fork_session", args, args.idempotency_key),
        caller=ctx.caller,
    )
    at = f" at {session.forked_at}" if session.forked_at else ""
    history = plural(session.turns, "turn")
    return _made(session, f"Forked from {session.forked_from}{at}, with {history} of history.")


class DeleteSession(Arguments):
    session_id: SessionId


@tool(
    DeleteSession,
    title="Delete session",
    annotations=Annotations(read_only=False, destructive=True, idempotent=True, open_world=False),
    example='delete_session(session_id="ses_...")',
)
async def delete_session(args: DeleteSession, ctx: CallContext) -> ToolResult:
    """Delete a session for good: its turns, files and index entries; what runs in it is cancelled. Forks keep the
    history they share. Returns a receipt of what was removed. It cannot be undone: be sure that the user wants it."""
    receipt = await ctx.engine.delete_session(args.session_id, caller=ctx.caller)
    text = answer(
        f"deleted · session {receipt.session_id} · receipt {receipt.id} · {when(receipt.deleted_at)}",
        read.removed(receipt),
        "Next: list_sessions()",
    )
    fields: dict[str, Any] = {
        "session_id": receipt.session_id,
        "receipt_id": receipt.id,
        "deleted_at": iso(receipt.deleted_at),
        "removed": receipt.removed,
    }
    return ToolResult(text, {**fields, "kept": receipt.kept} if receipt.kept else fields)


TOOLS = (create_session, list_sessions, get_session, fork_session, delete_session)
