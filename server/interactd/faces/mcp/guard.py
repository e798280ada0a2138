"""The outermost layer of every MCP request: no exception reaches the wire as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import ValidationError

from interactd.errors import InteractdError
from interactd.faces.arguments import first_problem
from interactd.faces.failures import internal, sentence

RAW_ARGUMENTS = "interactd/arguments"
RESOURCE_NOT_FOUND = -32002
"""The handshake era's code; 2026-07-28 retired it for INVALID_PARAMS."""
_ABSENT = frozenset({"not_found", "expired", "deleted"})


async def guard(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Turn what a handler raises into a JSON-RPC error with a sentence that helps."""
    try:
        return await call_next(_with_readable_arguments(ctx))
    except MCPError:
        raise
    except ValidationError as error:
        problem = f"{ctx.method}: {first_problem(error)}"
        raise MCPError(INVALID_PARAMS, f"Invalid request parameters: {problem}") from None
    except InteractdError as error:
        data = error.as_dict()
        if ctx.method == "resources/read":
            data["uri"] = str((ctx.params or {}).get("uri"))[:500]
        raise MCPError(_code(error, ctx), sentence(error), data=data) from None
    except Exception as error:
        hidden = internal(error, ctx.method)
        raise MCPError(INTERNAL_ERROR, sentence(hidden), data=hidden.as_dict()) from error


def _with_readable_arguments(ctx: ServerRequestContext[Any, Any]) -> ServerRequestContext[Any, Any]:
    """Let tools/call through with arguments that are no object: as text of JSON they are a known habit of hosts, and
    for the rest the tool's own sentence helps a model more than a protocol error."""
    params = ctx.params
    if ctx.method != "tools/call" or params is None or isinstance(params.get("arguments"), (dict, type(None))):
        return ctx
    return replace(ctx, params={**params, "arguments": {}, RAW_ARGUMENTS: params["arguments"]})


def _code(error: InteractdError, ctx: ServerRequestContext[Any, Any]) -> int:
    if error.code in _ABSENT and ctx.method == "resources/read" and ctx.protocol_version < "2026":
        return RESOURCE_NOT_FOUND
    return INVALID_PARAMS if error.http_status < 500 else INTERNAL_ERROR
