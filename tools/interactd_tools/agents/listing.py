"""list_agents: the agents and models that can be used now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from interactd.agents.port import DEFAULT_AGENT, AgentDefinition, AgentProblem
from interactd.models.port import ModelInfo
from interactd_tools.answers.text import answer, call, one_line, plural, tokens
from interactd_tools.arguments.fields import DEFAULT_TOKENS, Arguments, Line, Offset
from interactd_tools.arguments.problems import printable
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.machine import picks
from interactd_tools.registry import tool


class ListAgents(Arguments):
    query: Annotated[Line, Field(description="Only those with this in name or provider.")] | None = None
    refresh: Annotated[bool, Field(description="Probe models again.")] = False
    offset: Annotated[Offset, Field(description="Line to read on from.")] = 0


@tool(
    ListAgents,
    title="List agents and models",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=True),
    example="list_agents()",
)
async def list_agents(args: ListAgents, ctx: CallContext) -> ToolResult:
    """List the agents and models that can be used now, what auto picks and why, and what to do about those that cannot
    be used. Use it before create_session or run_agent_background when it matters which."""
    (agents, problems), models, status = await asyncio.gather(
        ctx.engine.agents(caller=ctx.caller),
        ctx.engine.models(refresh=args.refresh, caller=ctx.caller),
        ctx.engine.status(caller=ctx.caller),
    )
    wanted = (args.query or "").lower()
    agents = [one for one in agents if wanted in f"{one.id} {one.description}".lower()]
    problems = [one for one in problems if wanted in one.agent.lower()]
    models = [one for one in models if wanted in f"{one.id} {one.provider}".lower()]
    agents.sort(key=lambda one: (one.id != DEFAULT_AGENT, one.id))
    usable = [one for one in models if one.available]
    usable.sort(key=lambda one: not one.default)
    rest = [one for one in models if not one.available]
    lines = [_agent(one) for one in agents] + [_problem(one) for one in problems]
    lines += [_usable(one) for one in usable] + [_unusable(one) for one in rest]
    shown, room = 0, DEFAULT_TOKENS
    for text in lines[args.offset :]:
        room -= tokens(text)
        if room < 0 and shown:
            break
        shown += 1
    end = args.offset + shown
    picked = next((one.id for one in usable if one.default), None)
    wrong = f" ({plural(len(problems), 'problem')})" if problems else ""
    blocks = [
        f"{plural(len(agents), 'agent')}{wrong} · {plural(len(usable), 'model')} usable, {len(rest)} not",
        picks(str(status.get("auto") or picked or "nothing is usable")) if not args.offset else "",
        "\n".join(lines[args.offset : end]),
    ]
    if end < len(lines):
        arguments: dict[str, Any] = {**({"query": args.query} if args.query else {}), "offset": end}
        blocks.append(f"[cut: {len(lines) - end:,} more lines; {call('list_agents', arguments)}]")
    fields: dict[str, Any] = {
        "auto": picked,
        "agents": [one.id for one in agents],
        "problems": len(problems),
        "usable": len(usable),
        "unusable": len(rest),
        "next_offset": end if end < len(lines) else None,
    }
    following = _next(agents, usable)
    if following is None:
        blocks.append("Next: tell the user what is missing; list_agents(refresh=true) looks again")
    else:
        fields["next"] = following
        blocks.append("Next: " + call(following["tool"], following["arguments"]))
    return ToolResult(answer(*blocks), fields)


def _next(agents: list[AgentDefinition], usable: list[ModelInfo]) -> dict[str, Any] | None:
    if usable:
        return {"tool": "create_session", "arguments": {"model": usable[0].id}}
    if agents:
        return {"tool": "run_agent_background", "arguments": {"agent": agents[0].id, "input": "..."}}
    return None


def _agent(one: AgentDefinition) -> str:
    on = f", on {one.model}" if one.model else ""
    can = [*one.tools, *(str(function.get("name")) for function in one.functions)]
    tools = ", ".join(printable(name) for name in can) or "none"
    skills = f"; skills: {', '.join(printable(skill.name) for skill in one.skills)}" if one.skills else ""
    return one_line(
        f"- agent {one.id} ({one.origin}{on}): {printable(one_line(one.description, 300))} [tools: {tools}{skills}]",
        700,
    )


def _problem(one: AgentProblem) -> str:
    where = f"{one.file}{f':{one.line}' if one.line else ''}{f', {one.field}' if one.field else ''}"
    return one_line(f"- agent {printable(one.agent)} cannot be used: {printable(f'{where}: {one.message}')}", 500)


def _usable(one: ModelInfo) -> str:
    window = f", {one.context_window:,} tokens window" if one.context_window else ""
    place = ", local" if one.local else ""
    picked = ", auto picks it" if one.default else ""
    return f"- {one.id}: {one_line(one.detail, 200)}{place}{window}{picked}"


def _unusable(one: ModelInfo) -> str:
    return f"- not usable: {one.id}: {one_line(one.detail, 300)}"


TOOLS = (list_agents,)
