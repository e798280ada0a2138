"""The Store protocol: what the engine needs kept, and the promises a backend makes.

Every method is one transaction. A call that returns has committed: after kill -9 of the process its effect is
there (after power loss too where `durable` is said). A call that raises left nothing behind. Methods that change an
interaction take the `epoch` of the runner's claim and raise `Fenced` if a newer claim exists or the interaction is
already terminal; that check is in the same transaction as the write.
A call whose awaiting task is cancelled is carried out all the same: whoever must know its outcome shields it.

The store knows no engine: it enforces shape and order (one running interaction a session, one terminal status,
contiguous step numbers, fencing), the engine decides what to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from interactd.nouns import Interaction, Json, Session, Status, Step, Usage
from interactd.store.ledger_port import Bill, Ledger
from interactd.store.runners_port import Runners


@dataclass(slots=True)
class IdempotencyKey:
    """A caller's key for work that must start once. `digest` is a hash of the call's other arguments."""

    key: str
    digest: str
    owner: str = "local"


@dataclass(slots=True)
class Started:
    """What a start returned: the id, and whether it was made now or by an earlier call with the same key."""

    id: str
    created: bool


@dataclass(slots=True)
class Receipt:
    """What a delete removed; kept (as a tombstone without content) so that a second delete says the same."""

    id: str
    session_id: str
    deleted_at: float
    removed: dict[str, int] = field(default_factory=dict[str, int])
    """Rows by table, e.g. `{"interactions": 3, "steps": 12, "index_entries": 10}`."""
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    """Interactions that a fork still needs: `{"interactions": 2, "sessions": ["ses_..."]}`; else empty."""
    pending: bool = False
    """Whether bytes of it may still be on the disk: a large file is rewritten when the daemon is idle. Never for long;
    asked for again, the receipt says when it is done."""


@dataclass(slots=True)
class Turn:
    """An interaction with its steps, as history and transcripts read them."""

    interaction: Interaction
    steps: list[Step]


@dataclass(slots=True)
class Page:
    """One page of a listing; `cursor` goes into the next call, `None` at the end."""

    items: list[Any]
    cursor: str | None = None


@dataclass(slots=True)
class Hit:
    """One search result: where it is and a snippet with the matched words marked `[so]`."""

    session_id: str
    interaction_id: str
    seq: int
    type: str
    created_at: float
    snippet: str
    score: float
    session_title: str | None = None


class Store(Protocol):
    """Sessions, interactions and steps. Ids in are whole ids, except for `find`."""

    @property
    def ledger(self) -> Ledger:
        """What model calls cost."""
        ...

    async def open(self) -> None:
        """Create or migrate the database and start the writer.

        Raises:
            StorageError: the file is damaged, newer than this version, or on a file system that cannot hold it.
            StorageFull: no room.
        """
        ...

    async def aclose(self) -> None: ...

    # -- finding ---------------------------------------------------------------------------------------------
    async def find(self, kind: Literal["session", "interaction", "environment"], prefix: str) -> str:
        """Return the one id that starts with the (normalised) prefix, tombstones included.

        Raises:
            NotFound: none does.
            AmbiguousId: several do; `candidates` lists up to five.
        """
        ...

    @property
    def runners(self) -> Runners:
        """Who works on this store."""
        ...

    # -- sessions --------------------------------------------------------------------------------------------
    async def create_session(self, session: Session, key: IdempotencyKey | None = None) -> Started:
        """Insert a session. With a key seen in the last 24 h: return that session if the digest is the same.

        Raises:
            Conflict: the key was used with another digest, or for another kind of work.
        """
        ...

    async def get_session(self, session_id: str) -> Session:
        """Return the session, also when expired or deleted (then only id, times and state are left).

        `state` is computed on read: an active session whose `expires_at` has passed is `expired`.
        """
        ...

    async def list_sessions(
        self,
        *,
        owner: str = "local",
        state: Literal["active", "expired", "all"] = "active",
        labels: dict[str, str] | None = None,
        unread: bool = False,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Sessions, newest activity first. `unread`: only those with a finished, unread background result, also the
        ones of an `active` list that are kept for that alone."""
        ...

    async def fork_session(self, session: Session, key: IdempotencyKey | None = None) -> Started:
        """Insert `session`, whose head/forked_from/forked_at are set. O(1): no step is copied.

        Raises:
            NotFound: `forked_at` does not exist (any more).
            Conflict: as create_session.
        """
        ...

    async def set_approvals(self, session_id: str, approvals: Json | None) -> None:
        """Raises: NotFound, Deleted, Expired."""
        ...

    async def set_expiry(self, session_id: str, ttl_s: float | None, expires_at: float | None) -> None: ...

    async def delete_session(self, session_id: str, now: float) -> Receipt:
        """Remove every row and index entry of the session; leave a tombstone with the receipt, and hashes of the
        idempotency keys that were used in it, for their 24 hours.

        Interactions that another live session's path runs through move to that session instead. Deleting what is
        deleted returns the first receipt.

        Raises:
            NotFound: never existed.
            Conflict: an interaction of it is in progress (the engine cancels first).
        """
        ...

    async def sweep(self, now: float, *, limit: int = 100) -> list[Receipt]:
        """Delete up to `limit` sessions that expired, and idempotency keys older than 24 h.

        A session is left for later while an interaction of it runs, waits for an answer that is due some time, or has
        finished in the background and was read by nobody. A swept session's tombstone says `expired`.
        """
        ...

    async def recall(self, key: IdempotencyKey) -> str | None:
        """The id that an earlier call with this key (and the same digest) started, of whatever kind; `None` if none
        did. For answering a repeated call that could not be started afresh any more.

        Raises:
            Conflict: as create_session.
        """
        ...

    # -- interactions ----------------------------------------------------------------------------------------
    async def accept(
        self,
        interaction: Interaction,
        steps: Sequence[Step],
        *,
        expires_at: float | None,
        key: IdempotencyKey | None = None,
        pending: Json | None = None,
        durable: bool = False,
        at_head: bool = False,
    ) -> Started:
        """Accept a turn: insert the interaction with its input steps and move the session's head to it.

        `interaction.status` is `in_progress` (with epoch 1: the caller holds the first claim) or `queued`.
        `pending` is the first note of what is about to be done (see `append`); `claim` leaves a note as it is.
        The runner that joined becomes its owner. With `at_head` its `previous_interaction_id` must be the session's
        head still.
        An interaction with `agent` and `agent_hash` pins that hash in the session, unless that agent has one there.

        Raises:
            Conflict: `in_progress` while another interaction of the session runs or waits for action
                (`interaction_id` and `status` of it in the fields); or the key, as in create_session; or the head is
                another one by now (`head` in the fields).
            NotFound, Expired, Deleted: the session.
        """
        ...

    async def claim(
        self, interaction_id: str, *, from_status: Sequence[Status], now: float, epoch: int | None = None
    ) -> Interaction | None:
        """Take the interaction for running: epoch + 1, attempt + 1, status in_progress. `None` if it is in another
        status (or, where `epoch` is given, at another epoch: somebody else took it first), or if another interaction
        of its session is in progress."""
        ...

    async def answer(
        self,
        waits: Interaction,
        seen: int,
        steps: Sequence[Step],
        *,
        pending: Json,
        goes_on: bool,
        now: float,
        key: IdempotencyKey | None = None,
    ) -> tuple[Interaction, list[Step]] | None:
        """Append answers to an interaction that waits for them (`requires_action`), and where it `goes_on` take it for
        running, all at once: no crash may come in between, for what was asked would be asked again. `None` if it no
        longer waits as it did when it had `seen` steps: somebody else answered."""
        ...

    async def append(
        self,
        interaction_id: str,
        epoch: int,
        steps: Sequence[Step],
        *,
        pending: Json | None = None,
        durable: bool = False,
        bill: Bill | None = None,
        key: IdempotencyKey | None = None,
    ) -> list[Step]:
        """Append finished steps (seq assigned here) and replace the interaction's `pending` note: what is about to
        be done and has no outcome yet, e.g. `{"call": "model", "n": 2}`; `None` when nothing is. The bill is booked
        with them, and the key kept as one of kind `respond`.

        Raises:
            Fenced: see above.
            Conflict: the key was used.
        """
        ...

    async def requeue(
        self, interaction_id: str, epoch: int, *, pending: Json | None, bill: Bill | None = None
    ) -> Interaction:
        """Put a running interaction back into its session's line, with this note; the bill as for `settle`.

        Raises:
            Fenced: see above.
        """
        ...

    async def settle(
        self,
        interaction_id: str,
        epoch: int | None,
        status: Status,
        *,
        steps: Sequence[Step] = (),
        usage: Usage | None = None,
        error: Json | None = None,
        finish_reason: str | None = None,
        model: str | None = None,
        now: float,
        bill: Bill | None = None,
    ) -> Interaction:
        """End a run: append the last steps, set status and outcome and book the bill, in one transaction. Model calls
        that the bill does not name and nobody settled are settled at their worst.

        `epoch=None` (cancel from outside) settles whatever epoch runs, and bumps it so that the runner is fenced.
        Usage is added to what the interaction already has. Status may be terminal, or requires_action, which keeps the
        note of what was pending.

        Raises:
            Fenced: the epoch is old, or the interaction is already terminal.
        """
        ...

    async def place(
        self, interaction_id: str, epoch: int, *, environment_id: str, isolation: Json | None = None
    ) -> None:
        """Note where an agent's run takes place: on the interaction, and as its session's environment from now on.
        `isolation=None` leaves what is noted.

        Raises:
            Fenced: see above.
        """
        ...

    async def get_interaction(self, interaction_id: str) -> Interaction:
        """Raises: NotFound; Deleted or Expired when its session was removed."""
        ...

    async def get_steps(self, interaction_id: str, *, after: int = -1, limit: int | None = None) -> list[Step]: ...

    async def pending(self, interaction_id: str) -> Json | None:
        """The note left by `append`/`accept`, or `None`."""
        ...

    async def active(self, session_id: str) -> list[Interaction]:
        """Interactions of the session that are queued, in progress or waiting for action, oldest first."""
        ...

    async def unfinished(self) -> list[Interaction]:
        """All interactions in progress or queued, oldest first: what a restarted daemon must look at."""
        ...

    async def mark_read(self, interaction_id: str, now: float, *, grace_s: float = 0.0) -> None:
        """Note when a finished result was first fetched. The session of one that ran in the background lives for at
        least `grace_s` from then on, also one whose time was over."""
        ...

    async def list_interactions(
        self,
        which: Literal["unread", "waiting", "running", "open"],
        *,
        owner: str = "local",
        session_id: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> tuple[list[Interaction], int]:
        """Interactions, oldest first, and how many there are in all: `unread` are finished in the background and read
        by nobody, `waiting` wait for somebody's answer, `running` are queued or in progress in the background, `open`
        are queued, in progress or waiting, whoever waits for them."""
        ...

    async def due(self) -> list[tuple[str, float | None]]:
        """Interactions that wait for answers, and when their note says that a first one is due (`{"due": time}`)."""
        ...

    async def descendants(self, interaction_id: str) -> list[Interaction]:
        """Open interactions that this one started (`parent_id`), directly or not."""
        ...

    async def count_unread(self, *, owner: str = "local") -> int:
        """Finished background interactions that nobody fetched."""
        ...

    # -- history ---------------------------------------------------------------------------------------------
    async def path(self, head: str, *, limit: int, before: str | None = None, with_steps: bool = True) -> list[Turn]:
        """Walk back from `head` (or from the one before `before`) along previous_interaction_id.

        Returns up to `limit` turns, oldest first. Costs O(limit), whatever the length of the history.
        """
        ...

    async def contains(self, head: str, interaction_id: str) -> bool:
        """Whether `interaction_id` is on the path that ends at `head`."""
        ...

    async def search(
        self,
        query: str,
        *,
        owner: str = "local",
        session_id: str | None = None,
        types: Sequence[str] | None = None,
        limit: int = 10,
        cursor: str | None = None,
    ) -> Page:
        """Full-text search over steps, best first, as `Hit`s. Any text is a legal query: words are ANDed, a
        "quoted phrase" stays together, a trailing * is a prefix; nothing else is syntax. Steps accepted before the
        call are found."""
        ...

    # -- environments and artifacts (rows as plain JSON: the store knows no sandbox) ---------------------------
    async def put_environment(self, row: Json, *, unless: Sequence[str] = ()) -> bool:
        """Insert or replace an environment's row: `{"id", "owner", "status", "created_at", "last_used_at",
        "expires_at", "forked_from", "size_bytes", "file_count", "body"}`. With `unless`: only if the row that is
        there has none of these statuses; returns whether it was written."""
        ...

    async def get_environment(self, environment_id: str) -> Json | None:
        """The row, whatever its status; None if there never was one."""
        ...

    async def list_environments(
        self,
        *,
        owner: str | None = None,
        statuses: Sequence[str] = ("active",),
        expired_at: float | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Json]:
        """Rows, last used first, after the one with the id `after`. `expired_at`: only those expired by then."""
        ...

    async def forget_environment(self, environment_id: str) -> None:
        """Remove the row without a trace: for one that was never given to anybody."""
        ...

    async def put_artifacts(
        self, interaction_id: str, environment_id: str, artifacts: Sequence[Json], left_out: Sequence[Json], now: float
    ) -> None:
        """Tie kept files to an interaction: `{"id", "name", "sha256", "size_bytes", "mime_type", "created_at"}`;
        one of a name that is there already replaces it. They go with the interaction's session.

        Raises:
            NotFound, Deleted, Expired: the interaction.
        """
        ...

    async def list_artifacts(self, interaction_id: str) -> tuple[list[Json], list[Json]]:
        """The kept files by name, and what was left out."""
        ...

    async def add_requests(self, interaction_id: str, entries: Sequence[Json]) -> None:
        """Keep what a run asked of the network. It goes with the interaction's session."""
        ...

    async def list_requests(self, interaction_id: str) -> list[Json]:
        """What was kept so, oldest first; empty for a run that asked for nothing, or that is unknown."""
        ...

    async def kept_contents(self) -> set[str]:
        """Every sha256 that some row refers to."""
        ...

    async def lost_contents(self, *, limit: int = 1000) -> list[str]:
        """Contents that rows referred to and none does any more: their files can go."""
        ...

    async def forget_contents(self, sha256: Sequence[str]) -> None:
        """Their files are gone."""
        ...

    # -- health ----------------------------------------------------------------------------------------------
    async def stats(self) -> Json:
        """`{"path", "bytes", "wal_bytes", "free_bytes", "sessions", "interactions", "steps", "schema",
        "sqlite"}`."""
        ...

    async def check(self) -> None:
        """Prove that a write can be made now. Raises: StorageFull, StorageError."""
        ...

    # -- small settings --------------------------------------------------------------------------------------
    async def get_setting(self, name: str) -> Any: ...

    async def put_setting(self, name: str, value: Any) -> None: ...
