"""create_environment, list_environments, get_environment, fork_environment, delete_environment: a set of its own."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from interactd.nouns import Json
from interactd.sandbox.environments_port import Environment
from interactd_tools.answers import places as read
from interactd_tools.answers.text import answer, call, compact, iso, plural, tokens, when
from interactd_tools.arguments.fields import DEFAULT_TOKENS, Arguments, Cursor, Offset, pack_cursor, refuse
from interactd_tools.arguments.places import Approvals, EnvironmentId, FileName
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.registry import tool

_SET = "environments"
_LISTED = 5000
_NETWORK = 'an object {allowlist: [{domain}]}, a list of domains, or "off"'


def _network(value: object) -> Json | None:
    """Return the policy as the engine takes it; a bare list of domains means an allow-list."""
    if isinstance(value, str):
        if value.strip().lower() in ("off", "disabled", "none", ""):
            return None
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, list):
        rules = cast("list[Any]", value)
        value = {"allowlist": [{"domain": rule} if isinstance(rule, str) else rule for rule in rules]}
    if not isinstance(value, dict):
        raise refuse(_NETWORK, value)
    return cast("Json", value)


class CreateEnvironment(Arguments):
    sources: (
        Annotated[
            list[Json],
            Field(
                description="{type: inline, target, content} or {type: repository | local, source, target}.",
                json_schema_extra={"schema": {"type": "array", "items": {"type": "object"}}},
            ),
        ]
        | None
    ) = None
    env: (
        Annotated[
            Json,
            Field(
                description="Variables: name to text, or to {credential: id}, which keeps the secret outside.",
                json_schema_extra={"schema": {"type": "object"}},
            ),
        ]
        | None
    ) = None
    network: Annotated[
        Json | None,
        BeforeValidator(_network),
        Field(
            description="What it may reach: {allowlist: [{domain: *.example.org, credential}]}; default nothing.",
            json_schema_extra={"schema": {"type": "object", "x-expected": _NETWORK}},
        ),
    ] = None
    limits: (
        Annotated[
            Json,
            Field(
                description="memory_mb, disk_mb, file_mb, pids, cpu, cpu_s, wall_s.",
                json_schema_extra={"schema": {"type": "object"}},
            ),
        ]
        | None
    ) = None
    approvals: (
        Annotated[Approvals, Field(description="What its runs ask before: as in run_agent_background.")] | None
    ) = None


@tool(
    CreateEnvironment,
    title="Create environment",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='create_environment(network={"allowlist": [{"domain": "example.org"}]})',
    toolset=_SET,
)
async def create_environment(args: CreateEnvironment, ctx: CallContext) -> ToolResult:
    """Make a workspace for agents before they run: files in it, variables, what it may reach, limits. It is kept for 7
    days after its last use. Then give its environment_id to run_agent_background, create_session or send_turn."""
    body = {name: value for name, value in args.model_dump().items() if value is not None}
    made = await ctx.engine.environments.create(body, owner=ctx.caller.owner, cwd=ctx.caller.cwd)
    return _made(made)


def _made(made: Environment) -> ToolResult:
    following: Json = {"tool": "run_agent_background", "arguments": {"environment": made.id, "input": "..."}}
    return ToolResult(
        answer(read.head(made), read.about(made), "Next: " + call(following["tool"], following["arguments"])),
        {**read.fields(made), "next": following},
    )


class ListEnvironments(Arguments):
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    cursor: Cursor | None = None


@tool(
    ListEnvironments,
    title="List environments",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_environments()",
    toolset=_SET,
)
async def list_environments(args: ListEnvironments, ctx: CallContext) -> ToolResult:
    """List the workspaces of agents, last used first, with their sizes, times and what they may reach. Then
    get_environment for the files in one."""
    # One more than is shown tells whether there are more.
    found = await ctx.engine.environments.list(owner=ctx.caller.owner, limit=args.limit + 1, cursor=args.cursor)
    shown = found[: args.limit]
    if not shown:
        return ToolResult(
            answer(f"No environments{' after this cursor' if args.cursor else ''}.", "Next: create_environment()"),
            {"environments": [], "cursor": None},
        )
    cursor = pack_cursor(shown[-1].id) if len(found) > args.limit else None
    following: Json = {"tool": "get_environment", "arguments": {"environment_id": shown[0].id}}
    then = call(following["tool"], following["arguments"])
    if cursor:
        then += f"; more: {call('list_environments', {'limit': args.limit, 'cursor': cursor})}"
    return ToolResult(
        answer(
            plural(len(shown), "environment") + (" (there are more)" if cursor else ""),
            "\n".join(read.line(one) for one in shown),
            f"Next: {then}",
        ),
        {"environments": [one.id for one in shown], "cursor": cursor, "next": following},
    )


class GetEnvironment(Arguments):
    environment_id: EnvironmentId
    path: Annotated[FileName, Field(description="A folder in /workspace.")] | None = None
    recursive: Annotated[bool, Field(description="What is in its folders too.")] = False
    offset: Annotated[Offset, Field(description="Place in the list to go on from.")] = 0


@tool(
    GetEnvironment,
    title="Get environment",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='get_environment(environment_id="env_...")',
    toolset=_SET,
)
async def get_environment(args: GetEnvironment, ctx: CallContext) -> ToolResult:
    """Show a workspace: its settings and the files in it now. Values of variables are not shown. What a finished turn
    left is better read with fetch_artifacts, which keeps it as it was then."""
    environments = ctx.engine.environments
    one = await environments.get(args.environment_id, owner=ctx.caller.owner)
    path = args.path or "."
    entries = await environments.files(
        one.id, path, recursive=args.recursive, limit=_LISTED + 1, owner=ctx.caller.owner
    )
    is_all = len(entries) <= _LISTED
    entries = entries[:_LISTED]
    lines: list[str] = []
    room = DEFAULT_TOKENS
    for entry in entries[args.offset :]:
        text = read.entry(entry)
        room -= tokens(text)
        if room < 0 and lines:
            break
        lines.append(text)
    end = args.offset + len(lines)
    count = f"{plural(len(entries), 'entry').replace('entrys', 'entries')}{'' if is_all else ' and more'}"
    blocks = [read.head(one), read.about(one) if not args.offset else "", f"{compact(path)}: {count}", "\n".join(lines)]
    more = end < len(entries) and bool(lines)
    if more:
        arguments: Json = {"environment_id": one.id, **({"path": args.path} if args.path else {})}
        arguments |= {"recursive": True} if args.recursive else {}
        left = len(entries) - end
        blocks.append(f"[cut: {left:,} more; {call('get_environment', {**arguments, 'offset': end})}]")
    following: Json = {"tool": "run_agent_background", "arguments": {"environment": one.id, "input": "..."}}
    blocks.append("Next: " + call(following["tool"], following["arguments"]))
    return ToolResult(
        answer(*blocks),
        {**read.fields(one), "entries": len(entries), "next_offset": end if more else None, "next": following},
    )


class ForkEnvironment(Arguments):
    environment_id: EnvironmentId


@tool(
    ForkEnvironment,
    title="Fork environment",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=False),
    example='fork_environment(environment_id="env_...")',
    toolset=_SET,
)
async def fork_environment(args: ForkEnvironment, ctx: CallContext) -> ToolResult:
    """Copy a workspace with its files and settings, so that something can be tried without touching it. The old one
    stays as it is. Then use the new environment_id."""
    made = await ctx.engine.environments.create(
        {"from_environment": args.environment_id}, owner=ctx.caller.owner, cwd=ctx.caller.cwd
    )
    return _made(made)


class DeleteEnvironment(Arguments):
    environment_id: EnvironmentId


@tool(
    DeleteEnvironment,
    title="Delete environment",
    annotations=Annotations(read_only=False, destructive=True, idempotent=True, open_world=False),
    example='delete_environment(environment_id="env_...")',
    toolset=_SET,
)
async def delete_environment(args: DeleteEnvironment, ctx: CallContext) -> ToolResult:
    """Delete a workspace with every file in it, for good; what runs in it is stopped. Artifacts of finished turns stay
    with their sessions. It cannot be undone: be sure that the user wants it."""
    receipt = await ctx.engine.environments.delete(args.environment_id, owner=ctx.caller.owner)
    removed: dict[str, int] = receipt["removed"]
    at = receipt["deleted_at"]
    counts = ", ".join(plural(count, name.removesuffix("s")) for name, count in removed.items())
    return ToolResult(
        answer(
            f"deleted · environment {receipt['environment_id']} · receipt {receipt['id']} · {when(at)}",
            f"Removed: {counts}.",
            "Next: list_environments()",
        ),
        {
            "environment_id": receipt["environment_id"],
            "receipt_id": receipt["id"],
            "deleted_at": iso(at),
            "removed": removed,
        },
    )


TOOLS = (create_environment, list_environments, get_environment, fork_environment, delete_environment)
