"""What an export reads of a store and an import writes to it: records, which are rows as plain JSON.

A record has the columns' own names, JSON columns as what they hold, and leaves out what is NULL, what belongs to this
machine alone (claims, the tree's shortcuts), and the owner. The same rows give the same records on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from interactd.nouns import Json

RecordKind = Literal[
    "sessions",
    "interactions",
    "steps",
    "artifacts",
    "captures",
    "environments",
    "requests",
    "ledger",
    "spent",
    "triggers",
]
FIRST_KINDS: Final[tuple[RecordKind, ...]] = (
    "sessions",
    "interactions",
    "steps",
    "artifacts",
    "captures",
    "environments",
)
"""All that archives of version 1 have."""
KINDS: Final[tuple[RecordKind, ...]] = (*FIRST_KINDS, "requests", "ledger", "spent", "triggers")
"""In the order in which an archive has them: what a record refers to comes before it, but for environments."""
PutKind = Literal["interactions", "steps", "artifacts", "captures", "requests", "ledger", "spent"]
"""What an import puts in before its end."""


class BadRecord(ValueError):
    """A record that no row can be made of; the message says which field, and what was expected."""


class Snapshot(Protocol):
    """One state of the store, however long the reading takes. Blocking: for a thread of its own."""

    def records(self, kind: RecordKind) -> Iterator[Json]:
        """Every record of a kind that belongs to the chosen sessions, in an order that depends on nothing but them.

        Turns that a chosen session inherited from one that is not chosen count as the oldest heir's own.
        """
        ...

    def agents(self) -> list[str]:
        """The hashes of all agents that the chosen sessions pin or that took turns in them."""
        ...

    def left_out(self) -> dict[str, list[Json]]:
        """What no archive holds although it was asked for everything, by kind, as far as it may be told: webhooks,
        whose secrets and URLs stay where they are."""
        ...

    def contents(self) -> Iterator[tuple[str, int]]:
        """The sha256 and size of every content that artifacts refer to, in order, each once."""
        ...


@dataclass(slots=True)
class Found:
    """What is there already under the ids of an archive."""

    same: set[str] = field(default_factory=set[str])
    different: dict[str, str] = field(default_factory=dict[str, str])
    """Id -> in which field."""
    moved: dict[str, str] = field(default_factory=dict[str, str])
    """Interactions that are the same, but belong to another session here: id -> that session."""
    gone: dict[str, str] = field(default_factory=dict[str, str])
    """Ids that were deleted or expired here -> which of the two."""


CompareKind = Literal["sessions", "interactions", "environments", "triggers"]


@dataclass(slots=True)
class Journal:
    """An import under way: what a crash leaves of it is undone once its runner is dead."""

    id: str
    sessions: list[str]
    """Sessions that it makes; their turns are there before they are, and nobody sees a turn without a session."""
    started_at: float
    runner: str | None = None
    """The daemon that is at it."""


@dataclass(slots=True)
class Last:
    """What an import does at its end, in one transaction: only now is any of it seen."""

    sessions: list[Json] = field(default_factory=list[Json])
    environments: list[Json] = field(default_factory=list[Json])
    moved: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Interactions that are here already and go to a session of the archive: (interaction, session)."""
    restored: list[str] = field(default_factory=list[str])
    """Sessions whose tombstones go, with those of their turns; what they cost is in their lines of the ledger again."""
    triggers: list[Json] = field(default_factory=list[Json])


class Archive(Protocol):
    """Reading and writing many rows at once, beside the daemon's ordinary work."""

    @property
    def folder(self) -> Path:
        """The data folder, where exports and what an import needs on the way can lie."""
        ...

    def snapshot(self, owner: str, sessions: Sequence[str] | None) -> AbstractContextManager[Snapshot]:
        """Open one. Blocking.

        Args:
            owner: whose.
            sessions: whole ids of sessions that are there; None for all of the owner's.

        Raises:
            StorageError: the database cannot be read.
        """
        ...

    def checker(self, owner: str) -> Callable[[RecordKind, Json], None]:
        """Return what checks records against the columns of this store. Blocking.

        The function raises `BadRecord`.
        """
        ...

    async def compare(self, kind: CompareKind, records: Sequence[tuple[Json, bytes | None]]) -> Found:
        """Look for records' ids here. With an interaction comes the digest of its steps (`digest_of_steps`). A trigger
        that is here is the same, whatever became of it since."""
        ...

    # -- writing an import -----------------------------------------------------------------------------------
    async def begin(self, journal: Journal) -> None:
        """Note that an import is under way.

        Raises:
            Conflict: another one is.
        """
        ...

    async def put(self, journal: Journal, kind: PutKind, records: Sequence[Json]) -> None:
        """Insert some rows. Interactions come after the ones they go on from; lines of the ledger count for nobody
        until the end.

        Raises:
            Conflict: the import was undone by another daemon.
            BadRecord: a row that the store refuses.
        """
        ...

    async def finish(self, journal: Journal, last: Last, owner: str) -> None:
        """Do what is left, and make everything seen, at once. Raises: as `put`."""
        ...

    async def undo(self, journal_id: str | None = None, *, living: Collection[str] = ()) -> bool:
        """Remove what an import left that did not finish; returns whether there was one. None: whichever there is, but
        for one that a living runner is at."""
        ...


def digest_of_steps() -> Any:
    """Return a hash that is fed with each step's line, in order."""
    import hashlib

    return hashlib.blake2b(digest_size=16)
