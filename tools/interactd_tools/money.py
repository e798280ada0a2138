"""get_usage and set_budget: what was spent, and what a session may spend (toolset money)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field

from interactd.nouns import Json
from interactd_tools.answers.money import amount, left, usd
from interactd_tools.answers.text import answer, call, plural, span
from interactd_tools.arguments.amounts import Budget
from interactd_tools.arguments.fields import Arguments, SessionId, Ttl
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.registry import tool

_SET = "money"


class GetUsage(Arguments):
    by: Literal["day", "model", "agent", "session"] = "day"
    since: Annotated[Ttl, Field(description="How far back: 7d, 24h, 90m; default: all.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20


@tool(
    GetUsage,
    title="Get usage",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example='get_usage(by="model", since="7d")',
    toolset=_SET,
)
async def get_usage(args: GetUsage, ctx: CallContext) -> ToolResult:
    """Show what was spent, by day, model, agent or session: dollars, tokens, calls and working time, today's budget,
    and about what the same would cost hosted. Use it to find out what is dear. Then set_budget limits a session."""
    found = await ctx.engine.usage(by=args.by, since_s=args.since or None, limit=args.limit, caller=ctx.caller)
    lines: list[Json] = found["lines"]
    total, today = found["total"], found["today"]
    shown = [f"- {_name(line, args.by)}: {_figures(line)}" for line in lines]
    if found["more"]:
        shown.append(f"({plural(found['more'], 'more line')}: raise limit)")
    since = f" since {found['since']}" if found["since"] else ""
    budget = left(today) if today.get("budget") else ""
    text = answer(
        f"{_figures(total)}{since}",
        "\n".join(shown) if shown else "Nothing was spent.",
        f"Today: {usd(today)}{budget}",
        _hosted(found["hosted"]),
        'Next: set_budget(session_id="ses_...", budget="$2") limits a session',
    )
    return ToolResult(text, {"by": args.by, "total": total, "today": today, "lines": lines[:50]})


class SetBudget(Arguments):
    session_id: SessionId
    budget: Annotated[Budget, Field(description='"$2", {usd, tokens, steps, seconds}, or none.')]


@tool(
    SetBudget,
    title="Set budget",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=False),
    example='set_budget(session_id="ses_...", budget="$2")',
    toolset=_SET,
)
async def set_budget(args: SetBudget, ctx: CallContext) -> ToolResult:
    """Set what all turns of a session together may cost; what it has spent counts. A turn that reaches it ends as
    budget_exceeded with its work kept. Raise a budget only when the user says so. Then send_turn."""
    made = await ctx.engine.set_budget(args.session_id, args.budget or None, caller=ctx.caller)
    session_id = cast("str", made["session_id"])
    following: dict[str, Any] = {"tool": "send_turn", "arguments": {"session_id": session_id, "input": "..."}}
    limits: Json = made.get("budget") or {}
    says = ", ".join(amount(unit, value) for unit, value in limits.items()) or "no budget of its own"
    text = answer(
        f"session {session_id} · {says}",
        f"Spent so far: {usd(made)}, {made['tokens']:,} tokens{left(made) if limits else ''}",
        f"Next: {call('send_turn', following['arguments'])}",
    )
    return ToolResult(text, {**made, "next": following})


def _name(line: Json, by: str) -> str:
    if line["key"] is None:
        return {"session": "deleted sessions", "agent": "turns of models"}.get(by, "other")
    title = f" ({line['title']})" if line.get("title") else ""
    return f"{line['key']}{title}"


def _figures(line: Json) -> str:
    worked = f", {span(line['active_s'])} of work" if line["active_s"] else ""
    boxed = f", {span(line['sandbox_s'])} in sandboxes" if line["sandbox_s"] else ""
    return f"{usd(line)}, {line['tokens']:,} tokens, {plural(line['calls'], 'call')}{worked}{boxed}"


def _hosted(estimate: Json) -> str:
    whole = estimate["sessions_usd"] + estimate["sandboxes_usd"]
    return (
        f"Hosted, the time alone might have cost ${whole:.2f}, and storage "
        f"${estimate['storage_usd_a_month']:.2f} a month (estimate, prices assumed as of {estimate['as_of']})."
    )


TOOLS = (get_usage, set_budget)
