"""Function results for an interaction that asked for them; when none is missing it goes on."""

from __future__ import annotations

from typing import Any, cast

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
from interactd.nouns import Caller, Interaction, Json, Step
from interactd.store.port import IdempotencyKey

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
    return await core.finish(_respond(core, queue, interaction, given, key, caller))


async def _respond(
    core: Core, queue: Queue, interaction: Interaction, given: list[Json], key: IdempotencyKey | None, caller: Caller
) -> Result:
    async with core.session_lock(interaction.session_id):
        core.check_accepting()
        interaction = await core.store.get_interaction(interaction.id)
        steps = await core.store.get_steps(interaction.id)
        known = _keyed(steps, key)
        fresh = _fresh(interaction, steps, given)
        if known or (not fresh and interaction.status != "requires_action"):
            return await result_of(core, queue, interaction, replayed=True)
        if interaction.status != "requires_action":
            raise Conflict(
                f"Interaction {interaction.id} is {interaction.status}: it waits for no function results.",
                repair="Call get_interaction to see it, or send_turn to go on with the session.",
                interaction_id=interaction.id,
                status=interaction.status,
            )
        session = await core.session(interaction.session_id, caller)
        waiting = unanswered(steps)
        now = core.clock()
        made = [_step(waiting, result, key) for result in fresh]
        if session.ttl_s is not None:
            session.expires_at = now + session.ttl_s
            await core.store.set_expiry(session.id, session.ttl_s, session.expires_at)
        if len(made) < len(waiting):
            await core.store.append(interaction.id, interaction.epoch, made)
            return await result_of(core, queue, interaction, session)
        claimed = await core.store.claim(interaction.id, from_status=("requires_action",), now=now)
        if claimed is None:
            raise Conflict(
                f"Interaction {interaction.id} cannot go on just now.",
                repair="Call get_interaction to see why.",
                interaction_id=interaction.id,
            )
        before = Note.read(await core.store.pending(interaction.id))
        note = Note(connection=caller.connection, cwd=caller.cwd, seconds=before.seconds, limits=before.limits)
        written = await core.store.append(claimed.id, claimed.epoch, made, pending=note.as_dict())
        queue.launch(claimed, session, [*steps, *written], note)
        return await result_of(core, queue, claimed, session)


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
        InvalidArgument: nobody asked for one of them.
        Conflict: one was answered before, differently.
    """
    calls = {str(step.body.get("id")) for step in steps if step.type == "function_call"}
    answered = {str(step.body.get("call_id")): step.body for step in steps if step.type == "function_result"}
    fresh: list[Json] = []
    for result in given:
        call_id = result["call_id"]
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
            raise Conflict(
                f"Call {call_id} was answered before, with another result; the first one stands.",
                repair="Call get_interaction to see what it still waits for.",
                interaction_id=interaction.id,
                call_id=call_id,
            )
    return fresh


def _keyed(steps: list[Step], key: IdempotencyKey | None) -> bool:
    """Whether an earlier call with this key gave its results.

    Raises:
        Conflict: it did, with other arguments.
    """
    if key is None:
        return False
    for step in steps:
        state = step.state or {}
        if step.type == "function_result" and state.get("key") == key.key:
            if state.get("digest") != key.digest:
                raise Conflict(
                    "idempotency_key: was used for other arguments.",
                    repair="Use a new key for a new call.",
                    idempotency_key=key.key,
                )
            return True
    return False


def _step(waiting: list[Step], result: Json, key: IdempotencyKey | None) -> Step:
    call = next(step for step in waiting if step.body.get("id") == result["call_id"])
    body: Json = {"call_id": result["call_id"], "name": call.body.get("name"), "result": result["result"]}
    if result["is_error"]:
        body["is_error"] = True
    # The key lives with the results, so that both are there or neither.
    state = None if key is None else {"provider": "interactd", "key": key.key, "digest": key.digest}
    return Step("function_result", body, state)
