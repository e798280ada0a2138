"""fetch_artifacts: list, read and pack the files that an agent's turn left."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from interactd.errors import InvalidArgument, NotFound
from interactd.nouns import Json
from interactd.sandbox.environments_port import Artifact
from interactd_tools.answers import artifacts as read
from interactd_tools.answers import images
from interactd_tools.answers.progress import is_agents
from interactd_tools.answers.text import BYTES_PER_TOKEN, Piece, answer, call, compact, cut, one_line, plural, tokens
from interactd_tools.arguments.fields import DEFAULT_TOKENS, MAX_TOKENS, Arguments, InteractionId, Offset
from interactd_tools.arguments.places import FileName
from interactd_tools.context import Annotations, CallContext, Image, ToolResult
from interactd_tools.deadlines import longest_wait
from interactd_tools.registry import tool

MAX_LISTED = 500
MAX_TEXT_BYTES = 64 * 1024 * 1024
"""As far into a file as its text is read here; counting characters means reading all before them."""
_CHUNK = 1024 * 1024
_LOOK = 64 * 1024
_BREAK = 4096
_READABLE = ("text/", "image/", "application/json")


class FetchArtifacts(Arguments):
    interaction_id: InteractionId
    name: Annotated[FileName, Field(description="The file to read, as listed; without it: the list.")] | None = None
    glob: Annotated[FileName, Field(description="Only names that match: *.csv")] | None = None
    zip: Annotated[bool, Field(description="Pack them into one file.")] = False
    offset: Annotated[Offset, Field(description="Character, or place in the list, to go on from.")] = 0
    limit: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Most characters, or files.",
                json_schema_extra={"schema": {"type": "integer", "x-expected": "a whole number of at least 1"}},
            ),
        ]
        | None
    ) = None
    # As the other tools have it; not shown, since limit says the same.
    max_tokens: (
        Annotated[
            int,
            Field(ge=100, json_schema_extra={"x-published": None}),
            AfterValidator(lambda n: min(n, MAX_TOKENS)),
        ]
        | None
    ) = None


@tool(
    FetchArtifacts,
    title="Fetch artifacts",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='fetch_artifacts(interaction_id="int_...")',
)
async def fetch_artifacts(args: FetchArtifacts, ctx: CallContext) -> ToolResult:
    """Get the files an agent's finished turn left: without name a list with types, sizes and sha256, with name the text
    or image itself. Each has a link and a path on this machine, so that nothing large need pass through you."""
    found = await ctx.engine.artifacts(args.interaction_id, caller=ctx.caller)
    missing = await _missing(args, ctx)
    if args.name is not None and args.glob is not None:
        raise InvalidArgument("glob: expected name or glob, got both", repair="Leave one out.", field="glob")
    if not found:
        return await _none(args, ctx, missing)
    if args.name is not None:
        chosen = [read.find(found, args.name) or await _archive(found, args.name, ctx)]
    else:
        chosen = matching(found, args.glob)
        if not chosen:
            raise NotFound(
                f"none of the {plural(len(found), 'file')} matches {compact(args.glob)}",
                repair=f"Next: {call('fetch_artifacts', {'interaction_id': found[0].interaction_id})} lists them.",
                kind="artifact",
            )
    if args.zip:
        return await _packed(chosen, args, ctx)
    if args.name is not None:
        return await _one(chosen[0], args, ctx, alone=len(found) == 1)
    return _listed(chosen, args, missing)


def matching(artifacts: Sequence[Artifact], glob: str | None) -> list[Artifact]:
    """Return those whose name matches: `*` goes over folders, and a pattern without one is tried on the last part."""
    if glob is None:
        return list(artifacts)
    pattern = glob.strip().removeprefix("/workspace/").removeprefix("./")
    # `**/x` is meant to find x at the top as well.
    short = pattern.removeprefix("**/")
    is_bare = "/" not in short
    return [
        one
        for one in artifacts
        if any(fnmatch.fnmatchcase(one.name, wanted) for wanted in {pattern, short})
        or (is_bare and fnmatch.fnmatchcase(one.name.rpartition("/")[2], short))
    ]


async def _missing(args: FetchArtifacts, ctx: CallContext) -> str:
    """Say which files of the turn were not kept, for who asks what there is."""
    if args.name is not None or args.zip or args.offset:
        return ""
    lines: list[str] = []
    for one in await ctx.engine.left_out(args.interaction_id, caller=ctx.caller):
        some: list[str] = one.get("names") or []
        names = ", ".join(compact(read.safe(name)) for name in some)
        lines.append(one_line(f"- {plural(int(one.get('count') or 0), 'file')}, {one.get('reason')}: {names}", 300))
    return "\n".join(["Not kept:", *lines]) if lines else ""


async def _none(args: FetchArtifacts, ctx: CallContext, missing: str) -> ToolResult:
    result = await ctx.engine.get_interaction(args.interaction_id, caller=ctx.caller)
    one = result.interaction
    if not one.terminal:
        wait: Json = {"tool": "get_interaction", "arguments": {"interaction_id": one.id, "wait_s": 30}}
        text = f"{one.status} · interaction {one.id}: files are kept when the turn ends."
    else:
        wait = {"tool": "get_interaction", "arguments": {"interaction_id": one.id}}
        why = "" if is_agents(one) else " A model's turn has none: only agents make files."
        text = f"{one.status} · interaction {one.id}: it left no files.{why}"
    if args.name is not None and one.terminal:
        raise NotFound(text, repair=f"Next: {call('get_interaction', wait['arguments'])}", kind="artifact")
    return ToolResult(
        answer(text, missing, f"Next: {call(wait['tool'], wait['arguments'])}"),
        {"artifacts": [], "count": 0, "next": wait},
    )


async def _archive(found: Sequence[Artifact], name: str, ctx: CallContext) -> Artifact:
    """Find a zip that was made of these files; it is none of them itself.

    Raises:
        NotFound: there is nothing of that name.
    """
    if name.strip().endswith(".zip"):
        with contextlib.suppress(NotFound):
            return (await ctx.engine.read_artifact(found[0].interaction_id, name.strip(), limit=0, caller=ctx.caller))[
                0
            ]
    raise _unknown(found, name)


def _unknown(found: Sequence[Artifact], name: str) -> NotFound:
    meant = read.near(found, name)
    hint = f"Did you mean {' or '.join(compact(one) for one in meant[:3])}? " if meant else ""
    listing = call("fetch_artifacts", {"interaction_id": found[0].interaction_id})
    return NotFound(
        f"there is no file {compact(read.safe(name[:200]))} among the {plural(len(found), 'file')} of this turn",
        repair=f"{hint}Next: {listing} lists them.",
        kind="artifact",
        suggestions=meant,
    )


def _listed(chosen: Sequence[Artifact], args: FetchArtifacts, missing: str) -> ToolResult:
    interaction_id = chosen[0].interaction_id
    room = args.max_tokens or (DEFAULT_TOKENS if args.limit is None else MAX_TOKENS)
    most = min(args.limit or MAX_LISTED, MAX_LISTED)
    whole = min(most, len(chosen)) <= read.FEW
    shown: list[Artifact] = []
    lines: list[str] = []
    for one in chosen[args.offset : args.offset + most]:
        text = read.line(one, whole=whole)
        room -= tokens(text)
        if room < 0 and shown:
            break
        shown.append(one)
        lines.append(text)
    end = args.offset + len(shown)
    total = sum(one.size_bytes for one in chosen)
    which = f" that match {compact(args.glob)}" if args.glob else ""
    blocks = [f"{plural(len(chosen), 'file')}{which} · {plural(total, 'byte')} · interaction {interaction_id}"]
    blocks.append("\n".join(lines) or f"[nothing after place {args.offset:,}]")
    same: Json = {"interaction_id": interaction_id, **({"glob": args.glob} if args.glob else {})}
    more = end < len(chosen) and bool(shown)
    if more:
        following: Json = {**same, "offset": end, **({"limit": args.limit} if args.limit else {})}
        blocks.append(f"[cut: {len(chosen) - end:,} more files; {call('fetch_artifacts', following)}]")
    blocks.append(missing)
    readable = next((one for one in shown if one.mime_type.startswith(_READABLE)), (shown or chosen)[0])
    reads: Json = {"interaction_id": interaction_id, "name": read.named(readable)}
    packs = call("fetch_artifacts", {**same, "zip": True})
    blocks.append(
        f"Next: {call('fetch_artifacts', reads)}" + (f", or {packs} for all in one" if len(chosen) > 1 else "")
    )
    fields: dict[str, Any] = {
        "artifacts": [read.facts(one) for one in shown],
        "count": len(chosen),
        "next_offset": end if more else None,
        "next": {"tool": "fetch_artifacts", "arguments": reads},
    }
    return ToolResult(answer(*blocks), fields, links=[read.link(one) for one in shown[: read.FEW]])


async def _packed(chosen: Sequence[Artifact], args: FetchArtifacts, ctx: CallContext) -> ToolResult:
    interaction_id = chosen[0].interaction_id
    try:
        async with asyncio.timeout(longest_wait(ctx.client_name, ctx.deadline_s)):
            made = await ctx.engine.zip_artifacts(interaction_id, [one.name for one in chosen], caller=ctx.caller)
    except TimeoutError:
        again: Json = {"interaction_id": interaction_id, **args.model_dump(include={"name", "glob"}, exclude_none=True)}
        again["zip"] = True
        return ToolResult(
            answer(
                f"Packing {plural(len(chosen), 'file')} takes long and goes on by itself.",
                f"Next: {call('fetch_artifacts', again)} waits for it.",
            ),
            {"count": len(chosen), "next": {"tool": "fetch_artifacts", "arguments": again}},
        )
    head = (
        f"zip · {plural(len(chosen), 'file')} · {plural(made.size_bytes, 'byte')} · interaction {made.interaction_id}"
    )
    where = f"Path: {made.path}\nsha256 {made.sha256}\nLink: {read.uri(made)}"
    then = "Next: give the user the path, or read single files with name."
    fields = {**read.facts(made), "count": len(chosen), "path": str(made.path), "uri": read.uri(made)}
    return ToolResult(answer(head, where, then), fields, links=[read.link(made)])


async def _one(artifact: Artifact, args: FetchArtifacts, ctx: CallContext, *, alone: bool) -> ToolResult:
    images_: list[Image] = []
    fields: dict[str, Any] = {
        **read.facts(artifact),
        "interaction_id": artifact.interaction_id,
        "path": str(artifact.path),
        "uri": read.uri(artifact),
    }
    start = await _bytes(artifact, 0, _LOOK, ctx)
    if not artifact.size_bytes:
        middle = ["(an empty file)"]
    elif artifact.size_bytes <= images.MAX_BYTES and (image := await _image(artifact, start, ctx)):
        images_, middle = [image], []
    elif images.looks_like_one(start):
        middle = ["[an image that is too large, broken or cut off to be shown: use the path]"]
    elif not _is_text(start, whole=len(start) == artifact.size_bytes):
        middle = ["[binary: not shown as text; use the path or the link]"]
    else:
        text = await _text(artifact, args, ctx)
        middle = [text.piece.text, text.cut_line]
        further = text.more and bool(text.piece.text)
        fields |= {"offset": text.piece.start, "next_offset": text.piece.end if further else None}
    kind = images_[0].mime_type if images_ else artifact.mime_type
    size = plural(artifact.size_bytes, "byte")
    head = f"{read.label(artifact)} · {kind} · {size} · interaction {artifact.interaction_id}"
    where = f"Path: {artifact.path}\nsha256 {artifact.sha256}"
    following: Json = {"tool": "fetch_artifacts", "arguments": {"interaction_id": artifact.interaction_id}}
    if fields.get("next_offset") is not None:
        following["arguments"] = _following(artifact, args, fields["next_offset"])
    elif alone:
        following["tool"] = "get_interaction"
    then = f"Next: {call(following['tool'], following['arguments'])}"
    fields["next"] = following
    text = answer(head, *middle, where, then)
    return ToolResult(text, fields, links=[read.link(artifact)], images=images_)


def _following(artifact: Artifact, args: FetchArtifacts, offset: int) -> Json:
    arguments: Json = {"interaction_id": artifact.interaction_id, "name": read.named(artifact), "offset": offset}
    return {**arguments, "limit": args.limit} if args.limit else arguments


async def _bytes(artifact: Artifact, offset: int, limit: int, ctx: CallContext) -> bytes:
    if artifact.size_bytes <= offset:
        return b""
    _, data = await ctx.engine.read_artifact(
        artifact.interaction_id, artifact.id, offset=offset, limit=limit, caller=ctx.caller
    )
    return data


async def _image(artifact: Artifact, start: bytes, ctx: CallContext) -> Image | None:
    if not images.looks_like_one(start):
        return None
    data = start if len(start) == artifact.size_bytes else await _bytes(artifact, 0, images.MAX_BYTES, ctx)
    mime = images.viewable(data)
    return Image(base64.b64encode(data).decode(), mime) if mime else None


def _is_text(start: bytes, *, whole: bool) -> bool:
    """Whether a file begins as UTF-8 text does; a character may be cut in two where the look ends."""
    if b"\0" in start:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start, final=whole)
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Text:
    piece: Piece
    more: bool
    cut_line: str


async def _text(artifact: Artifact, args: FetchArtifacts, ctx: CallContext) -> _Text:
    """Read on from a character, without ever holding more than is shown and one piece of the file."""
    most = args.max_tokens or (DEFAULT_TOKENS if args.limit is None else MAX_TOKENS)
    room = math.floor(most * BYTES_PER_TOKEN)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    skipped = before = at = 0
    window = ""
    while len(window) <= room and at < min(artifact.size_bytes, MAX_TEXT_BYTES):
        data = await _bytes(artifact, at, _CHUNK, ctx)
        if not data:
            break
        at += len(data)
        text = decoder.decode(data, final=at >= artifact.size_bytes)
        drop = min(len(text), args.offset - skipped)
        skipped += drop
        before += len(text[:drop].encode())
        # A little more than is shown, so that the cut can fall between paragraphs.
        window = (window + text[drop:])[: room + _BREAK]
    inside = cut(window if args.limit is None else window[: args.limit], most)
    more = len(inside.text) < len(window) or at < artifact.size_bytes
    rest = max(artifact.size_bytes - before - len(inside.text.encode()), 1) if more else 0
    end = args.offset + len(inside.text)
    piece = Piece(inside.text, args.offset, end, end + rest, math.ceil(rest / BYTES_PER_TOKEN))
    return _Text(piece, more, _cut_line(args, piece, more=more))


def _cut_line(args: FetchArtifacts, piece: Piece, *, more: bool) -> str:
    if not piece.text:
        if more:
            return f"[only the first {MAX_TEXT_BYTES // 2**20} MB are read here: use the path]"
        return f"[nothing after offset {args.offset:,}]"
    if not more:
        return ""
    return f"[cut: about {piece.more_tokens:,} more tokens]"


TOOLS = (fetch_artifacts,)
