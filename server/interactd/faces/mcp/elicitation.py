"""Putting an agent's question to the user through the client, where the client can do that. Never needed.

A call that comes back with an open question asks the client for the user's answer: clients up to 2025-11-25 in a
request of ours within the call, those of 2026-07-28 by an `input_required` result, after which they call again. What is
accepted goes through `respond`, as from anybody. Declined, dismissed or not answered in time, the question stays open
and the call's own result says what it waits for.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from interactd.engine.port import Engine
from interactd.errors import InteractdError
from interactd.faces.mcp.peer import Peer
from interactd.nouns import Caller, Json
from interactd_tools.context import ToolResult

log = logging.getLogger(__name__)

KEY: Final = "approval"
"""Of our one input request in an `input_required` result."""
SHORTEST_S: Final = 5.0
"""Nobody reads a question and answers it in less: it is not asked with less time left."""
MAX_ROUNDS: Final = 5
LOOK_EVERY_S: Final = 0.5
MAX_QUESTIONS: Final = 8
_KINDS: Final = ("approval", "replay")

Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is open in an interaction, and how often this call has asked already."""

    interaction_id: str
    asked: tuple[Json, ...]
    round: int = 0

    @property
    def ids(self) -> list[str]:
        return [str(one["id"]) for one in self.asked]

    def message(self) -> str:
        """The questions as the user reads them."""
        lines = [str(one["question"]) for one in self.asked]
        if len(lines) > 1:
            lines = [f"{number}. {line}" for number, line in enumerate(lines, 1)]
        first = min((str(one["deadline"]) for one in self.asked if "deadline" in one), default=None)
        return "\n".join([*lines, *([f"(Until {first}.)"] if first else [])])

    def schema(self) -> Json:
        """A flat form: a decision for each question, and a reason."""
        single = len(self.asked) == 1
        decisions: Json = {
            _field(number, single=single): {
                "type": "string",
                "title": "Decision" if single else f"Decision {number}",
                "description": str(one["question"])[:300],
                "enum": ["allow", "deny"],
            }
            for number, one in enumerate(self.asked, 1)
        }
        properties: Json = dict(decisions)
        if any(one["kind"] == "approval" for one in self.asked):
            properties["scope"] = {
                "type": "string",
                "title": "For",
                "description": "this call, or all further calls of the tool in this run or session",
                "enum": ["call", "run", "session"],
                "default": "call",
            }
        properties["reason"] = {
            "type": "string",
            "title": "Reason",
            "description": "Told to the agent.",
            "maxLength": 500,
        }
        return {"type": "object", "properties": properties, "required": list(decisions)}

    def results(self, content: Json) -> list[Json]:
        """What `respond` is told; empty when a decision is missing."""
        single = len(self.asked) == 1
        results: list[Json] = []
        for number, one in enumerate(self.asked, 1):
            said: Any = content.get(_field(number, single=single))
            if said not in ("allow", "deny"):
                return []
            answer: Json = {"decision": said}
            if one["kind"] == "approval" and content.get("scope") in ("run", "session"):
                answer["scope"] = content["scope"]
            if isinstance(content.get("reason"), str) and content["reason"].strip():
                answer["reason"] = content["reason"].strip()
            results.append({"call_id": one["id"], "result": answer})
        return results

    def request(self) -> types.ElicitRequest:
        form = types.ElicitRequestFormParams(message=self.message(), requested_schema=self.schema())
        return types.ElicitRequest(params=form)

    def state(self) -> str:
        """What a client brings back with its answer. Nothing in it is believed: `respond` checks all of it again."""
        plain = json.dumps({"interaction_id": self.interaction_id, "calls": self.ids, "round": self.round + 1})
        return base64.urlsafe_b64encode(plain.encode()).decode()


@dataclass(frozen=True, slots=True)
class Returned:
    """A call that was made again, with the user's answer to what its first result asked."""

    interaction_id: str
    calls: tuple[str, ...]
    round: int
    action: str
    content: Json


def can_elicit(ctx: Context) -> bool:
    """Whether the client shows forms to its user."""
    declared = ctx.session.client_capabilities
    elicitation = declared.elicitation if declared else None
    if elicitation is None:
        return False
    # Before there were two modes, an empty capability was that of forms.
    return elicitation.form is not None or elicitation.url is None


def is_modern(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def returned(params: types.CallToolRequestParams) -> Returned | None:
    """The answer in a call that was made again; `None` for any other call."""
    if params.request_state is None:
        return None
    try:
        state: Any = json.loads(base64.b64decode(params.request_state, altchars=b"-_", validate=True))
        interaction_id, calls = state["interaction_id"], [str(one) for one in state["calls"]]
        number = int(state["round"])
    except (ValueError, KeyError, TypeError):
        return None
    given = (params.input_responses or {}).get(KEY)
    if not isinstance(interaction_id, str) or not isinstance(given, types.ElicitResult):
        return Returned(str(interaction_id), tuple(calls), MAX_ROUNDS, "cancel", {})
    return Returned(interaction_id, tuple(calls), number, given.action, dict(given.content or {}))


async def question_in(
    engine: Engine, result: ToolResult, caller: Caller, peer: Peer, *, round: int = 0
) -> Question | None:
    """What a result leaves open that this client was not asked before."""
    fields = result.structured or cast("Json", result.meta.get("interactd/result") or {})
    calls: list[Json] = fields.get("calls") or []
    interaction_id = fields.get("interaction_id")
    if fields.get("status") != "requires_action" or not interaction_id or round >= MAX_ROUNDS:
        return None
    if not any(one.get("kind") in _KINDS and one.get("call_id") not in peer.declined for one in calls):
        return None
    try:
        seen = await engine.get_interaction(str(interaction_id), caller=caller)
    except InteractdError:
        return None
    asked = [one for one in seen.waiting_for if one.get("kind") in _KINDS and one["id"] not in peer.declined]
    return Question(str(interaction_id), tuple(asked[:MAX_QUESTIONS]), round) if asked else None


def input_required(question: Question) -> types.InputRequiredResult:
    """The result that asks a client of 2026-07-28 to call again with the answer."""
    return types.InputRequiredResult(input_requests={KEY: question.request()}, request_state=question.state())


async def ask(
    ctx: Context, engine: Engine, question: Question, caller: Caller, peer: Peer, until: float
) -> Json | Literal["answered"] | None:
    """Ask a client of the handshake's time, until a moment of the monotonic clock.

    Returns:
        The form as the user left it; `answered` when somebody else has answered meanwhile; `None` when nobody has, and
        then this connection is not asked again.
    """
    left = until - time.monotonic()
    if left < SHORTEST_S:
        return None
    asking = asyncio.create_task(_form(ctx, question, left), name=f"ask about {question.interaction_id}")
    watching = asyncio.create_task(_answered(engine, question, caller), name=f"watch {question.interaction_id}")
    try:
        await asyncio.wait({asking, watching}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and (content := asking.result()) is not None:
            return content
        if watching.done() and watching.result():
            return "answered"
    finally:
        for task in (asking, watching):
            task.cancel()
        await asyncio.gather(asking, watching, return_exceptions=True)
    declined(peer, question.ids)
    return None


async def _form(ctx: Context, question: Question, left: float) -> Json | None:
    try:
        said = await ctx.session.send_request(
            question.request(),
            types.ElicitResult,
            request_read_timeout_seconds=left,
            metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
        )
    except (MCPError, NoBackChannelError, ValidationError, TimeoutError) as error:
        log.info("the client did not answer a question of %s: %s", question.interaction_id, error)
        return None
    return dict(said.content or {}) if said.action == "accept" else None


async def _answered(engine: Engine, question: Question, caller: Caller) -> bool:
    """Return when the questions are open no more: from another client, at the command line, or by default."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            seen = await engine.get_interaction(question.interaction_id, caller=caller)
        except InteractdError:
            return True
        if not {str(one["id"]) for one in seen.waiting_for}.issuperset(question.ids):
            return True


def declined(peer: Peer, ids: list[str] | tuple[str, ...]) -> None:
    """Do not ask this connection about these again. One that others share is not asked less for that."""
    if peer.connection is not None:
        peer.declined.update(dict.fromkeys(ids))
        while len(peer.declined) > 1_000:
            peer.declined.pop(next(iter(peer.declined)))


def _field(number: int, *, single: bool) -> str:
    return "decision" if single else f"decision_{number}"
