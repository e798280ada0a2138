"""server_status: whether the daemon is well."""

from __future__ import annotations

from typing import Any, cast

from interactd_tools.answers.money import left, usd
from interactd_tools.answers.schedules import status_fields, status_lines
from interactd_tools.answers.text import answer, one_line, plural, span
from interactd_tools.arguments.fields import Arguments
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.notices import notice
from interactd_tools.registry import tool


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
    busy, queued, unread, waiting = (int(status.get(name) or 0) for name in ("busy", "queued", "unread", "waiting"))
    lines = [
        f"Running: {plural(busy, 'interaction')}, {queued} queued. Unread background results: {unread}.",
        await notice(ctx),
        *_queues(status.get("dispatch") or {}),
        picks(str(status["auto"])) if status.get("auto") else "",
        *status_lines(cast("dict[str, Any]", status.get("schedules") or {})),
        _store(store),
        _spent(status.get("spent")),
        f"Home: {status['home']}" if status.get("home") else "",
    ]
    following = "get_interaction()" if unread else "list_agents()"
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
            "waiting": waiting,
            "sessions": store.get("sessions"),
            **({"spent_today": status["spent"]} if status.get("spent") else {}),
            **status_fields(cast("dict[str, Any]", status.get("schedules") or {})),
        },
    )


def _queues(dispatch: dict[str, Any]) -> list[str]:
    """What waits, and for what; nothing when nothing does."""
    if not dispatch.get("waiting"):
        return []
    lines = [f"Slots: {dispatch['running']} of {dispatch['max_running']} taken."]
    if dispatch.get("delayed"):
        lines.append(f"{plural(int(dispatch['delayed']), 'interaction')} not before a later time.")
    for name, of in cast("dict[str, dict[str, Any]]", dispatch.get("providers") or {}).items():
        if of["waiting"]:
            most = f" of {of['max_running']}" if "max_running" in of else ""
            lines.append(f"{name}: {of['running']}{most} running, {of['waiting']} waiting.")
    return [" ".join(lines)]


def _spent(today: dict[str, Any] | None) -> str:
    if not today or not (today.get("steps") or today.get("budget")):
        return ""
    return f"Spent today: {usd(today)}, {today['tokens']:,} tokens{left(today)}"


def _store(store: dict[str, Any]) -> str:
    counts = ", ".join(
        plural(int(store[name]), name[:-1]) for name in ("sessions", "interactions", "steps") if name in store
    )
    sizes = [f"{store['bytes'] / 1e6:,.1f} MB" if "bytes" in store else ""]
    sizes.append(f"{store['free_bytes'] / 1e9:,.1f} GB free on its disk" if store.get("free_bytes") else "")
    text = ", ".join(part for part in (counts, *sizes) if part)
    return f"Store: {text}" if text else ""


TOOLS = (server_status,)


def picks(said: str) -> str:
    """What `auto` picks and why; the catalog's sentence may name it already."""
    return one_line(said if said.startswith("auto") else f"auto: {said}", 600)
