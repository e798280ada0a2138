"""The published MCP tools: validate, call the engine, shape the answer.

Faces use three things: `TOOLS` (all of them), `select` (those of some toolsets, in the order to list them) and
`call`. See `context` for what goes in and comes out, `deadlines` for what faces tell about clients that gave up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from interactd.errors import InteractdError, InvalidArgument
from interactd_tools import data, history, machine, money, sessions, turns
from interactd_tools.agents import artifacts, environments, listing, run
from interactd_tools.answers.failure import failure, unknown_tool
from interactd_tools.context import CallContext, Tool, ToolResult
from interactd_tools.deadlines import last_moment
from interactd_tools.hosts import fit
from interactd_tools.registry import Bound
from interactd_tools.schedules import triggers, webhooks

log = logging.getLogger(__name__)

_ORDER = (
    *(sessions.create_session, turns.send_turn, *run.TOOLS),
    *(turns.get_interaction, turns.respond, turns.cancel_interaction, *artifacts.TOOLS),
    *(sessions.list_sessions, sessions.get_session, sessions.fork_session, sessions.delete_session),
    *(*history.TOOLS, *listing.TOOLS, *machine.TOOLS, *environments.TOOLS),
    *(*triggers.TOOLS, *webhooks.TOOLS, *data.TOOLS, *money.TOOLS),
)
_BOUND: dict[str, Bound[Any]] = {bound.tool.name: bound for bound in _ORDER}
TOOLS: dict[str, Tool] = {name: bound.tool for name, bound in _BOUND.items()}
"""Every tool by name, in the order in which they are listed."""

_CORE = "core"


def select(toolsets: Iterable[str] = ()) -> list[Tool]:
    """Return the tools to list: the core set and those of `toolsets` (`all` for every one), always in one order.

    Raises:
        InvalidArgument: there is no such toolset.
    """
    known = sorted({tool.toolset for tool in TOOLS.values()})
    wanted = {name.strip() for name in toolsets} | {_CORE}
    for name in sorted(wanted - {*known, "all", ""}):
        raise InvalidArgument(
            f"toolsets: expected some of {', '.join((*known, 'all'))}, got {name[:40]!r}",
            repair="Leave the name out of --toolsets.",
            field="toolsets",
        )
    return [tool for tool in TOOLS.values() if "all" in wanted or tool.toolset in wanted]


async def call(name: str, arguments: object, ctx: CallContext, *, toolsets: Iterable[str] = ()) -> ToolResult:
    """Call a tool. Never raises for what a caller did: every such failure is an `is_error` result.

    Args:
        name: of the tool.
        arguments: as they came from the client: an object or nothing; anything else is refused in words.
        ctx: see `CallContext`.
        toolsets: what `select` was called with for this client.

    Cancelling this call stops the waiting, never the work it started.
    """
    return fit(await _call(name, arguments, ctx, toolsets), ctx.client_name)


async def _call(name: str, arguments: object, ctx: CallContext, toolsets: Iterable[str]) -> ToolResult:
    listed = [tool.name for tool in select(toolsets)]
    if name not in listed:
        return unknown_tool(name, listed)
    bound = _BOUND[name]
    try:
        # Waits are bounded where they are made; this holds the deadline should anything else stall.
        async with asyncio.timeout(last_moment(ctx.client_name, ctx.deadline_s)):
            return await bound.run(arguments, ctx)
    except InteractdError as error:
        return failure(name, error, bound.example, arguments)
    except TimeoutError:
        return failure(
            name,
            InteractdError(
                "the server did not answer in time; what was accepted goes on",
                repair="Next: list_sessions() shows whether it was accepted; server_status() how the server does.",
            ),
        )
    except Exception:
        log.exception("tool %s failed", name)
        return failure(
            name,
            InteractdError(
                "the server failed at this call; its log has the details, the arguments are not to blame",
                repair="Next: server_status(), or try once more.",
            ),
        )


__all__ = ["TOOLS", "CallContext", "Tool", "ToolResult", "call", "select"]
