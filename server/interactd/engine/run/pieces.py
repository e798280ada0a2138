"""Earlier turns as history shows them, kept in memory: a turn that has ended never changes."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from interactd.engine.agents.steps import for_model
from interactd.engine.run.outcome import refused
from interactd.engine.run.tokens import estimate_step
from interactd.nouns import Json, Step
from interactd.store.port import Turn

CLAMP_CHARS: Final = 16_000
"""Longest tool result of an earlier turn once room is short (about 4,000 tokens)."""
_LEAST_CHARS: Final = 600
NOT_ANSWERED: Final = "This call was not answered."
_CACHE_BYTES: Final = 64 * 1024 * 1024
_PER_PIECE: Final = 2_000
"""About what a piece costs beside its text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What an earlier turn contributes to a prompt; no steps when it made nothing worth showing."""

    id: str
    previous: str | None
    ended: bool
    steps: list[Step]
    tokens: int
    clamped: list[Step]
    clamped_tokens: int


class Pieces:
    """The most recently used pieces, up to 64 MB of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Piece] = OrderedDict()
        self._bytes = 0

    def get(self, interaction_id: str) -> Piece | None:
        piece = self._kept.get(interaction_id)
        if piece is not None:
            self._kept.move_to_end(interaction_id)
        return piece

    def keep(self, pieces: Sequence[Piece]) -> None:
        """Add pieces; those of turns that have not ended are left out."""
        for piece in pieces:
            if piece.ended and piece.id not in self._kept:
                self._kept[piece.id] = piece
                self._bytes += _cost(piece)
        while self._bytes > _CACHE_BYTES:
            self._bytes -= _cost(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


def piece_of(turn: Turn) -> Piece:
    """Return a turn's piece."""
    steps = list(turn.steps)
    if turn.interaction.status != "completed":
        while steps and steps[-1].type == "thought":
            # Half a thought has no signature, and providers refuse a turn that ends in thinking.
            steps.pop()
        if all(step.type in ("user_input", "thought") for step in steps):
            steps = []
    steps = repaired(steps)
    tokens = sum(map(estimate_step, steps))
    clamped, clamped_tokens = steps, tokens
    if any(step.type == "function_result" for step in steps) and tokens * 4 > CLAMP_CHARS:
        results = sum(step.type == "function_result" for step in steps)
        # A turn of an agent may have hundreds of results: together they get the room of a few.
        limit = max(_LEAST_CHARS, min(CLAMP_CHARS, 6 * CLAMP_CHARS // results))
        clamped = [_clamp(step, limit) for step in steps]
        clamped_tokens = sum(map(estimate_step, clamped))
    row = turn.interaction
    return Piece(row.id, row.previous_interaction_id, row.terminal, steps, tokens, clamped, clamped_tokens)


def repaired(steps: Sequence[Step]) -> list[Step]:
    """Return the steps so that any provider takes them: each call has its result right after its group of calls, in
    the order of the calls (some providers go by that alone), and no result is without a call."""
    steps = for_model(steps)
    out: list[Step] = []
    waiting: dict[str, Step] = {}
    answers: dict[str, Step] = {}
    answering = False

    def flush() -> None:
        out.extend(answers.get(id) or refused(call, NOT_ANSWERED) for id, call in waiting.items())
        waiting.clear()
        answers.clear()

    for step in steps:
        if step.type == "function_result":
            answering = True
            if (id := str(step.body.get("call_id"))) in waiting:
                answers.setdefault(id, step)
            continue
        if answering or step.type == "user_input":
            flush()
            answering = False
        if step.type == "function_call":
            waiting[str(step.body.get("id"))] = step
        out.append(step)
    flush()
    return out


def _cost(piece: Piece) -> int:
    images = sum(
        len(part.get("data") or "") for step in piece.steps for part in _parts(step) if part.get("type") == "image"
    )
    states = sum(len(json.dumps(step.state)) for step in piece.steps if step.state)
    return _PER_PIECE + piece.tokens * 4 + images + states


def _parts(step: Step) -> list[Json]:
    """Everything of a step that may be a picture."""
    result: Any = step.body.get("result")
    given: list[Any] = [*(step.body.get("content") or [])]
    if isinstance(result, list):
        given += cast("list[Any]", result)
    return [cast("Json", part) for part in given if isinstance(part, dict)]


def _clamp(step: Step, limit: int) -> Step:
    if step.type != "function_result":
        return step
    result: Any = step.body.get("result")
    text = result if isinstance(result, str) else None
    if text is None:
        if isinstance(result, list) and any(
            isinstance(part, dict) and cast("Json", part).get("type") == "image" for part in cast("list[Any]", result)
        ):
            return step
        text = json.dumps(result, ensure_ascii=False)
    if len(text) <= limit:
        return step
    half = limit // 2
    cut = f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
    return Step(step.type, {**step.body, "result": cut}, step.state, step.seq, step.created_at)
