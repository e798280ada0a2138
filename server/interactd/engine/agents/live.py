"""What a running call prints, shown on the interaction's channel while it runs. Nothing of it is journalled: the
call's result is, once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from interactd.engine.agents.steps import function_of
from interactd.engine.agents.toolbox import Toolbox
from interactd.engine.events import Channel
from interactd.nouns import Step

EVERY_S: Final = 0.1
"""How often pieces are put together and shown: a program that prints letter by letter makes few events."""
LATER_S: Final = 1.0
"""The same for a call that has been printing for long."""
_SOON: Final = 100
_MOST: Final = 64_000
"""Characters of one event; of more than that in so short a time only the newest are shown."""
_SHOWN: Final = "code_execution"


class Live:
    """Shows one call's output. `heard` is given its text, `end` shows the last of it.

    Args:
        channel: where it is shown.
        index: of the step that its result will be.
        call_id: of the call.
    """

    def __init__(self, channel: Channel, index: int, call_id: str) -> None:
        self._channel = channel
        self._index = index
        self._call_id = call_id
        self._pieces: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._events = 0

    def heard(self, text: str) -> None:
        """Take a piece of output."""
        self._pieces.append(text)
        self._size += len(text)
        if self._size > 2 * _MOST:
            self._pieces = ["".join(self._pieces)[-_MOST:]]
            self._size = _MOST
        if self._timer is None:
            delay = EVERY_S if self._events < _SOON else LATER_S
            self._timer = asyncio.get_running_loop().call_later(delay, self._show)

    def end(self) -> None:
        """Show what is left. Nothing comes after this."""
        self._show()

    def _show(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text = "".join(self._pieces)[-_MOST:]
        self._pieces.clear()
        self._size = 0
        if text:
            self._events += 1
            self._channel.output(self._index, self._call_id, text)


def live(channel: Channel, steps: Sequence[Step], calls: Sequence[Step], toolbox: Toolbox) -> Live | None:
    """Return what shows the output of these calls: `None` unless it is a single one that runs code, and no hook has a
    say in what becomes of its output.

    Args:
        channel: the interaction's.
        steps: of the interaction so far.
        calls: that are made at once.
        toolbox: what makes them.
    """
    if len(calls) != 1 or function_of(calls[0]) != _SHOWN or toolbox.guard.judges_output(_SHOWN):
        return None
    index = sum(step.type != "user_input" for step in steps)
    return Live(channel, index, str(calls[0].body["id"]))
