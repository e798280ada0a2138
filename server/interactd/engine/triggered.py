"""Turns that triggers start: the engine's side of `durable.port.Turns`."""

from __future__ import annotations

import contextlib
from typing import Any, Final, cast

from interactd.durable.port import Schedules
from interactd.engine.agents import choice
from interactd.engine.checks.arguments import MAX_INSTRUCTION, MAX_TITLE, check_labels, check_ttl
from interactd.engine.checks.content import check_content
from interactd.engine.checks.terms import terms
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.engine.port import Engine
from interactd.errors import Deleted, Expired, InvalidArgument, NotFound, ProviderTimeout, ProviderUnavailable
from interactd.nouns import Caller, Json
from interactd.store.schedules_port import Execution, start_key

FIELDS: Final = (
    "input",
    "agent",
    "model",
    "session",
    "environment",
    "share_environment",
    "budget",
    "approvals",
    "dispatch",
    "limits",
    "labels",
    "system_instruction",
    "ttl_s",
    "title",
)
NEW: Final = "new"
SAME: Final = "same"
DEFAULT_TTL_S: Final = 7 * 86_400.0
"""How long a run's own session is kept: a night's result should be there after the weekend."""
_KEPT_FOR_EVER: Final = 0


class TriggeredTurns:
    """Checks, starts and stops what triggers run, as any caller of the engine would."""

    def __init__(self, core: Core, engine: Engine) -> None:
        self._core = core
        self._engine = engine

    async def check(self, work: Json, caller: Caller) -> Json:
        """See `durable.port.Turns.check`."""
        for name in work:
            if name not in FIELDS:
                raise InvalidArgument(
                    f"{name:.60}: no such field of what a trigger runs",
                    repair=f"There are {', '.join(FIELDS)}.",
                    field=name,
                )
        if work.get("input") in (None, "", []):
            raise InvalidArgument("input: is required: what shall it do?", field="input")
        if work.get("model") is not None and work.get("agent") is not None:
            raise InvalidArgument(
                "model, agent: a trigger runs a model or an agent, not both.", repair="Leave one out.", field="agent"
            )
        kept: Json = {"input": check_content(work["input"], max_bytes=self._core.settings.max_input_bytes)}
        session = check_text("session", work.get("session") or NEW, max_bytes=200, empty=False).strip()
        kept["session"] = session
        own = None
        if session not in (NEW, SAME):
            own = await self._core.session(session, caller)
            kept["session"] = own.id
        share = work.get("share_environment", True)
        if not isinstance(share, bool):
            raise InvalidArgument("share_environment: expected true or false", field="share_environment")
        if not share:
            kept["share_environment"] = False
        self._check_terms(work, kept)
        await self._check_taker(work, kept, own, caller)
        if "ttl_s" in work:
            ttl = check_ttl(work["ttl_s"], DEFAULT_TTL_S)
            kept["ttl_s"] = _KEPT_FOR_EVER if ttl is None else ttl
        for name, most in (("system_instruction", MAX_INSTRUCTION), ("title", MAX_TITLE)):
            if work.get(name) is not None:
                kept[name] = check_text(name, work[name], max_bytes=most)
        if work.get("labels"):
            kept["labels"] = check_labels(work["labels"])
        return kept

    def _check_terms(self, work: Json, kept: Json) -> None:
        known = self._core.tool_names
        on_terms = terms(work.get("budget"), work.get("approvals"), work.get("dispatch"), known=known)
        kept.update(on_terms.arguments())

    async def _check_taker(self, work: Json, kept: Json, own: Any, caller: Caller) -> None:
        of_agent = choice.asked(work.get("agent"), work.get("environment"), work.get("limits"))
        model = work.get("model")
        if model is not None:
            kept["model"] = check_text("model", model, max_bytes=500, empty=False)
        taker = of_agent.agent or (own.agent if own is not None and model is None else None)
        if taker is not None:
            definition = await choice.definition_of(self._core, taker, own, caller)
            if of_agent.agent is not None:
                kept["agent"] = definition.id
            of_agent = await choice.placed(self._core, of_agent, caller)
            name = definition.model or (own.model if own is not None else None) or "auto"
        elif of_agent.environment is not None or of_agent.limits is not None:
            raise InvalidArgument(
                "environment, limits: are an agent's, and a model takes these turns.",
                repair="Give agent as well, or leave them out.",
                field="environment",
            )
        else:
            name = model or (own.model if own is not None else None) or "auto"
        if of_agent.environment is not None:
            kept["environment"] = of_agent.environment
        if of_agent.limits is not None:
            kept["limits"] = of_agent.limits
        # Said now, while somebody is there to read it: no such model, or no key for it. A server that is down just now
        # may be up at the time that counts.
        with contextlib.suppress(ProviderUnavailable, ProviderTimeout):
            await self._core.catalog.resolve(name, connection=caller.connection)

    async def start(self, execution: Execution, cwd: str | None) -> None:
        """See `durable.port.Turns.start`. Runs with the keys of the most recently connected host that has any, else
        with the daemon's own, as a run does that is taken up after a restart."""
        work = execution.work
        caller = Caller(owner=execution.owner, client="trigger", cwd=cwd)
        key = start_key(execution.id)
        session, place = work["session"], _place(work, execution)
        if session == SAME and execution.session_id is not None:
            # It knows where its agent works.
            session, place = execution.session_id, None
        if session in (NEW, SAME):
            try:
                session = await self._new_session(execution, place, key, caller)
            except (NotFound, Expired, Deleted):
                if place is None or place == work.get("environment"):
                    raise
                # The shared environment was deleted, or not used for too long: the next one is made and shared.
                session = await self._new_session(execution, work.get("environment"), key, caller)
            place = None
        await self._engine.send_turn(
            session,
            work["input"],
            model=work.get("model"),
            # Said again where it is the session's own: a session that was there before may have another.
            agent=work.get("agent"),
            environment=place,
            limits=work.get("limits"),
            system_instruction=work.get("system_instruction") if work["session"] not in (NEW, SAME) else None,
            background=True,
            budget=work.get("budget"),
            approvals=work.get("approvals"),
            dispatch=work.get("dispatch"),
            if_busy="queue",
            idempotency_key=key,
            caller=caller,
        )

    async def _new_session(self, execution: Execution, place: Any, key: str, caller: Caller) -> str:
        work = execution.work
        ttl = work.get("ttl_s", _KEPT_FOR_EVER if work["session"] == SAME else DEFAULT_TTL_S)
        session = await self._engine.create_session(
            model=work.get("model"),
            agent=work.get("agent"),
            environment=cast("str | Json | None", place),
            system_instruction=work.get("system_instruction"),
            ttl_s=ttl,
            title=work.get("title"),
            labels=work.get("labels"),
            idempotency_key=f"{key}:session",
            caller=caller,
        )
        return session.id

    async def cancel(self, interaction_id: str, owner: str) -> None:
        """See `durable.port.Turns.cancel`."""
        try:
            await self._engine.cancel(interaction_id, caller=Caller(owner=owner, client="trigger"))
        except (NotFound, Deleted, Expired):
            return


def _place(work: Json, execution: Execution) -> str | Json | None:
    """Where a new session's agent works: with what the runs share, once that is there."""
    if work.get("agent") is None:
        return None
    if work.get("share_environment", True) and execution.environment_id is not None:
        return execution.environment_id
    return cast("str | Json | None", work.get("environment"))


def schedules_of(schedules: Schedules | None) -> Schedules:
    """Raises: NotFound: this engine was made without triggers and webhooks."""
    if schedules is None:
        raise NotFound("this daemon has no triggers and no webhooks", kind="schedules", id="schedules")
    return schedules
