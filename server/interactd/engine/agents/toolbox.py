"""An agent's tools during one run: what the model is told of them, what it may call, and making a call."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from interactd.builtins.arguments import BadArguments, read_arguments
from interactd.builtins.clamp import MAX_CHARS, clamped
from interactd.builtins.hooks.guard import Guard
from interactd.builtins.port import BuiltinTool, Outcome, Replay, ToolContext
from interactd.builtins.tools import meant
from interactd.engine.agents.loops import hint_for
from interactd.engine.agents.steps import arguments_of, function_of
from interactd.errors import InvalidArgument, NotFound, StorageError, StorageFull
from interactd.nouns import Json, Step
from interactd.sandbox.environments_port import Workspace

log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 8
_HARD_CAP: Final = 4 * MAX_CHARS
"""No result is longer than this, whatever a tool or hook returns."""


@dataclass(slots=True)
class Toolbox:
    """`tools` by name; `functions` are those that the caller answers."""

    tools: dict[str, BuiltinTool]
    functions: Sequence[Json]
    workspace: Workspace
    guard: Guard
    interaction_id: str

    @property
    def declarations(self) -> list[Json]:
        """All that the model may call, sorted by name."""
        both = [*(tool.declaration for tool in self.tools.values()), *self.functions]
        return sorted(both, key=lambda one: str(one["name"]))

    @property
    def names(self) -> list[str]:
        return [str(one["name"]) for one in self.declarations]

    def read(self, call: Step) -> Json:
        """The arguments of a function_call to one of the tools.

        Raises:
            BadArguments: they cannot be used; the sentence is for the model.
        """
        declaration = self.tools[str(call.body["name"])].declaration
        return read_arguments(declaration, cast("Json", call.body.get("arguments") or {}))

    def exact(self, name: str) -> str | None:
        """The function that a model means by a name: some write `functions.view_file`, or their own marks after it."""
        names = self.names
        if name in names:
            return name
        bare = re.split(r"[.:/]", name.partition("<|")[0].strip(" \t\n\"'`()"))[-1].lower()
        return next((one for one in names if one.lower() == bare), None)

    def instead_of(self, name: str) -> str | None:
        """What to tell a model that called a function that is not there."""
        other = meant(name, self.tools.keys())
        return None if other is None else f"Use {other} instead."

    def replay(self, call: Step) -> Replay:
        tool = self.tools.get(function_of(call) or "")
        return "never" if tool is None else tool.replay

    def batches(self, calls: Sequence[Step]) -> list[list[Step]]:
        """Calls in the order they are made: neighbours that may run at once stand together."""
        out: list[list[Step]] = []
        for call in calls:
            tool = self.tools.get(function_of(call) or "")
            at_once = tool is not None and tool.parallel
            if at_once and out and len(out[-1]) < MAX_AT_ONCE and self._parallel(out[-1][-1]):
                out[-1].append(call)
            else:
                out.append([call])
        return out

    def _parallel(self, call: Step) -> bool:
        tool = self.tools.get(function_of(call) or "")
        return tool is not None and tool.parallel

    def context(self, call: Step) -> ToolContext:
        return ToolContext(self.workspace, self.interaction_id, str(call.body["id"]))

    async def make(self, call: Step, ctx: ToolContext, before: Sequence[Step]) -> Outcome:
        """Make a built-in call: ask the hooks, run it, ask the hooks again.

        Args:
            call: one of ours.
            ctx: what it runs with; keeps what it prints, should it be interrupted.
            before: the run's steps so far, for a hint when it repeats itself.

        Raises:
            InteractdError: the run cannot go on (the sandbox is gone, the disk is full).
        """
        name, arguments = function_of(call) or "", arguments_of(call)
        tool = self.tools.get(name)
        if tool is None:
            return Outcome(f"The tool {name} is not available any more.", is_error=True)
        try:
            arguments = read_arguments(tool.declaration, arguments)
        except BadArguments as problem:
            return Outcome(f"{name}: {problem}", is_error=True)
        if denied := await self.guard.before(name, arguments):
            return Outcome(denied, is_error=True)
        try:
            outcome = await tool.call(arguments, ctx)
        except (StorageFull, StorageError):
            raise
        except (InvalidArgument, NotFound) as error:
            outcome = Outcome(f"{error.message} {error.repair or ''}".rstrip(), is_error=True)
        outcome = await self.guard.after(name, arguments, outcome)
        hint = hint_for(before, name, arguments_of(call), outcome.result, outcome.is_error)
        return await self._fit(outcome, ctx, hint)

    async def _fit(self, outcome: Outcome, ctx: ToolContext, hint: str | None) -> Outcome:
        result: Any = outcome.result
        if isinstance(result, str):
            if len(result) > _HARD_CAP:
                result = await clamped(result, ctx)
            if hint:
                result = f"{result}\n[{hint}]"
        return Outcome(result, outcome.is_error)


async def python_of(workspace: Workspace) -> str | None:
    """The version of Python in the workspace, such as `3.11`; `None` when there is none."""
    said = bytearray()
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        async with asyncio.timeout(20):
            async for event in workspace.exec(["python3", "-I", "-c", script], wall_s=15):
                said += getattr(event, "data", b"")
    except TimeoutError:
        log.warning("the workspace does not say which Python it has")
    text = said.decode("ascii", "replace").strip()
    return text if text.replace(".", "").isdigit() and len(text) < 8 else None
