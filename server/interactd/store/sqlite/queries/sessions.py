"""Sessions: create, read, list, fork, and the idempotency keys of everything that starts work."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal

from interactd.errors import AmbiguousId, Conflict, InvalidArgument, NotFound
from interactd.nouns import Json, Session
from interactd.store.port import IdempotencyKey, Page, Receipt, Started
from interactd.store.sqlite.queries import rows

KEY_LIFE_S: Final = 24 * 3600.0
PAGE_MAX: Final = 1000
StartKind = Literal[
    "create_session", "fork_session", "send_turn", "respond", "create_trigger", "run_trigger", "create_webhook"
]


def find(connection: sqlite3.Connection, kind: Literal["session", "interaction", "environment"], prefix: str) -> str:
    """The one id with this prefix, tombstones included."""
    first = rows.exact(prefix)
    table = f"{kind}s"
    found = connection.execute(
        f"SELECT id FROM {table} WHERE id >= :first AND id < :last"
        " UNION SELECT id FROM tombstones WHERE id >= :first AND id < :last AND kind = :kind ORDER BY id LIMIT 6",
        {"first": first, "last": first + "\U0010ffff", "kind": kind},
    ).fetchall()
    ids: list[str] = [row[0] for row in found]
    if not ids:
        raise rows.missing(connection, kind, prefix)
    if len(ids) > 1 and ids[0] != first:
        raise AmbiguousId(
            f"several {kind}s start with {prefix}",
            repair=f"Give more of the id: {', '.join(ids[:5])}.",
            kind=kind,
            candidates=ids[:5],
        )
    return ids[0]


def started_before(
    connection: sqlite3.Connection, kind: StartKind, key: IdempotencyKey | None, now: float
) -> Started | None:
    """What an earlier call with this key started, if one did in the last 24 hours.

    Raises:
        Conflict: the key was used for something else.
    """
    if key is None:
        return None
    names = (rows.exact(key.owner), rows.exact(key.key), orphan(key.key))
    row = connection.execute(
        "SELECT kind, digest, target_id, created_at FROM idempotency_keys WHERE owner = ? AND key IN (?, ?)", names
    ).fetchone()
    if row is None:
        return None
    if row[3] <= now - KEY_LIFE_S:
        connection.execute("DELETE FROM idempotency_keys WHERE owner = ? AND key IN (?, ?)", names)
        return None
    if row[0] != kind or row[1] != rows.exact(key.digest):
        raise Conflict(
            f"this idempotency_key was used {'for another kind of call' if row[0] != kind else 'with other arguments'}"
            f" and started {row[2]}",
            repair="Use a new key for new work, or repeat the first call exactly.",
            started=row[2],
        )
    return Started(row[2], created=False)


def recall(connection: sqlite3.Connection, key: IdempotencyKey, now: float) -> str | None:
    """The id that an earlier call with this key started, of whatever kind.

    Raises:
        Conflict: the key was used with other arguments.
    """
    row = connection.execute(
        "SELECT kind FROM idempotency_keys WHERE owner = ? AND key IN (?, ?) AND created_at > ?",
        (rows.exact(key.owner), rows.exact(key.key), orphan(key.key), now - KEY_LIFE_S),
    ).fetchone()
    before = None if row is None else started_before(connection, row[0], key, now)
    return None if before is None else before.id


def orphan(key: str) -> str:
    """What is kept of a key whose session is gone: nothing that somebody wrote."""
    return "sha256:" + hashlib.sha256(rows.exact(key).encode()).hexdigest()


def keep_key(
    connection: sqlite3.Connection,
    kind: StartKind,
    key: IdempotencyKey | None,
    target_id: str,
    session_id: str,
    now: float,
) -> None:
    """Remember what the key started."""
    if key is not None:
        connection.execute(
            "INSERT INTO idempotency_keys (owner, key, kind, digest, target_id, session_id, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (rows.exact(key.owner), rows.exact(key.key), kind, rows.exact(key.digest), target_id, session_id, now),
        )


def insert(
    connection: sqlite3.Connection, kind: StartKind, values: Sequence[Any], key: IdempotencyKey | None
) -> Started:
    """Insert a session (`rows.session_values`) as it is, unless its key says that it was."""
    id, created_at = values[0], values[1]
    if before := started_before(connection, kind, key, created_at):
        return before
    try:
        connection.execute(f"INSERT INTO sessions ({rows.SESSION}) VALUES ({', '.join('?' * len(values))})", values)
    except sqlite3.IntegrityError as error:
        raise Conflict(f"there is a session {id} already", repair="Make a new id.", id=id) from error
    keep_key(connection, kind, key, id, id, created_at)
    return Started(id, created=True)


def fork(connection: sqlite3.Connection, values: Sequence[Any], key: IdempotencyKey | None) -> Started:
    """Insert a session that begins at an interaction of another one. Nothing is copied."""
    if before := started_before(connection, "fork_session", key, values[1]):
        return before
    forked_at: str | None = values[16]
    row = connection.execute("SELECT depth FROM interactions WHERE id = ?", (forked_at,)).fetchone()
    if row is None:
        if forked_at is None:
            raise NotFound("a fork needs the interaction to begin at", kind="interaction", id=None)
        raise rows.missing(connection, "interaction", forked_at)
    # The path's length is the store's to know, whatever the caller counted.
    return insert(connection, "fork_session", (*values[:13], forked_at, row[0], *values[15:]), key)


def pin(connection: sqlite3.Connection, id: str, agent: str, agent_hash: str) -> None:
    """Keep the content that an agent had at its first turn in the session."""
    row = connection.execute("SELECT agent_pins FROM sessions WHERE id = ?", (id,)).fetchone()
    pins: dict[str, str] = rows.load(row[0]) or {}
    if agent not in pins:
        pins[agent] = agent_hash
        connection.execute("UPDATE sessions SET agent_pins = ? WHERE id = ?", (rows.dump(pins), id))


def get(connection: sqlite3.Connection, id: str, now: float) -> Session:
    """The session, or what a tombstone tells of it."""
    row = connection.execute(f"SELECT {rows.SESSION} FROM sessions WHERE id = ?", (rows.exact(id),)).fetchone()
    if row is not None:
        return rows.session(row, now)
    stone = connection.execute(
        "SELECT created_at, deleted_at, owner, reason FROM tombstones WHERE id = ? AND kind = 'session'",
        (rows.exact(id),),
    ).fetchone()
    if stone is None:
        raise rows.missing(connection, "session", id)
    return Session(
        id,
        stone[0],
        stone[1],
        owner=stone[2],
        state="expired" if stone[3] == "expired" else "deleted",
        deleted_at=stone[1],
    )


def receipt(connection: sqlite3.Connection, session_id: str) -> Receipt | None:
    """The receipt of a session that was deleted or swept."""
    row = connection.execute(
        "SELECT receipt FROM tombstones WHERE id = ? AND kind = 'session'", (rows.exact(session_id),)
    ).fetchone()
    return None if row is None else Receipt(**rows.load(row[0]))


def page(
    connection: sqlite3.Connection,
    *,
    owner: str,
    state: Literal["active", "expired", "all"],
    labels: dict[str, str] | None,
    unread: bool,
    limit: int,
    cursor: str | None,
    now: float,
) -> Page:
    """Sessions, newest activity first."""
    limit = max(1, min(limit, PAGE_MAX))
    where, values = ["owner = ?"], [rows.exact(owner)]
    arguments: list[Any] = values
    if state == "active" and not unread:
        where.append("(expires_at IS NULL OR expires_at > ?)")
        arguments.append(now)
    elif state == "expired":
        where.append("expires_at <= ?")
        arguments.append(now)
    for name, value in rows.clean_labels(labels or {}).items():
        where.append("EXISTS (SELECT 1 FROM json_each(sessions.labels) WHERE key = ? AND value = ?)")
        arguments += [name, value]
    if unread:
        where.append(
            "EXISTS (SELECT 1 FROM interactions WHERE session_id = sessions.id"
            " AND background = 1 AND read_at IS NULL AND finished_at IS NOT NULL)"
        )
    if cursor is not None:
        where.append("(updated_at, id) < (?, ?)")
        arguments += _after(cursor)
    found = connection.execute(
        f"SELECT {rows.SESSION} FROM sessions WHERE {' AND '.join(where)} ORDER BY updated_at DESC, id DESC LIMIT ?",
        (*arguments, limit + 1),
    ).fetchall()
    items = [rows.session(row, now) for row in found[:limit]]
    more = len(found) > limit
    return Page(items, json.dumps([items[-1].updated_at, items[-1].id]) if more else None)


def set_expiry(connection: sqlite3.Connection, id: str, ttl_s: float | None, expires_at: float | None) -> None:
    """Change how long the session is kept."""
    done = connection.execute(
        # A session that is being emptied has 0 there, and stays on its way out.
        "UPDATE sessions SET ttl_s = ?, expires_at = ? WHERE id = ? AND expires_at IS NOT 0",
        (ttl_s, expires_at, rows.exact(id)),
    )
    if done.rowcount == 0:
        raise rows.missing(connection, "session", id)


def set_approvals(connection: sqlite3.Connection, id: str, approvals: Json | None) -> None:
    """Change what the session's turns have to ask before doing."""
    values = (rows.dump_some(approvals), rows.exact(id))
    if connection.execute("UPDATE sessions SET approvals = ? WHERE id = ?", values).rowcount == 0:
        raise rows.missing(connection, "session", id)


def set_budget(connection: sqlite3.Connection, id: str, budget: str | None) -> None:
    """Replace what the session's turns together may cost."""
    done = connection.execute("UPDATE sessions SET budget = ? WHERE id = ?", (budget, rows.exact(id)))
    if done.rowcount == 0:
        raise rows.missing(connection, "session", id)


def _after(cursor: str) -> list[Any]:
    try:
        updated_at, id = json.loads(cursor)
        return [float(updated_at), rows.exact(str(id))]
    except (ValueError, TypeError) as error:
        raise InvalidArgument(
            "cursor: not one that list_sessions gave",
            repair="Pass the cursor of the last page as it was, or none for the first page.",
            field="cursor",
        ) from error
