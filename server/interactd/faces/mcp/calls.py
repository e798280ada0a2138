"""tools/list and tools/call: from the wire to `interactd_tools` and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp_types.version import is_version_at_least

from interactd.engine.port import Engine
from interactd.errors import InteractdError, Overloaded
from interactd.faces.failures import internal, sentence
from interactd.faces.mcp import elicitation
from interactd.faces.mcp.connections import caller_of, client_name, complete, peer_of
from interactd.faces.mcp.guard import RAW_ARGUMENTS
from interactd.faces.mcp.peer import Peer
from interactd.nouns import Json
from interactd_tools import deadlines
from interactd_tools.arguments.fields import MAX_WAIT_S
from interactd_tools.context import CallContext, Place, Progress, ProgressKind, Tool, ToolResult

logger = logging.getLogger(__name__)
Context = ServerRequestContext[Any, Any]

HANG_S = 300.0
"""No tool waits this long by itself; one that does is broken, and its client must not be left waiting."""
RICH_RESULTS = "2025-06-18"
"""Structured content and resource links came with this version; older clients may refuse a block they do not know."""
KIND_KEY = "interactd/kind"
SEEN_KEY = "interactd/seen"
"""On progress: interaction, event, whether its step is unfinished, messages so far. The shim says it again for a call
that it asks of the next daemon."""


class ToolSet(Protocol):
    """What `interactd_tools` offers; the tests bring small ones of their own."""

    def select(self, toolsets: Iterable[str] = ()) -> list[Tool]: ...

    async def call(
        self, name: str, arguments: object, ctx: CallContext, *, toolsets: Iterable[str] = ()
    ) -> ToolResult: ...


class Calls:
    """The tools of one server object."""

    def __init__(self, engine: Engine, tools: ToolSet) -> None:
        self._engine = engine
        self._tools = tools
        self._selected: dict[tuple[str, ...], dict[str, Tool]] = {}

    def schema(self, name: str) -> Json | None:
        """The input schema of a tool of the default set, for the SDK's header checks."""
        tool = self._select(()).get(name)
        return tool.input_schema if tool else None

    def _select(self, toolsets: tuple[str, ...]) -> dict[str, Tool]:
        found = self._selected.get(toolsets)
        if found is None:
            found = {tool.name: tool for tool in self._tools.select(toolsets)}
            # Any text can stand in a URL; only a name that exists is kept, so this cannot grow.
            self._selected[toolsets] = found
        return found

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> Any:
        """All tools of the connection's sets, on one page, in a fixed order."""
        return complete(ctx, {"tools": [tool.as_dict() for tool in self._select(peer_of(ctx).toolsets).values()]})

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        """Call a tool; whatever goes wrong is an `isError` result with a sentence that helps."""
        peer = peer_of(ctx)
        if not await peer.admit():
            refusal = Overloaded(
                f"{peer.max_calls} calls of this connection are running already; this one was not started",
                repair="Wait until some of them are answered, then call again.",
            )
            return complete(ctx, _error(sentence(refusal)))
        try:
            result = await self._answer(ctx, params, peer)
        finally:
            peer.leave()
        if isinstance(result, types.InputRequiredResult):
            return result
        return complete(ctx, _shape(result, ctx.protocol_version))

    async def _answer(
        self, ctx: Context, params: types.CallToolRequestParams, peer: Peer
    ) -> ToolResult | types.InputRequiredResult:
        """Make the call; where it leaves a question open and the client can ask its user, have it asked."""
        until = time.monotonic() + deadlines.longest_wait(client_name(ctx))
        # Arguments that are no object did not pass the SDK's model; the tools explain that better than it does.
        arguments = (ctx.params or {}).get(RAW_ARGUMENTS, params.arguments)
        rounds = 0
        if (again := elicitation.returned(params)) is not None:
            # It was made the first time: now only its question is answered, and what follows is waited for.
            rounds = again.round
            result = await self._resume(ctx, peer, again, arguments)
        else:
            result = await self._call(ctx, peer, params.name, arguments)
        while elicitation.can_elicit(ctx):
            question = await elicitation.question_in(self._engine, result, caller_of(ctx), peer, round=rounds)
            if question is None:
                break
            if elicitation.is_modern(ctx):
                return elicitation.input_required(question)
            content = await elicitation.ask(ctx, self._engine, question, caller_of(ctx), peer, until)
            if content is None:
                break
            if content != "answered":
                answers = question.results(content)
                if not await self._respond(ctx, question.interaction_id, answers):
                    break
            result = await self._look(ctx, peer, question.interaction_id, arguments, until - time.monotonic())
            rounds += 1
        return result

    async def _resume(self, ctx: Context, peer: Peer, again: elicitation.Returned, arguments: object) -> ToolResult:
        wait_s: float | None = 0.0
        if again.action == "accept":
            seen = await self._open(ctx, again)
            if seen and await self._respond(ctx, again.interaction_id, seen.results(again.content)):
                wait_s = None
        if wait_s is not None:
            elicitation.declined(peer, again.calls)
        return await self._look(ctx, peer, again.interaction_id, arguments, wait_s)

    async def _open(self, ctx: Context, again: elicitation.Returned) -> elicitation.Question | None:
        """The questions that were asked, in their order; `None` when one of them is open no more."""
        try:
            seen = await self._engine.get_interaction(again.interaction_id, caller=caller_of(ctx))
        except InteractdError:
            return None
        waiting = {str(one["id"]): one for one in seen.waiting_for if "question" in one}
        if not again.calls or any(one not in waiting for one in again.calls):
            return None
        return elicitation.Question(again.interaction_id, tuple(waiting[one] for one in again.calls))

    async def _respond(self, ctx: Context, interaction_id: str, results: list[Json]) -> bool:
        if not results:
            return False
        try:
            await self._engine.respond(interaction_id, results, caller=caller_of(ctx))
        except InteractdError as error:
            # Somebody else was faster, or it was cancelled: how it stands now is what the caller is told.
            logger.info("the answer to %s came too late: %s", interaction_id, error)
        return True

    async def _look(
        self, ctx: Context, peer: Peer, interaction_id: str, arguments: object, wait_s: float | None
    ) -> ToolResult:
        """How an interaction stands after a question; waits as long as its caller would, at most `wait_s`."""
        given = cast("Json", arguments) if isinstance(arguments, dict) else {}
        wanted: Json = {name: given[name] for name in ("max_tokens", "wait_s") if name in given}
        wanted["interaction_id"] = interaction_id
        if wait_s is not None:
            wanted["wait_s"] = max(0.0, min(wait_s, MAX_WAIT_S))
        return await self._call(ctx, peer, "get_interaction", wanted)

    async def _call(self, ctx: Context, peer: Peer, name: str, arguments: object) -> ToolResult:
        context = self._context(ctx, peer)
        began = time.monotonic()
        try:
            async with asyncio.timeout(HANG_S):
                return await self._tools.call(name, arguments, context, toolsets=peer.toolsets)
        except asyncio.CancelledError:
            if not peer.left:
                deadlines.cancelled(context.client_name, time.monotonic() - began)
            raise
        except InteractdError as error:
            return ToolResult(sentence(error), is_error=True)
        except Exception as error:  # noqa: BLE001 - the top level of a call: the client must get an answer
            return ToolResult(sentence(internal(error, f"tool {name}")), is_error=True)

    def _context(self, ctx: Context, peer: Peer) -> CallContext:
        place = _place(ctx)
        return CallContext(
            engine=self._engine,
            caller=caller_of(ctx),
            request_id=peer.distinct(ctx.request_id),
            progress=_progress(ctx, place),
            place=place,
            client_name=client_name(ctx),
        )


def _place(ctx: Context) -> Place:
    """Where the call's progress stood when it was asked of a daemon that died; the shim says so."""
    said: object = (ctx.meta or {}).get(SEEN_KEY)
    match said:
        case [str(interaction), int(after), int(partial), int(count)]:
            return Place(interaction, after, bool(partial), count)
        case _:
            return Place()


def _progress(ctx: Context, place: Place) -> Progress | None:
    token = (ctx.meta or {}).get("progress_token")
    if token is None:
        return None

    async def send(message: str, kind: ProgressKind) -> None:
        place.count += 1
        meta: Json = {KIND_KEY: kind}
        if place.interaction_id:
            meta[SEEN_KEY] = [place.interaction_id, place.after, int(place.partial), place.count]
        note = types.ProgressNotification(
            params=types.ProgressNotificationParams(
                progress_token=token, progress=place.count, message=message, _meta=meta
            )
        )
        await ctx.session.send_notification(note, related_request_id=ctx.request_id)

    return send


def _shape(result: ToolResult, version: str) -> Json:
    content: list[Json] = [{"type": "text", "text": result.text}]
    content.extend({"type": "image", "data": image.data, "mimeType": image.mime_type} for image in result.images)
    shaped: Json = {"content": content, "isError": result.is_error}
    if result.meta:
        shaped["_meta"] = result.meta
    if is_version_at_least(version, RICH_RESULTS):
        for link in result.links:
            block = {"type": "resource_link", "uri": link.uri, "name": link.name, "mimeType": link.mime_type}
            content.append(block if link.description is None else {**block, "description": link.description})
        if result.structured is not None:
            shaped["structuredContent"] = result.structured
    return shaped


def _error(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}], "isError": True}
