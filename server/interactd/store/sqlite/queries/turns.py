"""A turn's life: accepted, claimed, written step by step, settled. Every change checks the runner's claim."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from interactd.errors import Conflict, Expired, Fenced, InteractdError
from interactd.nouns import OPEN, TERMINAL, Interaction, Json, Status, Step, Usage
from interactd.store.port import IdempotencyKey, Started
from interactd.store.sqlite.queries import rows, sessions
from interactd.store.sqlite.queries.schedules import hooks

RUNNING: Final = "status IN ('in_progress', 'requires_action')"

_INSERT: Final = (
    "INSERT INTO interactions (id, session_id, previous_interaction_id, crosses, status, created_at, started_at,"
    " background, depth, skip_id, skip_depth, epoch, attempt, steps, model, agent, pending, generation_config, tools,"
    " system_instruction, agent_hash, environment_id, parent_id, runner, budget, approvals, dispatch)"
    f" VALUES ({', '.join('?' * 27)})"
)
_INSERT_STEP: Final = "INSERT INTO steps (interaction_id, seq, type, created_at, body, state) VALUES (?, ?, ?, ?, ?, ?)"
_HEAD: Final = (
    "UPDATE sessions SET head = ?, turns = ?, updated_at = ?, expires_at = ?"
    " WHERE id = ? AND (expires_at IS NULL OR expires_at > ?) AND (NOT ? OR head IS ?)"
)
_PARENT: Final = (
    "SELECT p.depth, p.skip_depth, s.skip_id, s.skip_depth, p.session_id"
    " FROM interactions p JOIN interactions s ON s.id = p.skip_id WHERE p.id = ?"
)


def accept(
    connection: sqlite3.Connection,
    interaction: Interaction,
    tail: Sequence[Any],
    steps: Sequence[rows.StepValues],
    expires_at: float | None,
    key: IdempotencyKey | None,
    at_head: bool = False,
) -> Started:
    """Insert the interaction with its first steps and move the session's head to it.

    `tail` has the encoded columns from model to dispatch, in the order of `_INSERT`.
    """
    id, session_id, now = interaction.id, interaction.session_id, interaction.created_at
    if before := sessions.started_before(connection, "send_turn", key, now):
        return before
    depth, skip_id, skip_depth, crosses = 1, id, 1, False
    previous = interaction.previous_interaction_id
    if previous is not None:
        parent = connection.execute(_PARENT, (rows.exact(previous),)).fetchone()
        if parent is None:
            raise rows.missing(connection, "interaction", previous)
        depth, skip_id, skip_depth = skip(previous, parent)
        crosses = parent[4] != session_id
    moved = connection.execute(_HEAD, (id, depth, now, expires_at, session_id, now, at_head, previous))
    if moved.rowcount == 0:
        raise _session_gone(connection, session_id, now)
    running = interaction.status == "in_progress"
    try:
        connection.execute(
            _INSERT,
            (
                id,
                session_id,
                previous,
                crosses,
                interaction.status,
                now,
                interaction.started_at or now if running else None,
                interaction.background,
                depth,
                skip_id,
                skip_depth,
                interaction.epoch,
                interaction.attempt,
                len(steps),
                *tail,
            ),
        )
    except sqlite3.IntegrityError as error:
        raise _conflict(connection, interaction) from error
    _insert_steps(connection, id, 0, steps)
    if interaction.agent and interaction.agent_hash:
        sessions.pin(connection, session_id, interaction.agent, interaction.agent_hash)
    sessions.keep_key(connection, "send_turn", key, id, session_id, now)
    hooks.accepted(connection, interaction, key)
    return Started(id, created=True)


def tail_values(interaction: Interaction, pending: Json | None) -> tuple[Any, ...]:
    """Encode the columns that `accept` takes as `tail`."""
    return (
        rows.clean(interaction.model),
        rows.clean(interaction.agent),
        None if pending is None else rows.dump(pending),
        rows.dump_some(interaction.generation_config.as_dict()),
        rows.dump_some(interaction.tools),
        rows.clean(interaction.system_instruction),
        rows.clean(interaction.agent_hash),
        rows.clean(interaction.environment_id),
        interaction.parent_id,
        interaction.runner,
        rows.dump_some(interaction.budget),
        rows.dump_some(interaction.approvals),
        rows.dump_some(interaction.dispatch),
    )


def claim(
    connection: sqlite3.Connection,
    id: str,
    from_status: Sequence[Status],
    now: float,
    epoch: int | None,
    runner: str | None,
) -> Interaction | None:
    """Take the interaction for running, if it is in one of these statuses and its session has no other running."""
    allowed = [status for status in from_status if status in OPEN]
    try:
        done = connection.execute(
            "UPDATE interactions SET status = 'in_progress', epoch = epoch + 1, attempt = attempt + 1,"
            " started_at = coalesce(started_at, ?), runner = ?"
            f" WHERE id = ? AND epoch = coalesce(?, epoch) AND status IN ({', '.join('?' * len(allowed))})",
            (now, runner, rows.exact(id), epoch, *allowed),
        )
    except sqlite3.IntegrityError:
        return None
    taken = done.rowcount == 1
    row = connection.execute(f"SELECT {rows.INTERACTION} FROM interactions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    return rows.interaction(row) if taken else None


def take_queued(connection: sqlite3.Connection, id: str, was: str | None, runner: str | None) -> bool:
    """Give a queued interaction to another runner."""
    done = connection.execute(
        "UPDATE interactions SET runner = ? WHERE id = ? AND status = 'queued' AND runner IS ?",
        (runner, rows.exact(id), was),
    )
    return done.rowcount == 1


def ask_cancel(connection: sqlite3.Connection, id: str, now: float) -> None:
    """Note that somebody wants it cancelled."""
    connection.execute(
        "UPDATE interactions SET cancel_asked_at = coalesce(cancel_asked_at, ?) WHERE id = ? AND finished_at IS NULL",
        (now, rows.exact(id)),
    )


def append(
    connection: sqlite3.Connection,
    id: str,
    epoch: int,
    steps: Sequence[rows.StepValues],
    pending: str | None,
    key: IdempotencyKey | None = None,
    now: float = 0.0,
) -> int:
    """Append steps and replace the note of what is pending; returns the first one's seq."""
    row = connection.execute(
        "SELECT epoch, status, steps, session_id FROM interactions WHERE id = ?", (rows.exact(id),)
    ).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    _fence(id, epoch, row[0], row[1])
    connection.execute("UPDATE interactions SET steps = steps + ?, pending = ? WHERE id = ?", (len(steps), pending, id))
    _insert_steps(connection, id, row[2], steps)
    if key is not None:
        if sessions.started_before(connection, "respond", key, now):
            raise Conflict("this idempotency_key was used just now", repair="Repeat the call.", id=id)
        sessions.keep_key(connection, "respond", key, id, row[3], now)
    return row[2]


def answer(
    connection: sqlite3.Connection,
    waits: Interaction,
    seen: int,
    steps: Sequence[rows.StepValues],
    pending: str,
    key: IdempotencyKey | None,
    now: float,
    runner: str | None,
    goes_on: bool,
) -> Interaction | None:
    """Append answers, if it waits as it did when it had `seen` steps; where it goes on with them, take it to run."""
    row = connection.execute("SELECT epoch, status, steps FROM interactions WHERE id = ?", (waits.id,)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", waits.id)
    if row != (waits.epoch, "requires_action", seen):
        return None
    taken = claim(connection, waits.id, ("requires_action",), now, waits.epoch, runner) if goes_on else waits
    if taken is not None:
        append(connection, waits.id, taken.epoch, steps, pending, key, now)
    return taken


def requeue(connection: sqlite3.Connection, id: str, epoch: int, pending: str | None) -> Interaction:
    """Put it back into its session's line."""
    row = connection.execute(f"SELECT {rows.INTERACTION} FROM interactions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    found = rows.interaction(row)
    _fence(id, epoch, found.epoch, found.status)
    connection.execute("UPDATE interactions SET status = 'queued', pending = ? WHERE id = ?", (pending, id))
    found.status = "queued"
    return found


def settle(
    connection: sqlite3.Connection,
    id: str,
    epoch: int | None,
    status: Status,
    steps: Sequence[rows.StepValues],
    usage: Usage | None,
    outcome: Sequence[Any],
    now: float,
) -> Interaction:
    """End a run. `outcome` has the encoded error, finish_reason and model."""
    row = connection.execute(
        f"SELECT {rows.INTERACTION}, steps FROM interactions WHERE id = ?", (rows.exact(id),)
    ).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    settled = rows.interaction(row)
    _fence(id, epoch, settled.epoch, settled.status)
    error, finish_reason, model = outcome
    if usage is not None:
        settled.usage = usage if settled.usage is None else settled.usage.plus(usage)
    settled.status = status
    settled.error = rows.load(error)
    settled.finish_reason = finish_reason
    settled.model = model or settled.model
    settled.finished_at = now if status in TERMINAL else None
    settled.epoch += epoch is None
    connection.execute(
        "UPDATE interactions SET status = ?, epoch = ?, usage = ?, error = ?, finish_reason = ?, model = ?,"
        " finished_at = ?, pending = CASE WHEN ? IS NULL THEN pending END, steps = steps + ? WHERE id = ?",
        (
            status,
            settled.epoch,
            rows.usage_text(settled.usage),
            error,
            finish_reason,
            settled.model,
            settled.finished_at,
            settled.finished_at,
            len(steps),
            id,
        ),
    )
    _insert_steps(connection, id, row[-1], steps)
    return settled


def place(connection: sqlite3.Connection, id: str, epoch: int, environment_id: str, isolation: str | None) -> None:
    """Note where a run takes place, on the interaction and its session."""
    row = connection.execute(
        "SELECT epoch, status, session_id FROM interactions WHERE id = ?", (rows.exact(id),)
    ).fetchone()
    if row is None:
        raise rows.missing(connection, "interaction", id)
    _fence(id, epoch, row[0], row[1])
    connection.execute(
        "UPDATE interactions SET environment_id = ?, isolation = coalesce(?, isolation) WHERE id = ?",
        (rows.clean(environment_id), isolation, id),
    )
    connection.execute("UPDATE sessions SET environment = ? WHERE id = ?", (rows.dump(environment_id), row[2]))


def steps_as_kept(steps: Sequence[Step], first: int, values: Sequence[rows.StepValues]) -> list[Step]:
    """Return the steps with the seq and time they were given."""
    return [
        Step(step.type, step.body, step.state, first + offset, value[1])
        for offset, (step, value) in enumerate(zip(steps, values, strict=True))
    ]


def _insert_steps(connection: sqlite3.Connection, id: str, first: int, steps: Sequence[rows.StepValues]) -> None:
    connection.executemany(_INSERT_STEP, [(id, first + offset, *values) for offset, values in enumerate(steps)])


def skip(previous: str, parent: Sequence[Any]) -> tuple[int, str, int]:
    """Choose a child's depth and skip ancestor (a skew-binary list: O(log n) to any ancestor, O(1) to extend)."""
    depth, skip_depth, far_id, far_depth, _ = parent
    if depth - skip_depth == skip_depth - far_depth:
        return depth + 1, far_id, far_depth
    return depth + 1, previous, depth


def _fence(id: str, epoch: int | None, current: int, status: Status) -> None:
    if status in TERMINAL:
        raise Fenced(
            f"interaction {id} is already {status}", repair="get_interaction shows its outcome.", id=id, status=status
        )
    if epoch is not None and epoch != current:
        raise Fenced(
            f"interaction {id} was claimed by a newer runner",
            repair="Stop: the newer one goes on.",
            id=id,
            epoch=current,
        )


def _session_gone(connection: sqlite3.Connection, id: str, now: float) -> InteractdError:
    row = connection.execute("SELECT expires_at, head FROM sessions WHERE id = ?", (id,)).fetchone()
    if row is None:
        return rows.missing(connection, "session", id)
    if row[0] is None or row[0] > now:
        return Conflict(f"session {id} has another head by now", repair="Read it again.", id=id, head=row[1])
    return Expired(
        f"session {id} has expired",
        repair="Start a new one with create_session, or fork_session to go on from it while it is still kept.",
        kind="session",
        id=id,
        expires_at=row[0],
    )


def _conflict(connection: sqlite3.Connection, interaction: Interaction) -> InteractdError:
    row = connection.execute(
        f"SELECT id, status FROM interactions WHERE session_id = ? AND {RUNNING}", (interaction.session_id,)
    ).fetchone()
    if row is None or interaction.status == "queued":
        return Conflict(f"there is an interaction {interaction.id} already", repair="Make a new id.", id=interaction.id)
    doing = "is running" if row[1] == "in_progress" else "waits for an answer"
    return Conflict(
        f"interaction {row[0]} of this session {doing}",
        repair=f"Wait with get_interaction({row[0]}), or cancel_interaction it, or send the turn with if_busy=queue.",
        interaction_id=row[0],
        status=row[1],
    )
