"""list_agents and server_status: what this machine can do now."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field

from interactd.models.port import ModelInfo
from interactd_tools.answers.text import answer, call, one_line, plural, span, tokens
from interactd_tools.arguments.fields import DEFAULT_TOKENS, Arguments, Line, Offset
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.registry import tool


class ListAgents(Arguments):
    query: Annotated[Line, Field(description="Only models whose name or provider has this in it.")] | None = None
    refresh: Annotated[bool, Field(description="Probe again instead of using the last minute's answers.")] = False
    offset: Annotated[Offset, Field(description="Line to read on from, as a cut result says.")] = 0


@tool(
    ListAgents,
    title="List agents and models",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=True),
    example="list_agents()",
)
async def list_agents(args: ListAgents, ctx: CallContext) -> ToolResult:
    """List the models that can be used now, which one auto picks and why, and why others cannot be used and what to do
    about it. Use it before create_session when the model matters."""
    models = await ctx.engine.models(refresh=args.refresh, caller=ctx.caller)
    status = await ctx.engine.status(caller=ctx.caller)
    wanted = (args.query or "").lower()
    models = [one for one in models if wanted in f"{one.id} {one.provider}".lower()]
    usable = [one for one in models if one.available]
    usable.sort(key=lambda one: not one.default)
    rest = [one for one in models if not one.available]
    lines = [_usable(one) for one in usable] + [_unusable(one) for one in rest]
    shown, room = 0, DEFAULT_TOKENS
    for text in lines[args.offset :]:
        room -= tokens(text)
        if room < 0 and shown:
            break
        shown += 1
    end = args.offset + shown
    picks = next((one.id for one in usable if one.default), None)
    blocks = [
        f"{plural(len(usable), 'model')} usable, {len(rest)} not",
        _auto(str(status.get("auto") or picks or "nothing is usable")) if not args.offset else "",
        "\n".join(lines[args.offset : end]),
    ]
    if end < len(lines):
        arguments: dict[str, Any] = {**({"query": args.query} if args.query else {}), "offset": end}
        blocks.append(f"[cut: {len(lines) - end:,} more lines; {call('list_agents', arguments)}]")
    if not args.offset:
        blocks.append("Agents: none in this version; sessions run on a model.")
    fields: dict[str, Any] = {
        "auto": picks,
        "usable": len(usable),
        "unusable": len(rest),
        "next_offset": end if end < len(lines) else None,
    }
    if usable:
        blocks.append("Next: " + call("create_session", {"model": usable[0].id}))
        fields["next"] = {"tool": "create_session", "arguments": {"model": usable[0].id}}
    else:
        blocks.append("Next: tell the user what is missing; list_agents(refresh=true) looks again")
    return ToolResult(answer(*blocks), fields)


def _usable(one: ModelInfo) -> str:
    window = f", {one.context_window:,} tokens window" if one.context_window else ""
    place = ", local" if one.local else ""
    picked = ", auto picks it" if one.default else ""
    return f"- {one.id}: {one_line(one.detail, 200)}{place}{window}{picked}"


def _unusable(one: ModelInfo) -> str:
    return f"- not usable: {one.id}: {one_line(one.detail, 300)}"


class ServerStatus(Arguments):
    pass


@tool(
    ServerStatus,
    title="Server status",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="server_status()",
)
async def server_status(args: ServerStatus, ctx: CallContext) -> ToolResult:
    """Show whether the server is well: version, what runs and waits, unread results, the size of the store. Use it
    when something seems wrong."""
    del args
    status = await ctx.engine.status(caller=ctx.caller)
    store = cast("dict[str, Any]", status.get("store") or {})
    busy, queued, unread = (int(status.get(name) or 0) for name in ("busy", "queued", "unread"))
    lines = [
        f"Running: {plural(busy, 'interaction')}, {queued} queued. Unread background results: {unread}.",
        _auto(str(status["auto"])) if status.get("auto") else "",
        _store(store),
        f"Home: {status['home']}" if status.get("home") else "",
    ]
    following = "list_sessions(unread=true)" if unread else "list_agents()"
    up = f" · up {span(float(status['uptime_s']))}" if status.get("uptime_s") is not None else ""
    return ToolResult(
        answer(
            f"ok · interactd {status.get('version', 'of unknown version')}{up}",
            "\n".join(line for line in lines if line),
            f"Next: {following}",
        ),
        {
            "status": "ok",
            "version": status.get("version"),
            "busy": busy,
            "queued": queued,
            "unread": unread,
            "sessions": store.get("sessions"),
        },
    )


def _store(store: dict[str, Any]) -> str:
    counts = ", ".join(
        plural(int(store[name]), name[:-1]) for name in ("sessions", "interactions", "steps") if name in store
    )
    sizes = [f"{store['bytes'] / 1e6:,.1f} MB" if "bytes" in store else ""]
    sizes.append(f"{store['free_bytes'] / 1e9:,.1f} GB free on its disk" if store.get("free_bytes") else "")
    text = ", ".join(part for part in (counts, *sizes) if part)
    return f"Store: {text}" if text else ""


TOOLS = (list_agents, server_status)


def _auto(said: str) -> str:
    """What `auto` picks and why; the catalog's sentence may name it already."""
    return one_line(said if said.startswith("auto") else f"auto: {said}", 600)
