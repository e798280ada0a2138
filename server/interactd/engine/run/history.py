"""What a model is shown: the path back from this turn, as far as its window needs and no further.

Rules, in this order. The turn itself is always whole. Earlier turns are whole as long as all fit. If they do not,
long tool results in them are cut to head and tail. If that is not enough the oldest turns are left out, down to half
of the room at once: the start of the prompt then stays the same for many turns, and providers' prompt caches with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from interactd.engine.agents.pictures import refuses_pictures, shows_pictures, without_pictures
from interactd.engine.agents.window import fit
from interactd.engine.run.pieces import Piece, Pieces, piece_of, repaired
from interactd.engine.run.tokens import Calibration, estimate_json, estimate_step, estimate_text
from interactd.errors import InteractdError
from interactd.models.port import Model, ModelRequest
from interactd.nouns import GenerationConfig, Interaction, Json, Session, Step
from interactd.store.port import Store

_FIRST_CHUNK: Final = 16
_LAST_CHUNK: Final = 256
_REMEMBERED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Frame:
    """What an agent's run puts around its steps."""

    system: str
    tools: list[Json]


class History:
    """Builds requests. Remembers where each session's prompt begins for each model, so that it moves rarely."""

    def __init__(self, store: Store, default_window: int) -> None:
        self.calibration = Calibration()
        self.blind: set[str] = set()
        """Models whose providers refused pictures."""
        self._store = store
        self._default_window = default_window
        self._begins: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._pieces = Pieces()

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
            before = await self._before((session.id, model.label), interaction.previous_interaction_id, int(room))
            steps = [*before, *steps]
        if model.label in self.blind:
            steps = without_pictures(steps)
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

    def goes_blind(self, model: Model | None, request: ModelRequest | None, error: InteractdError) -> bool:
        """Whether this request may have failed for the pictures that tools returned; the model is shown none from then
        on, and asking again is worth it."""
        if model is None or request is None or model.label in self.blind:
            return False
        if not shows_pictures(request.steps) or not refuses_pictures(error):
            return False
        self.blind.add(model.label)
        return True

    def forget(self, session_id: str) -> None:
        """Drop what is remembered of a session that was removed."""
        for key in [key for key in self._begins if key[0] == session_id]:
            del self._begins[key]
        # Its turns may be anywhere in the cache; nothing of what was deleted stays, and the rest is read again.
        self._pieces.clear()

    async def _before(self, whose: tuple[str, str], head: str, room: int) -> list[Step]:
        begin = self._begins.get(whose)
        pieces, whole = await self._collect(head, room, begin)
        if whole and begin is None and sum(piece.tokens for piece in pieces) <= room:
            return [step for piece in reversed(pieces) for step in piece.steps]
        if not whole:
            left, kept = room // 2, list[Piece]()
            for piece in pieces:
                left -= piece.clamped_tokens
                if left < 0 and (kept or piece.clamped_tokens > room):
                    break
                kept.append(piece)
            pieces = kept
        if pieces:
            self._begins[whose] = pieces[-1].id
            self._begins.move_to_end(whose)
            while len(self._begins) > _REMEMBERED:
                self._begins.popitem(last=False)
        return [step for piece in reversed(pieces) for step in piece.clamped]

    async def _collect(self, head: str, room: int, begin: str | None) -> tuple[list[Piece], bool]:
        """Pieces newest first, and whether they reach the beginning within the room (clamped)."""
        pieces: list[Piece] = []
        total, chunk = 0, _FIRST_CHUNK
        current: str | None = head
        while current is not None:
            piece = self._pieces.get(current)
            if piece is None:
                turns = await self._store.path(current, limit=chunk)
                chunk = min(chunk * 4, _LAST_CHUNK)
                made = [piece_of(turn) for turn in turns]
                self._pieces.keep(made)
                piece = made[-1]
            if piece.steps:
                total += piece.clamped_tokens
                pieces.append(piece)
                if total > room:
                    return pieces, False
            if current == begin:
                break
            current = piece.previous
        return pieces, True


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
