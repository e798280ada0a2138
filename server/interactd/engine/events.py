"""The event hub: one channel per live interaction, fed by its run, read by any number of subscribers.

The runner never waits for a reader. A channel is one log shared by all; a reader is a position in it. While nobody
has read the newest delta, further text is added to it instead of making a new event, so that a slow or absent reader
costs the text and nothing more, and a late one gets what was so far in few, large pieces.

An event's `seq` outlives the daemon. It counts journalled steps first, then attempts, then events, so that whoever
goes on reading after the last `seq` it has, at whichever daemon, gets every step that it has not seen and none that it
has. `step.stop` is told when its step is journalled, never before: what a dead daemon had not written down begins
anew, with `step.start` of the same index.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from interactd.engine.port import Event
from interactd.nouns import Interaction, Json, Step

MAX_OUTPUT: Final = 256_000
"""Characters of a running call's output that are there for those who read late."""
TAIL: Final = 4_000
"""Characters of it that `Channel.printed` has."""
_OUTPUT: Final = "code_execution_result"
# Together less than 53 bits: JSON's numbers are exact that far for every reader.
_STEP: Final = 1 << 32
_ATTEMPT: Final = 1 << 22
_ATTEMPTS: Final = _STEP // _ATTEMPT - 2


@dataclass(slots=True)
class _Entry:
    seq: int
    type: str
    data: Json
    texts: list[str] = field(default_factory=list[str])
    """For a delta: the pieces of its text, joined when read."""
    kind: str = ""
    gone: bool = False
    """Of a delta: nobody needs it any more."""


class _Printing:
    """The output of the call that runs now: the deltas that show it, and its tail."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.tail = ""
        self._pieces: deque[tuple[_Entry, int]] = deque()
        self._size = 0

    def add(self, entry: _Entry, text: str) -> None:
        """Note a piece that went into a delta; the oldest are given up when there are too many."""
        self.tail = (self.tail + text)[-TAIL:]
        self._pieces.append((entry, len(text)))
        self._size += len(text)
        while self._size > MAX_OUTPUT and len(self._pieces) > 1:
            oldest, size = self._pieces.popleft()
            self._size -= size
            # Each piece is one text of its delta, and the oldest one is the first.
            del oldest.texts[0]
            oldest.gone = not oldest.texts

    def forget(self) -> None:
        for entry, _ in self._pieces:
            entry.texts.clear()
            entry.gone = True


class Channel:
    """The live events of one interaction. `ended` is set when its run is over, whatever the outcome."""

    def __init__(self, interaction_id: str, attempt: int = 0) -> None:
        self.interaction_id = interaction_id
        self.attempt = attempt
        """Which claim of the interaction its events belong to."""
        self.ended = asyncio.Event()
        self._log: list[_Entry] = []
        self._read = 0
        self._readers: set[asyncio.Event] = set()
        self._steps = 0
        self._first = self._events = 1
        self._begun: dict[int, str] = {}
        self._printing: _Printing | None = None

    @property
    def printed(self) -> str:
        """The newest of what the call that runs now has printed; empty when none does."""
        return self._printing.tail if self._printing is not None else ""

    @classmethod
    def of_journal(cls, interaction: Interaction, steps: Sequence[Step]) -> Channel:
        """What the journal tells of an interaction that runs elsewhere, or nowhere. Ends at once; its status is not in
        it. A step of which its runner's channel had told a part is told from its beginning."""
        channel = cls(interaction.id, interaction.epoch)
        channel._first = channel._events = _ATTEMPT // 2
        channel.journalled(steps, 0)
        channel.ended.set()
        return channel

    def status(self, interaction: Interaction) -> None:
        """Publish `interaction.status`."""
        entry = self._add("interaction.status", status_data(interaction), wake=False)
        # Where it rests has one number, live and later: after all that was told before, and where it waits for
        # an answer before all that the attempt after it tells.
        if interaction.terminal:
            entry.seq = (self._steps + 1) * _STEP - 1
        elif interaction.status == "requires_action":
            entry.seq = self._seq(_ATTEMPT - 1)
        self._wake()

    def stands(self, interaction: Interaction) -> None:
        """Publish the status as the journal has it while somebody else runs it: once for each state of the journal, and
        before anything else that is told of the next step."""
        self._events = 0
        self.status(interaction)

    def start(self, index: int, type_: str, head: Json) -> None:
        """Publish `step.start`."""
        self._begun[index] = type_
        self._add("step.start", {"index": index, "step": {"type": type_, **head}})

    def delta(self, index: int, kind: str, text: str) -> None:
        """Publish `step.delta`, or add to the last one when nobody has read it yet."""
        if len(self._log) > self._read:
            last = self._log[-1]
            if last.kind == kind and last.data["index"] == index:
                last.texts.append(text)
                return
        entry = self._add("step.delta", {"index": index}, wake=False)
        entry.texts.append(text)
        entry.kind = kind
        self._wake()

    def output(self, index: int, call_id: str, text: str) -> None:
        """Publish what running code has printed, as deltas of the result that it will have.

        Of very much output only the newest is kept for those who have not read it, and none of it once the result is
        there: that has it all.
        """
        if self._printing is None or self._printing.index != index:
            self.start(index, _OUTPUT, {"call_id": call_id})
            self._printing = _Printing(index)
        self.delta(index, _OUTPUT, text)
        self._printing.add(self._log[-1], text)

    def journalled(self, steps: Sequence[Step], first: int) -> int:
        """Publish `step.stop` of steps that are in the journal now, and all of those that nothing was told of yet.

        Args:
            steps: in order; input of the user's is no event.
            first: the index of the first of them among the interaction's generated steps.

        Returns:
            The next index.
        """
        for step in steps:
            if step.type == "user_input":
                continue
            if first < self._steps:
                # A run that is tried again tells nothing twice.
                first += 1
                continue
            if self._begun.get(first) != step.type:
                self.start(first, step.type, head_of(step))
                if step.text:
                    self.delta(first, "thought_summary" if step.type == "thought" else "text", step.text)
            self._begun.pop(first, None)
            if self._printing is not None and self._printing.index == first:
                self._printing.forget()
                self._printing = None
            self._steps, self._events = first + 1, self._first
            self._log.append(_Entry(self._steps * _STEP, "step.stop", {"index": first, "step": step.as_dict()}))
            first += 1
        self._wake()
        return first

    def end(self) -> None:
        """No more events. Readers get what is left and stop."""
        self.ended.set()
        self._wake()

    async def read(self, after: int = 0) -> AsyncIterator[Event]:
        """Events with a `seq` above `after`, until the channel ends."""
        wake = asyncio.Event()
        self._readers.add(wake)
        position = bisect_right(self._log, after, key=lambda entry: entry.seq)
        self._read = max(self._read, position)
        try:
            while True:
                wake.clear()
                over = self.ended.is_set()
                while position < len(self._log):
                    entry = self._log[position]
                    position += 1
                    self._read = max(self._read, position)
                    if entry.seq <= after or entry.gone:
                        continue
                    yield Event(entry.seq, entry.type, _payload(entry, self.interaction_id))
                if over:
                    return
                await wake.wait()
        finally:
            self._readers.discard(wake)

    def _add(self, type_: str, data: Json, *, wake: bool = True) -> _Entry:
        self._events += self._events < _ATTEMPT - 2
        self._log.append(entry := _Entry(self._seq(self._events), type_, data))
        if wake:
            self._wake()
        return entry

    def _seq(self, number: int) -> int:
        return self._steps * _STEP + min(self.attempt, _ATTEMPTS) * _ATTEMPT + number

    def _wake(self) -> None:
        for reader in self._readers:
            reader.set()


class Hub:
    """All channels. One is opened when an interaction is accepted or taken up again, and closed when its run ends."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    def open(self, interaction_id: str) -> Channel:
        """The interaction's channel, made if there is none."""
        return self._channels.setdefault(interaction_id, Channel(interaction_id))

    def get(self, interaction_id: str) -> Channel | None:
        return self._channels.get(interaction_id)

    def close(self, channel: Channel) -> None:
        """End the channel and forget it; its readers still get what it has."""
        channel.end()
        if self._channels.get(channel.interaction_id) is channel:
            del self._channels[channel.interaction_id]

    def close_all(self) -> None:
        for channel in list(self._channels.values()):
            self.close(channel)


def status_data(interaction: Interaction) -> Json:
    """What `interaction.status` says."""
    data: Json = {"interaction_id": interaction.id, "status": interaction.status}
    if interaction.environment_id is not None:
        data["environment_id"] = interaction.environment_id
    if interaction.usage is not None:
        data["usage"] = interaction.usage.as_dict()
    if interaction.error is not None:
        data["error"] = interaction.error
    return data


def head_of(step: Step) -> Json:
    """What `step.start` tells of a step: everything but the text that comes as deltas."""
    return {name: value for name, value in step.body.items() if name not in ("content", "summary")}


def _payload(entry: _Entry, interaction_id: str) -> Json:
    data: Json = {"event_type": entry.type, "interaction_id": interaction_id, **entry.data}
    if entry.type == "step.delta":
        text = "".join(entry.texts)
        if entry.kind == "thought_summary":
            data["delta"] = {"type": "thought_summary", "content": {"type": "text", "text": text}}
        elif entry.kind == _OUTPUT:
            data["delta"] = {"type": _OUTPUT, "result": text}
        elif entry.kind == "arguments":
            data["delta"] = {"type": "arguments_delta", "arguments": text}
        else:
            data["delta"] = {"type": "text", "text": text}
    return data
