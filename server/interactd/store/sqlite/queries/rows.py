"""Rows to nouns and back. JSON is kept as text, exactly; plain text columns hold no character SQLite cannot show."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal

from interactd.errors import Deleted, Expired, InteractdError, InvalidArgument, NotFound
from interactd.nouns import GenerationConfig, Interaction, Json, Session, Step, Usage

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

SESSION: Final = (
    "id, created_at, updated_at, owner, title, model, agent, system_instruction, generation_config, tools, labels,"
    " ttl_s, expires_at, head, turns, forked_from, forked_at, agent_pins, environment, budget, approvals"
)
INTERACTION: Final = (
    "id, session_id, status, created_at, previous_interaction_id, model, agent, system_instruction,"
    " generation_config, tools, background, depth, epoch, attempt, usage, error, finish_reason, started_at,"
    " finished_at, read_at, agent_hash, environment_id, isolation, parent_id, runner, budget, approvals, dispatch"
)
STEP: Final = "type, body, state, seq, created_at"


def dump(value: Any) -> str:
    """Return the JSON text that `load` reads back to the same value.

    Raises:
        InvalidArgument: the value has something in it that JSON has no form for.
    """
    try:
        text = _encode(value)
        # Lone surrogates have no UTF-8; \ud800 as an escape keeps them.
        text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"a value cannot be stored: {error}", repair="Send plain JSON, nested less than a few hundred levels deep."
        ) from error
    return text


def dump_some(value: Any) -> str | None:
    """Like `dump`; nothing for an empty or missing value."""
    return dump(value) if value else None


def load(text: str | None) -> Any:
    """Read what `dump` wrote."""
    return None if text is None else json.loads(text)


def texts(text: str | None) -> dict[str, str]:
    """Read an object of texts that `dump_some` wrote: labels, pins."""
    return load(text) or {}


def clean(text: str | None) -> str | None:
    """Return the text with what a TEXT column cannot carry (NUL, lone surrogates) shown as U+FFFD."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return joined.replace("\0", "\ufffd")


def exact(text: str) -> str:
    """Return the text for a column that is compared: different texts stay different."""
    return (
        text
        if text.isascii() and "\0" not in text
        else text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    )


def clean_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return labels that SQLite's JSON functions can compare."""
    return {clean(str(name)) or "": clean(str(value)) or "" for name, value in labels.items()}


def session(row: Sequence[Any], now: float) -> Session:
    """Read a row of `SESSION` columns; `now` decides whether it has expired."""
    return Session(
        id=row[0],
        created_at=row[1],
        updated_at=row[2],
        owner=row[3],
        title=row[4],
        state="expired" if row[12] is not None and row[12] <= now else "active",
        model=row[5],
        agent=row[6],
        system_instruction=row[7],
        generation_config=_config(row[8]),
        tools=load(row[9]) or [],
        labels=load(row[10]) or {},
        ttl_s=row[11],
        expires_at=row[12],
        head=row[13],
        turns=row[14],
        forked_from=row[15],
        forked_at=row[16],
        agent_pins=load(row[17]) or {},
        environment=load(row[18]),
        budget=load(row[19]),
        approvals=load(row[20]),
    )


def session_values(session: Session) -> tuple[Any, ...]:
    """Return the values of the `SESSION` columns."""
    return (
        session.id,
        session.created_at,
        session.updated_at,
        exact(session.owner),
        clean(session.title),
        clean(session.model),
        clean(session.agent),
        clean(session.system_instruction),
        dump_some(session.generation_config.as_dict()),
        dump_some(session.tools),
        dump_some(clean_labels(session.labels)),
        session.ttl_s,
        session.expires_at,
        session.head,
        session.turns,
        session.forked_from,
        session.forked_at,
        dump_some(session.agent_pins),
        dump_some(session.environment),
        dump_some(session.budget),
        dump_some(session.approvals),
    )


def interaction(row: Sequence[Any]) -> Interaction:
    """Read a row of `INTERACTION` columns."""
    return Interaction(
        id=row[0],
        session_id=row[1],
        status=row[2],
        created_at=row[3],
        previous_interaction_id=row[4],
        model=row[5],
        agent=row[6],
        system_instruction=row[7],
        generation_config=_config(row[8]),
        tools=load(row[9]) or [],
        background=bool(row[10]),
        depth=row[11],
        epoch=row[12],
        attempt=row[13],
        usage=None if row[14] is None else Usage.from_dict(load(row[14])),
        error=load(row[15]),
        finish_reason=row[16],
        started_at=row[17],
        finished_at=row[18],
        read_at=row[19],
        agent_hash=row[20],
        environment_id=row[21],
        isolation=load(row[22]),
        parent_id=row[23],
        runner=row[24],
        budget=load(row[25]),
        approvals=load(row[26]),
        dispatch=load(row[27]),
    )


def step(row: Sequence[Any]) -> Step:
    """Read a row of `STEP` columns."""
    return Step(row[0], load(row[1]), load(row[2]), row[3], row[4])


StepValues = tuple[str, float, str, str | None]
"""type, created_at, body, state: all but the place, which only the writer knows."""


def step_values(steps: Sequence[Step], now: float) -> tuple[list[StepValues], int]:
    """Encode steps for insertion; also returns their size in characters. A step without a time gets `now`."""
    values: list[StepValues] = [
        (
            clean(step.type) or "",
            step.created_at or now,
            dump(step.body),
            None if step.state is None else dump(step.state),
        )
        for step in steps
    ]
    return values, sum(len(value[2]) + len(value[3] or "") + 200 for value in values)


def usage_text(usage: Usage | None) -> str | None:
    return None if usage is None else dump(usage.as_dict())


def missing(
    connection: sqlite3.Connection, kind: Literal["session", "interaction", "environment"], id: str
) -> InteractdError:
    """Return the error for an id that has no row: it was deleted, it expired, or it never was."""
    row = connection.execute(
        "SELECT reason, deleted_at, session_id, receipt FROM tombstones WHERE id = ?", (exact(id),)
    )
    found = row.fetchone()
    if found is None:
        return NotFound(f"there is no {kind} {id}", repair=_FIND[kind], kind=kind, id=id)
    reason, deleted_at, session_id, receipt = found
    fields: Json = {"kind": kind, "id": id, "session_id": session_id, "deleted_at": deleted_at}
    of = "" if kind == "session" else f" (with its session {session_id})"
    if reason == "expired":
        return Expired(
            f"{kind} {id} expired{of} and was removed", repair="Start a new one with create_session.", **fields
        )
    if receipt is not None:
        fields["receipt"] = load(receipt)
    return Deleted(f"{kind} {id} was deleted{of}", repair="Start a new one with create_session.", **fields)


_FIND: Final = {
    "session": "list_sessions shows the ids there are.",
    "interaction": "get_session shows the interactions of a session.",
    "environment": "list_environments shows those there are; or leave the environment out to get a new one.",
}


def _config(text: str | None) -> GenerationConfig:
    return GenerationConfig() if text is None else GenerationConfig(**json.loads(text))
