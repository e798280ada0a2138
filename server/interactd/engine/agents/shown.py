"""The live events of an agent's run: built-in calls appear under the step types that the journal has for them."""

from __future__ import annotations

from interactd.engine.events import Channel
from interactd.nouns import Json

_TYPES = {"code_execution": "code_execution_call", "url_fetch": "url_context_call"}


class AgentChannel(Channel):
    """What a run's drafts write to; passes everything on to the interaction's channel.

    Args:
        to: the channel that readers follow.
        names: functions that are the agent's own tools.
    """

    def __init__(self, to: Channel, names: frozenset[str]) -> None:
        super().__init__(to.interaction_id)
        self._to = to
        self._names = names
        self._hidden: set[int] = set()

    def start(self, index: int, type_: str, head: Json) -> None:
        name = str(head.get("name"))
        if type_ == "function_call" and name in self._names and name in _TYPES:
            self._hidden.add(index)
            type_, head = _TYPES[name], {"id": head.get("id"), "arguments": {}}
        self._to.start(index, type_, head)

    def delta(self, index: int, kind: str, text: str) -> None:
        # The API has no pieces of arguments for these types: they come whole, with the end of the step.
        if index not in self._hidden:
            self._to.delta(index, kind, text)
