"""export_data, import_data, keep_session, get_storage: a set of its own."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field

from interactd.engine.archive.answers import Exported, Imported
from interactd.nouns import Json
from interactd_tools.answers import session as sessions
from interactd_tools.answers.text import answer, call, compact, plural, span
from interactd_tools.arguments.fields import Arguments, Prose, SessionId, Ttl
from interactd_tools.context import Annotations, CallContext, Link, ToolResult
from interactd_tools.deadlines import longest_wait
from interactd_tools.registry import tool

_SET = "data"
_URI = "interactd://exports/"
_SHOWN = 20


class ExportData(Arguments):
    session_ids: (
        Annotated[list[SessionId], Field(description="Which; default: everything.", max_length=1000)] | None
    ) = None
    with_environments: Annotated[bool, Field(description="The files of workspaces too.")] = False


@tool(
    ExportData,
    title="Export data",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=False),
    example='export_data(session_ids=["ses_..."])',
    toolset=_SET,
)
async def export_data(args: ExportData, ctx: CallContext) -> ToolResult:
    """Write sessions, or everything, into one zip: turns and steps, files that agents left, agents, environments, what
    it cost, and with everything the triggers. For a backup, or to take it to another machine; import_data reads it.
    Secrets and webhooks are not in it. Gives its path, sha256 and a link. A large one goes on in the background: the
    same call again waits for it."""
    done = await ctx.engine.export_data(
        args.session_ids,
        with_environments=args.with_environments,
        wait_s=longest_wait(ctx.client_name, ctx.deadline_s),
        caller=ctx.caller,
    )
    if done is None:
        return _goes_on("export_data", args.model_dump(exclude_defaults=True), "The export")
    return _exported(done)


def _exported(done: Exported) -> ToolResult:
    uri = _URI + done.path.name
    following: Json = {"tool": "import_data", "arguments": {"path": str(done.path), "dry_run": True}}
    text = answer(
        f"exported · {_counts(done.counts)} · {plural(done.size_bytes, 'byte')}",
        f"Path: {done.path}\nsha256 {done.sha256}\nLink: {uri}",
        "\n".join(f"Note: {note}." for note in done.notes),
        f"Next: give the user the path; {call(following['tool'], following['arguments'])} checks it.",
    )
    fields: Json = {
        "path": str(done.path),
        "uri": uri,
        "size_bytes": done.size_bytes,
        "sha256": done.sha256,
        "counts": done.counts,
        "next": following,
    }
    return ToolResult(text, fields, links=[Link(uri, done.path.name, "application/zip", "An export of sessions")])


class ImportData(Arguments):
    path: Annotated[Prose, Field(description="The zip on the server's machine, or an export's link.", min_length=1)]
    dry_run: Annotated[bool, Field(description="Check it and say what would come in; keep nothing.")] = False
    as_new: Annotated[bool, Field(description="Give everything new ids.")] = False
    restore: Annotated[bool, Field(description="Bring back what was deleted or had expired.")] = False


@tool(
    ImportData,
    title="Import data",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=False),
    example='import_data(path="/home/me/interactd.zip", dry_run=True)',
    toolset=_SET,
)
async def import_data(args: ImportData, ctx: CallContext) -> ToolResult:
    """Bring in a zip that export_data wrote, whole or not at all; everything in it is checked first. Ids stay the same;
    what is here already and equal is skipped, what differs is refused by name; triggers come in paused. Import only
    what the user trusts: agents come along."""
    done = await ctx.engine.import_data(
        args.path,
        dry_run=args.dry_run,
        as_new=args.as_new,
        restore=args.restore,
        wait_s=longest_wait(ctx.client_name, ctx.deadline_s),
        caller=ctx.caller,
    )
    if done is None:
        return _goes_on("import_data", args.model_dump(exclude_defaults=True), "The import")
    return _imported(done, args)


def _imported(done: Imported, args: ImportData) -> ToolResult:
    verb = "would come in" if done.dry_run else "imported"
    following: Json = {"tool": "list_sessions", "arguments": {}}
    if done.dry_run and any(done.counts.get(kind) for kind in ("sessions", "triggers")):
        again = args.model_dump(exclude_defaults=True, exclude={"dry_run"})
        following = {"tool": "import_data", "arguments": again}
    lines = [f"{plural(done.skipped, 'session')} here already, and equal: skipped." if done.skipped else ""]
    lines += [f"- {old} is now {new}" for old, new in list(done.mapping.items())[:_SHOWN]]
    if not done.mapping:
        lines += [f"- {one}" for one in done.sessions[:_SHOWN]]
    if len(done.sessions) > _SHOWN:
        lines.append(f"- and {len(done.sessions) - _SHOWN:,} more")
    lines += [f"Note: {note}." for note in done.notes]
    text = answer(
        f"{verb} · {_counts(done.counts) or 'nothing'}",
        "\n".join(line for line in lines if line),
        f"Next: {call(following['tool'], following['arguments'])}",
    )
    fields: Json = {
        "counts": done.counts,
        "sessions": done.sessions[:100],
        "skipped": done.skipped,
        "dry_run": done.dry_run,
        "mapping": dict(list(done.mapping.items())[:100]),
        "next": following,
    }
    return ToolResult(text, fields)


def _goes_on(name: str, arguments: Json, what: str) -> ToolResult:
    following: Json = {"tool": name, "arguments": arguments}
    return ToolResult(
        answer(f"{what} takes long and goes on by itself.", f"Next: {call(name, arguments)} waits for it."),
        {"done": False, "next": following},
    )


_NAMED = {"requests": "network logs", "ledger": "lines of the ledger"}


def _counts(counts: dict[str, int]) -> str:
    named = {_NAMED.get(name, name): count for name, count in counts.items() if count and name != "spent"}
    return ", ".join(f"{count:,} {name.removesuffix('s') if count == 1 else name}" for name, count in named.items())


class KeepSession(Arguments):
    session_id: SessionId
    ttl: Annotated[Ttl, Field(description="From now on: forever, 24h, 7d, or seconds; default: the server's.")] = None


@tool(
    KeepSession,
    title="Keep session",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=False),
    example='keep_session(session_id="ses_...", ttl="forever")',
    toolset=_SET,
)
async def keep_session(args: KeepSession, ctx: CallContext) -> ToolResult:
    """Change how long a session is kept: for ever, or for another time that begins now and again with each turn. Also
    brings back one that has expired and was not removed yet."""
    session = await ctx.engine.keep_session(args.session_id, args.ttl, caller=ctx.caller)
    following: Json = {"tool": "get_session", "arguments": {"session_id": session.id}}
    return ToolResult(
        answer(
            sessions.head(session),
            sessions.lifetime(session),
            f"Next: {call(following['tool'], following['arguments'])}",
        ),
        {**sessions.fields(session), "next": following},
    )


class GetStorage(Arguments):
    pass


@tool(
    GetStorage,
    title="Storage",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="get_storage()",
    toolset=_SET,
)
async def get_storage(args: GetStorage, ctx: CallContext) -> ToolResult:
    """Show what takes how much room on the disk (the database, files of agents, environments, exports, logs, weights),
    how long each is kept, and what goes soon. Use it when the disk is full, or to see what could be deleted."""
    del args
    found = await ctx.engine.storage(caller=ctx.caller)
    database, files = cast("Json", found["database"]), cast("dict[str, int]", found["files"])
    kept = cast("dict[str, float | None]", found["retention"])
    lines = [f"- database: {plural(database['bytes'] + database['wal_bytes'], 'byte')}"]
    lines += [f"- {name}: {plural(size, 'byte')}{_kept(name, kept)}" for name, size in files.items()]
    going = cast("dict[str, int]", found["expiring"]["sessions"])
    soon: list[Any] = found["expiring"]["next"]
    lines.append("Sessions that go: " + ", ".join(f"{name} {count}" for name, count in going.items()))
    lines += [f"- {one['session_id']} {compact(one['title'] or '')}" for one in soon]
    if found["clock_doubted"]:
        lines.append("The clock jumped ahead: nothing is deleted for now.")
    head = f"{plural(found['total_bytes'], 'byte')} in all · {plural(database['disk_free_bytes'], 'byte')} free"
    fields: Json = {
        "total_bytes": found["total_bytes"],
        "disk_free_bytes": database["disk_free_bytes"],
        "database_bytes": database["bytes"],
        "files": files,
        "sessions": going,
    }
    return ToolResult(answer(head, "\n".join(lines), "Next: delete_session, or delete_environment"), fields)


def _kept(name: str, kept: dict[str, float | None]) -> str:
    if f"{name}_s" not in kept:
        return ""
    seconds = kept[f"{name}_s"]
    return ", kept until deleted" if seconds is None else f", kept {span(seconds)}"


TOOLS = (export_data, import_data, keep_session, get_storage)
