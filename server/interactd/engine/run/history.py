"""What a model is shown: the path back from this turn, as far as its window needs and no further.

Rules, in this order. The turn itself is always whole. Earlier turns are whole as long as all fit. If they do not,
long tool results in them are cut to head and tail. If that is not enough the oldest turns are left out, down to half
of the room at once: the start of the prompt then stays the same for many turns, and providers' prompt caches with it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from interactd.engine.agents.steps import for_model
from interactd.engine.agents.window import fit
from interactd.engine.run.outcome import refused
from interactd.engine.run.tokens import Calibration, estimate_json, estimate_step, estimate_text
from interactd.models.port import Model, ModelRequest
from interactd.nouns import GenerationConfig, Interaction, Json, Session, Step
from interactd.store.port import Store, Turn

CLAMP_CHARS: Final = 16_000
"""Longest tool result of an earlier turn once room is short (about 4,000 tokens)."""
_LEAST_CHARS: Final = 600
_CHUNK: Final = 32
_REMEMBERED: Final = 4_096
NOT_ANSWERED: Final = "This call was not answered."


@dataclass(frozen=True, slots=True)
class Frame:
    """What an agent's run puts around its steps."""

    system: str
    tools: list[Json]


@dataclass(slots=True)
class _Piece:
    id: str
    steps: list[Step]
    tokens: int
    clamped: list[Step]
    clamped_tokens: int


class History:
    """Builds requests. Remembers where each session's prompt begins, so that it moves rarely."""

    def __init__(self, store: Store, default_window: int) -> None:
        self.calibration = Calibration()
        self._store = store
        self._default_window = default_window
        self._begins: OrderedDict[str, str] = OrderedDict()

    async def request(
        self,
        model: Model,
        session: Session,
        interaction: Interaction,
        own: Sequence[Step],
        *,
        shrink: float = 1.0,
        frame: Frame | None = None,
    ) -> ModelRequest:
        """Return what to ask.

        Args:
            model: who will be asked; its window decides how far back the request goes.
            session: for the defaults that the interaction does not set.
            interaction: the turn.
            own: the turn's journalled steps, its input first.
            shrink: part of the room to use; below 1 after the provider said that it was too much.
            frame: an agent's system prompt and tools; its own steps are then cut as well when they are too many.
        """
        config = interaction.generation_config
        system = instruction_of(session, interaction) if frame is None else frame.system
        tools = tools_of(session, interaction) if frame is None else frame.tools
        steps = repaired(own)
        if config.tool_choice == "any" and any(step.type == "function_result" for step in steps):
            # The demanded call was made; demanding another each time would never let the model answer.
            config = GenerationConfig(tool_choice="auto").over(config)
        window = model.context_window or self._default_window
        reserve = min(config.max_output_tokens or window // 4, window // 2)
        room = (window - reserve) * shrink / self.calibration.factor(model.label)
        room -= estimate_text(system or "") + (estimate_json(tools) if tools else 0)
        if frame is not None:
            steps = fit(steps, max(0, int(room)))
        room -= sum(map(estimate_step, steps))
        if interaction.previous_interaction_id is not None and room > 0:
            steps = [*await self._before(session.id, interaction.previous_interaction_id, int(room)), *steps]
        return ModelRequest(
            model=model.name,
            steps=steps,
            system_instruction=system or None,
            tools=tools,
            config=config,
            cache_key=session.id,
        )

    def learn(self, model: Model, request: ModelRequest, reported: int | None) -> None:
        """Note how many input tokens the provider counted for a request."""
        if reported:
            self.calibration.learn(model.label, estimate_request(request), reported)

    def forget(self, session_id: str) -> None:
        self._begins.pop(session_id, None)

    async def _before(self, session_id: str, head: str, room: int) -> list[Step]:
        begin = self._begins.get(session_id)
        pieces, whole = await self._collect(head, room, begin)
        if whole and begin is None and sum(piece.tokens for piece in pieces) <= room:
            return [step for piece in reversed(pieces) for step in piece.steps]
        if not whole:
            left, kept = room // 2, list[_Piece]()
            for piece in pieces:
                left -= piece.clamped_tokens
                if left < 0 and (kept or piece.clamped_tokens > room):
                    break
                kept.append(piece)
            pieces = kept
        if pieces:
            self._begins[session_id] = pieces[-1].id
            self._begins.move_to_end(session_id)
            while len(self._begins) > _REMEMBERED:
                self._begins.popitem(last=False)
        return [step for piece in reversed(pieces) for step in piece.clamped]

    async def _collect(self, head: str, room: int, begin: str | None) -> tuple[list[_Piece], bool]:
        """Pieces newest first, and whether they reach the beginning within the room (clamped)."""
        pieces: list[_Piece] = []
        before: str | None = None
        total = 0
        while True:
            turns = await self._store.path(head, limit=_CHUNK, before=before)
            for turn in reversed(turns):
                piece = _piece(turn)
                if piece is not None:
                    total += piece.clamped_tokens
                    pieces.append(piece)
                    if total > room:
                        return pieces, False
                if turn.interaction.id == begin:
                    return pieces, True
            if len(turns) < _CHUNK:
                return pieces, True
            before = turns[0].interaction.id


def instruction_of(session: Session, interaction: Interaction) -> str | None:
    """The turn's system instruction; the session's unless the turn has its own."""
    given = interaction.system_instruction
    return session.system_instruction if given is None else given


def tools_of(session: Session, interaction: Interaction) -> list[Json]:
    """The turn's tools, sorted by name; the session's unless the turn has its own."""
    return sorted(interaction.tools or session.tools, key=lambda tool: str(tool.get("name")))


def estimate_request(request: ModelRequest) -> int:
    """Tokens of a whole request."""
    fixed = estimate_text(request.system_instruction or "") + (estimate_json(request.tools) if request.tools else 0)
    return fixed + sum(map(estimate_step, request.steps))


def repaired(steps: Sequence[Step]) -> list[Step]:
    """Return the steps so that any provider takes them: each call has its result right after its group of calls, and
    no result is without a call."""
    steps = for_model(steps)
    out: list[Step] = []
    waiting: dict[str, Step] = {}
    answering = False

    def flush() -> None:
        out.extend(refused(call, NOT_ANSWERED) for call in waiting.values())
        waiting.clear()

    for step in steps:
        if step.type == "function_result":
            answering = True
            if waiting.pop(str(step.body.get("call_id")), None) is not None:
                out.append(step)
            continue
        if answering or step.type == "user_input":
            flush()
            answering = False
        if step.type == "function_call":
            waiting[str(step.body.get("id"))] = step
        out.append(step)
    flush()
    return out


def _piece(turn: Turn) -> _Piece | None:
    """What an earlier turn contributes; `None` for one that made nothing."""
    steps = list(turn.steps)
    if turn.interaction.status != "completed":
        while steps and steps[-1].type == "thought":
            # Half a thought has no signature, and providers refuse a turn that ends in thinking.
            steps.pop()
        if all(step.type in ("user_input", "thought") for step in steps):
            return None
    steps = repaired(steps)
    tokens = sum(map(estimate_step, steps))
    clamped, clamped_tokens = steps, tokens
    if any(step.type == "function_result" for step in steps) and tokens * 4 > CLAMP_CHARS:
        results = sum(step.type == "function_result" for step in steps)
        # A turn of an agent may have hundreds of results: together they get the room of a few.
        limit = max(_LEAST_CHARS, min(CLAMP_CHARS, 6 * CLAMP_CHARS // results))
        clamped = [_clamp(step, limit) for step in steps]
        clamped_tokens = sum(map(estimate_step, clamped))
    return _Piece(turn.interaction.id, steps, tokens, clamped, clamped_tokens)


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
