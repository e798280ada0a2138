"""Function results for an interaction that asked for them; when none is missing it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from interactd.engine.agents.steps import ASK_PREFIX, due_of, is_question, questions
from interactd.engine.approvals.answers import read_answer
from interactd.engine.approvals.keys import connection_for
from interactd.engine.approvals.standing import with_standing
from interactd.engine.checks.arguments import check_key
from interactd.engine.checks.content import check_content
from interactd.engine.checks.text import check_json, check_text, kind_of
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.port import Result
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import unanswered
from interactd.engine.run.tokens import estimate_json
from interactd.engine.waiting import result_of
from interactd.errors import Conflict, InvalidArgument
from interactd.nouns import Caller, Interaction, Json, Session, Step
from interactd.store.port import IdempotencyKey

_TRIES = 5
_FIELDS = ("call_id", "result", "is_error", "name", "type")


async def respond(
    core: Core,
    queue: Queue,
    interaction_id: str,
    results: list[Json],
    *,
    idempotency_key: str | None,
    caller: Caller,
) -> Result:
    """See `Engine.respond`."""
    core.check_accepting()
    given = _results(results, core.settings.max_input_bytes)
    interaction, _ = await core.interaction(interaction_id, caller)
    key = check_key(idempotency_key, caller.owner, call="respond", interaction_id=interaction.id, results=given)
    # Before the lock: providers may be asked. Functions are run where the keys are; a decision is made anywhere.
    began = Note.read(await core.store.pending(interaction.id)).connection
    decides = any(str(one["call_id"]).startswith(ASK_PREFIX) for one in given)
    whose = (began, caller.connection) if decides else (caller.connection, began)
    connection = await connection_for(core, interaction, whose)
    for _ in range(_TRIES):
        done = await core.finish(_respond(core, queue, interaction, given, key, caller, connection))
        if done is not None:
            return done
    raise Conflict(
        f"Interaction {interaction.id} is being answered by others.",
        repair="Make the same call again: what was answered so stays so.",
        interaction_id=interaction.id,
    )


async def _respond(
    core: Core,
    queue: Queue,
    interaction: Interaction,
    given: list[Json],
    key: IdempotencyKey | None,
    caller: Caller,
    connection: str | None,
) -> Result | None:
    """Answer; `None` when another daemon's answer came in between, so that this one has to be looked at anew."""
    async with core.session_lock(interaction.session_id):
        core.check_accepting()
        interaction = await core.store.get_interaction(interaction.id)
        if await core.recalled(key):
            return await result_of(core, queue, interaction, replayed=True)
        steps = await core.store.get_steps(interaction.id)
        fresh = _fresh(interaction, steps, given)
        if not fresh and interaction.status != "requires_action":
            return await result_of(core, queue, interaction, replayed=True)
        if interaction.status != "requires_action":
            raise Conflict(
                f"Interaction {interaction.id} is {interaction.status}: it waits for no function results.",
                repair="Call get_interaction to see it, or send_turn to go on with the session.",
                interaction_id=interaction.id,
                status=interaction.status,
            )
        waiting = unanswered(steps)
        session = await core.any_session(interaction.session_id, caller)
        if not any(map(is_question, waiting)):
            # What waits for a decision is kept until its deadline, however short the session's own life is.
            core.check_alive(session)
        now = core.clock()
        made = [_step(waiting, result, caller) for result in fresh]
        if session.ttl_s is not None:
            session.state, session.expires_at = "active", now + session.ttl_s
            await core.store.set_expiry(session.id, session.ttl_s, session.expires_at)
        await _keep_standing(core, session, interaction.id, waiting, fresh)
        before = Note.read(await core.store.pending(interaction.id))
        goes_on = len(made) == len(waiting)
        if goes_on:
            note = replace(before.answered(), connection=connection, cwd=before.cwd or caller.cwd)
        else:
            left = [step for step in waiting if step.body["id"] not in {result["call_id"] for result in fresh}]
            note = replace(before, due=due_of(left))
        answered = await core.store.answer(
            interaction, len(steps), made, pending=note.as_dict(), goes_on=goes_on, now=now, key=key
        )
        if answered is None:
            return None
        claimed, written = answered
        if goes_on:
            queue.launch(claimed, session, [*steps, *written], note)
        else:
            core.asked.set()
        return await result_of(core, queue, claimed, session)


async def _keep_standing(
    core: Core, session: Session, interaction_id: str, waiting: list[Step], fresh: list[Json]
) -> None:
    """Note what was answered for the whole session, before the answers: a crash in between forgets neither."""
    asked = questions(waiting)
    said = {
        str(asked[result["call_id"]].body["arguments"]["name"]): result["result"]
        for result in fresh
        if result["call_id"] in asked and result["result"].get("scope") == "session"
    }
    if said:
        session.approvals = with_standing(session, said, interaction_id, core.clock())
        await core.store.set_approvals(session.id, session.approvals)


def _results(results: Any, max_bytes: int) -> list[Json]:
    if not isinstance(results, list) or not results:
        raise InvalidArgument(
            "results: expected a list of function results",
            repair='Give [{"call_id": "...", "result": ...}], one for each call in waiting_for.',
            field="results",
        )
    clean: list[Json] = []
    for at, result in enumerate(cast("list[Any]", results)):
        clean.append(_result(f"results[{at}]", result, max_bytes))
        if any(other["call_id"] == clean[-1]["call_id"] for other in clean[:-1]):
            raise InvalidArgument(f"results[{at}].call_id: {clean[-1]['call_id']!r} is there twice", field="results")
    return clean


def _result(field: str, result: Any, max_bytes: int) -> Json:
    if not isinstance(result, dict):
        raise InvalidArgument(f"{field}: expected an object, got {kind_of(result)}", field=field)
    given = cast("dict[Any, Any]", result)
    if extra := [str(name) for name in given if name not in _FIELDS]:
        raise InvalidArgument(
            f"{field}: unknown field {extra[0]!r}", repair="It may have call_id, result, is_error.", field=field
        )
    call_id = check_text(f"{field}.call_id", given.get("call_id"), max_bytes=1_000, empty=False)
    if "result" not in given:
        raise InvalidArgument(f"{field}.result: is missing", field=f"{field}.result")
    is_error = given.get("is_error", False)
    if not isinstance(is_error, bool):
        raise InvalidArgument(f"{field}.is_error: expected true or false", field=f"{field}.is_error")
    value: Any = given["result"]
    if isinstance(value, str):
        check_text(f"{field}.result", value, max_bytes=max_bytes)
    elif _is_content(value):
        value = check_content(value, max_bytes=max_bytes, field=f"{field}.result")
    else:
        value = check_json(f"{field}.result", value)
        if estimate_json(value) * 4 > max_bytes:
            raise InvalidArgument(f"{field}.result: more than {max_bytes:,} bytes", field=f"{field}.result")
        if not isinstance(value, dict):
            # Providers take an object, a text or contents; a bare number or list becomes the one field of an object.
            value = {"result": value}
    return {"call_id": call_id, "result": value, "is_error": is_error}


def _is_content(value: Any) -> bool:
    parts = cast("list[Any]", value) if isinstance(value, list) else []
    return bool(parts) and all(
        isinstance(part, dict) and cast("Json", part).get("type") in ("text", "image") for part in parts
    )


def _fresh(interaction: Interaction, steps: list[Step], given: list[Json]) -> list[Json]:
    """The results that are not there yet.

    Raises:
        InvalidArgument: nobody asked for one of them, or an answer to a question is none.
        Conflict: one was answered before, differently.
    """
    calls = {str(step.body.get("id")) for step in steps if step.type == "function_call"}
    answered = {str(step.body.get("call_id")): step.body for step in steps if step.type == "function_result"}
    asked = questions(steps)
    fresh: list[Json] = []
    for at, result in enumerate(given):
        call_id = result["call_id"]
        if call_id in asked:
            kind = str(asked[call_id].body["arguments"]["kind"])
            answer = read_answer(f"results[{at}].result", result["result"], is_error=result["is_error"], kind=kind)
            result = {"call_id": call_id, "result": answer, "is_error": False}
        if call_id not in calls:
            waiting = [str(step.body.get("id")) for step in unanswered(steps)]
            raise InvalidArgument(
                f"results: interaction {interaction.id} made no call {call_id!r}",
                repair=f"It waits for {', '.join(waiting)}." if waiting else "It waits for no results.",
                field="results",
                waiting_for=waiting,
            )
        earlier = answered.get(call_id)
        if earlier is None:
            fresh.append(result)
        elif (earlier.get("result"), bool(earlier.get("is_error"))) != (result["result"], result["is_error"]):
            how = " by default, because its deadline had passed" if _by_default(earlier) else ", with another result"
            raise Conflict(
                f"Call {call_id} was answered before{how}; the first answer stands.",
                repair="Call get_interaction to see what it still waits for.",
                interaction_id=interaction.id,
                call_id=call_id,
            )
    return fresh


def _by_default(answer: Json) -> bool:
    result: Any = answer.get("result")
    return isinstance(result, dict) and cast("Json", result).get("by") == "default"


def _step(waiting: list[Step], result: Json, caller: Caller) -> Step:
    call = next(step for step in waiting if step.body.get("id") == result["call_id"])
    body: Json = {"call_id": result["call_id"], "name": call.body.get("name"), "result": result["result"]}
    if result["is_error"]:
        body["is_error"] = True
    by = {"provider": "interactd", "answered_by": caller.client} if is_question(call) and caller.client else None
    return Step("function_result", body, by)
