"""How a function becomes a published tool."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from interactd_tools.arguments.fields import Arguments
from interactd_tools.arguments.read import read
from interactd_tools.arguments.schema import polish, published
from interactd_tools.context import Annotations, CallContext, Tool, ToolResult

A = TypeVar("A", bound=Arguments)
Handler = Callable[[A, CallContext], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class Bound(Generic[A]):
    """A tool with what runs it. `example` is a right call, shown when one was wrong."""

    tool: Tool
    model: type[A]
    schema: dict[str, Any]
    example: str
    handler: Handler[A]

    async def run(self, arguments: object, ctx: CallContext) -> ToolResult:
        """Check the arguments and call the handler.

        Raises:
            InteractdError: what was wrong with the call.
        """
        return await self.handler(read(self.model, self.schema, arguments, example=self.example), ctx)


def tool(
    model: type[A], *, title: str, annotations: Annotations, example: str, toolset: str = "core"
) -> Callable[[Handler[A]], Bound[A]]:
    """Make a tool of a handler: its name is the tool's, its docstring the description that models read."""
    schema = polish(model)

    def bind(handler: Handler[A]) -> Bound[A]:
        description = inspect.cleandoc(handler.__doc__ or "").replace("\n", " ")
        name = handler.__name__
        return Bound(
            Tool(name, title, description, published(schema), annotations, toolset), model, schema, example, handler
        )

    return bind
