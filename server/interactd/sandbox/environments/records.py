"""Environments as the store keeps them, and what is said of those that are no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

from interactd.errors import Deleted, Expired, InteractdError, NotFound
from interactd.nouns import Json
from interactd.sandbox.environments_port import Environment

KEEP_S: Final = 7 * 86_400.0
LEASES: Final = 16
"""How many unfinished runs an environment remembers the beginning of."""


class Records(Protocol):
    """The part of `interactd.store.port.Store` that is needed here; see there."""

    async def check(self) -> None: ...
    async def find(self, kind: Literal["environment"], prefix: str) -> str: ...
    async def put_environment(self, row: Json, *, unless: Sequence[str] = ()) -> bool: ...
    async def get_environment(self, environment_id: str) -> Json | None: ...
    async def list_environments(
        self,
        *,
        owner: str | None = None,
        statuses: Sequence[str] = ("active",),
        expired_at: float | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Json]: ...
    async def forget_environment(self, environment_id: str) -> None: ...
    async def put_artifacts(
        self, interaction_id: str, environment_id: str, artifacts: Sequence[Json], left_out: Sequence[Json], now: float
    ) -> None: ...
    async def list_artifacts(self, interaction_id: str) -> tuple[list[Json], list[Json]]: ...
    async def kept_contents(self) -> set[str]: ...
    async def lost_contents(self, *, limit: int = 1000) -> list[str]: ...
    async def forget_contents(self, sha256: Sequence[str]) -> None: ...


def environment(row: Json) -> Environment:
    """Return the noun of a row."""
    body: Json = row["body"]
    status: Any = row["status"] if row["status"] in ("active", "expired") else "deleted"
    return Environment(
        id=row["id"],
        owner=row["owner"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        status=status,
        sources=body.get("sources") or [],
        env=body.get("env") or {},
        network=body.get("network"),
        limits=body.get("limits") or {},
        approvals=body.get("approvals") or [],
        forked_from=row["forked_from"],
        size_bytes=row["size_bytes"],
        file_count=row["file_count"],
    )


def gone(row: Json | None, id: str) -> InteractdError:
    """Return the error for an environment that cannot be used (any more)."""
    repair = "Leave the environment out to get a new one, or list those there are."
    if row is None or row["status"] == "creating":
        return NotFound(f"there is no environment {id}", repair=repair, kind="environment", id=id)
    if row["status"] in ("expired", "active", "expiring"):
        return Expired(
            f"environment {id} expired: it was not used for 7 days, and its files were removed",
            repair=repair,
            kind="environment",
            id=id,
            last_used_at=row["last_used_at"],
        )
    return Deleted(
        f"environment {id} was deleted",
        repair=repair,
        kind="environment",
        id=id,
        receipt=row["body"].get("receipt"),
    )


def tombstone(row: Json, status: str, receipt: Json | None) -> Json:
    """Return the row that is left of an environment: no sources, no variables."""
    return {**row, "status": status, "body": {"receipt": receipt} if receipt else {}}


def begin_run(row: Json, interaction_id: str, now_ns: int) -> int:
    """Note in the row when a run began, and return it: a run that goes on after a pause or a crash began earlier."""
    runs: dict[str, int] = dict(row["body"].get("runs") or {})
    since = runs.pop(interaction_id, now_ns)
    row["body"] = {**row["body"], "runs": {**dict(list(runs.items())[-LEASES + 1 :]), interaction_id: since}}
    return since
