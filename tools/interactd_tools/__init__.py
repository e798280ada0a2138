"""The published MCP tools: validate, call the engine, shape the answer.

Faces use three things: `TOOLS` (all of them), `select` (those of some toolsets, in the order to list them) and
`call`. See `context` for what goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from interactd_tools.context import CallContext, Tool, ToolResult

TOOLS: dict[str, Tool] = {}


def select(toolsets: Iterable[str] = ()) -> list[Tool]:
    """Return the tools to list: the core set and those of `toolsets`, always in the same order.

    Raises:
        InvalidArgument: there is no such toolset.
    """
    raise RuntimeError("the registry is not filled yet")


async def call(
    name: str, arguments: Mapping[str, Any] | None, ctx: CallContext, *, toolsets: Iterable[str] = ()
) -> ToolResult:
    """Call a tool. Never raises for what a caller did: every such failure is an `is_error` result.

    Cancelling this call stops the waiting, never the work it started.
    """
    raise RuntimeError("the registry is not filled yet")


__all__ = ["TOOLS", "CallContext", "Tool", "ToolResult", "call", "select"]
