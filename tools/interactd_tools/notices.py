"""One line, beside other answers, about what waits for somebody: results nobody read, questions nobody answered."""

from __future__ import annotations

import asyncio

from interactd.errors import InteractdError
from interactd_tools.answers.inbox import line
from interactd_tools.context import CallContext

_COURTESY_S = 0.25


async def notice(ctx: CallContext) -> str:
    """Return the line; empty when nothing waits, or when there is no time to look."""
    try:
        # The answer beside it is here: a courtesy must neither delay nor lose it.
        async with asyncio.timeout(_COURTESY_S):
            return line(await ctx.engine.inbox(limit=3, caller=ctx.caller))
    except (TimeoutError, InteractdError):
        return ""
