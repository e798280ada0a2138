"""search_history."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from interactd.store.port import Hit
from interactd_tools.answers import session as read
from interactd_tools.answers.text import answer, call, compact, one_line, plural
from interactd_tools.arguments.fields import Arguments, Cursor, SessionId, pack_cursor, refuse
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.registry import tool


def _query(value: str) -> str:
    text = " ".join(value.split())
    if not text or len(text) > 1000:
        raise refuse("1 to 1,000 characters of words", value)
    return text


class SearchHistory(Arguments):
    query: Annotated[
        str,
        AfterValidator(_query),
        Field(
            description='Words that must all occur; "a phrase" stays together, wor* is a prefix.',
            json_schema_extra={"x-expected": "1 to 1,000 characters of words"},
        ),
    ]
    session_id: Annotated[SessionId, Field(description="Only in this session.")] | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 10
    cursor: Cursor | None = None


@tool(
    SearchHistory,
    title="Search history",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='search_history(query="...")',
)
async def search_history(args: SearchHistory, ctx: CallContext) -> ToolResult:
    """Full-text search over everything said and done in all sessions, best first, with snippets and ids. Use it when
    you remember what was said but not where. Then get_interaction for the whole text, or send_turn to go on there."""
    page = await ctx.engine.search(
        args.query, session_id=args.session_id, limit=args.limit, cursor=args.cursor, caller=ctx.caller
    )
    hits: list[Hit] = page.items
    asked = compact(one_line(args.query, 80))
    if not hits:
        where = f" in session {args.session_id}" if args.session_id else ""
        hint = "No more results." if args.cursor else f"Nothing matches {asked}{where}."
        return ToolResult(
            answer(hint, "Next: search_history with fewer words or a prefix (wor*), or list_sessions()"),
            {"hits": [], "cursor": None},
        )
    following = {"interaction_id": hits[0].interaction_id}
    then = call("get_interaction", following)
    cursor = pack_cursor(page.cursor)
    if cursor:
        more = {"query": args.query, **({"session_id": args.session_id} if args.session_id else {})}
        then += f"; more: {call('search_history', {**more, 'cursor': cursor})}"
    return ToolResult(
        answer(
            f"{plural(len(hits), 'result')} for {asked}" + (" (there are more)" if cursor else ""),
            "\n".join(read.hit(i, found) for i, found in enumerate(hits, 1)),
            f"Next: {then}",
        ),
        {
            "hits": [{"session_id": h.session_id, "interaction_id": h.interaction_id, "seq": h.seq} for h in hits],
            "cursor": cursor,
            "next": {"tool": "get_interaction", "arguments": following},
        },
    )


TOOLS = (search_history,)
