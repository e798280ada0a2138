"""What a built-in tool is to the agent loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from interactd.builtins.printed import Printed
from interactd.nouns import Json
from interactd.sandbox.environments_port import Workspace

Replay = Literal["safe", "ask", "never"]
"""What to do with a call that a crash left without an outcome: again, ask the user, or tell the model it failed."""


@dataclass(slots=True)
class ToolContext:
    """What a call runs with."""

    workspace: Workspace
    interaction_id: str
    call_id: str
    printed: Printed = field(default_factory=Printed)
    """What the call printed so far: all that is left of it when it is cancelled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model sees of a call, and the step that records it."""

    result: str | list[Json]
    is_error: bool = False


class BuiltinTool(Protocol):
    """One callable. Its calls are journalled as `step_type`_call / `step_type`_result steps (`code_execution`) or as
    function_call / function_result."""

    @property
    def name(self) -> str: ...

    @property
    def declaration(self) -> Json:
        """`{"type": "function", "name", "description", "parameters"}` as the model sees it."""
        ...

    @property
    def replay(self) -> Replay: ...

    @property
    def parallel(self) -> bool:
        """Whether several calls of one answer may run at once."""
        ...

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        """Run it. A failure that the model can mend is an Outcome with is_error; InteractdError ends the run."""
        ...
