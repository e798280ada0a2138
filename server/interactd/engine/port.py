"""What the engine offers its faces: the tools, the control socket and the HTTP faces call nothing else.

Every id argument may be shortened to a unique prefix. All methods raise `InteractdError`s only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from interactd.agents.port import AgentDefinition, AgentProblem
from interactd.durable.port import Schedules
from interactd.engine.archive.answers import Exported, Imported, Progress
from interactd.models.port import ModelInfo
from interactd.nouns import LOCAL, Caller, GenerationConfig, Interaction, Json, Session, Step
from interactd.sandbox.environments_port import Artifact, Environments
from interactd.store.port import Page, Receipt, Turn


@dataclass(slots=True)
class Result:
    """An interaction as a caller sees it now: the row, its steps so far, and how it stands in its session.

    `partial_text` is the text of a model_output step that is still being streamed (not yet journalled).
    """

    session: Session
    interaction: Interaction
    steps: list[Step]
    partial_text: str = ""
    printed: str = ""
    """The end of what the code that runs now has printed (not yet journalled)."""
    queue_position: int | None = None
    queue_reason: str | None = None
    """Why it does not run yet, in a few words; `None` when it does."""
    waiting_for: list[Json] = field(default_factory=list[Json])
    """For requires_action: the calls without a result, `{"id", "name", "arguments"}` and, where it is not a function of
    the caller's but one of the agent's own tools that may not run unasked, `"kind"` and `"question"`:

    - `approval`: a policy (the agent's, its environment's, the session's, the turn's) wants it allowed first.
    - `replay`: the daemon died during this call, and nobody knows whether it took effect; shall it run again?

    `question` is the sentence to put to the user; `deadline` (UTC) and `default` say until when, and what holds when
    nobody answers. Both are answered through `respond` with `"allow"` or `"deny"`, or with `{"decision": "allow" |
    "deny", "scope"?: "call" | "run" | "session", "reason"?: text}`; the agent is told the reason.
    """
    cost: Json | None = None
    """What it has cost, and what is left of the budgets that it is under (`engine.money.Money.cost`)."""
    replayed: bool = False
    """True when an idempotency key gave an earlier call's interaction."""

    @property
    def agent(self) -> str | None:
        return self.interaction.agent

    @property
    def environment_id(self) -> str | None:
        """Where an agent's turn takes or took place."""
        return self.interaction.environment_id

    @property
    def isolation(self) -> Json | None:
        """What the run truly had (`Isolation.as_dict()`)."""
        return self.interaction.isolation


@dataclass(slots=True)
class Inbox:
    """What waits for the caller, oldest first, and how much of it there is in all.

    `unread` are turns that ended in the background and nobody read; `waiting` those that want an answer; `running`
    those that are queued or in progress in the background, and will be unread when they end.
    """

    unread: list[Interaction]
    waiting: list[Result]
    unread_total: int = 0
    waiting_total: int = 0
    running: list[Interaction] = field(default_factory=list[Interaction])
    running_total: int = 0


@dataclass(slots=True)
class Standing:
    """An interaction that runs or waits, and why it waits."""

    interaction: Interaction
    queue_position: int | None = None
    queue_reason: str | None = None


@dataclass(slots=True)
class Event:
    """A live event of one interaction, in order: `step.start`, `step.delta`, `step.stop`, `interaction.status`.

    `data` has the Interactions API's payload for that event. `seq` grows, with gaps, and outlives the daemon: see
    `Engine.events`. `step.stop` comes when the step is journalled, once; `step.start` of an index that was begun before
    begins it, and all after it, anew (the daemon that had begun it died).
    """

    seq: int
    type: str
    data: Json


class Engine(Protocol):
    """Sessions, turns, forks, cancel, search. One instance per daemon."""

    async def start(self) -> None:
        """Open the store, take up what a crash or upgrade left unfinished, start the sweeper."""
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Stop taking new turns and wait for running steps to be journalled; True when nothing runs."""
        ...

    async def aclose(self) -> None: ...

    @property
    def busy(self) -> int:
        """How many interactions run or are queued now."""
        ...

    @property
    def holding(self) -> int:
        """How many things have a time at which this daemon must be there although nothing runs: active triggers,
        deliveries, questions with a deadline."""
        ...

    async def create_session(
        self,
        *,
        model: str | None = None,
        agent: str | None = None,
        environment: str | Json | None = None,
        system_instruction: str | None = None,
        generation_config: GenerationConfig | None = None,
        tools: list[Json] | None = None,
        ttl_s: float | None = None,
        title: str | None = None,
        labels: dict[str, str] | None = None,
        budget: Json | None = None,
        approvals: str | Json | None = None,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Session:
        """Create a session. `model=None` is `auto`; it is resolved now, so that a wrong name fails here, and the
        resolved `provider/name` is what the session keeps. `ttl_s=None` is the configured default (24 h); 0 keeps
        it for ever.

        With `agent` its turns are that agent's, on `model` when one is given as well (over the agent's own), in
        `environment`: an id, or the body that the first agent turn makes one from.

        `budget` (`Session.budget`) is for all its turns together; `approvals` is the policy of its turns: a word or an
        object (`interactd.approvals`), which can only make the agent's stricter."""
        ...

    async def send_turn(
        self,
        session_id: str,
        content: str | list[Json],
        *,
        previous_interaction_id: str | None = None,
        model: str | None = None,
        agent: str | None = None,
        environment: str | Json | None = None,
        limits: Json | None = None,
        system_instruction: str | None = None,
        generation_config: GenerationConfig | None = None,
        tools: list[Json] | None = None,
        background: bool = False,
        budget: Json | None = None,
        approvals: str | Json | None = None,
        dispatch: Json | None = None,
        if_busy: Literal["conflict", "queue"] = "conflict",
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Result:
        """Accept a turn, start it, and return at once (it runs on whoever waits). `previous_interaction_id` goes
        on from an earlier point of the session's own tree instead of its head.

        `agent` or `model`, not both, says who takes this turn; the session's default else. `environment` (an id or a
        body) is where an agent's turn takes place, and where the session's later ones do. `limits` is
        `{"steps"?, "tokens"?, "seconds"?}`, put over the agent's own (`RunLimits`), for this turn.

        `budget`, `approvals` and `dispatch` are the turn's own terms (`engine.checks.terms`)."""
        ...

    async def wait(self, interaction_id: str, timeout_s: float, *, caller: Caller = LOCAL) -> Result:
        """Return when the interaction is no longer queued or in progress, or when the time is up; marks a
        finished one as read. Cancelling this call does not touch the interaction."""
        ...

    def events(self, interaction_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """The steps so far, then live events, ending when the interaction rests. With the `seq` of the last event that
        was had, from this daemon or an earlier one, as `after`: those that were not."""
        ...

    async def respond(
        self,
        interaction_id: str,
        results: list[Json],
        *,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Result:
        """Give function results `{"call_id", "result", "is_error"?}` to a requires_action interaction; when none
        is missing it goes on. Returns at once, as send_turn does. See `Result.waiting_for` for approvals."""
        ...

    async def cancel(self, interaction_id: str, *, caller: Caller = LOCAL) -> Result:
        """Stop a queued, running or waiting interaction and all that it started; what it made is kept. Idempotent; a
        terminal one is returned as it is. Its files may still be on their way to the artifacts when this returns."""
        ...

    async def cancel_all(self, *, session_id: str | None = None, caller: Caller = LOCAL) -> list[str]:
        """Cancel everything of the caller's that is queued, runs or waits; returns the ids."""
        ...

    async def inbox(
        self, *, session_id: str | None = None, limit: int = 50, wait_s: float = 0, caller: Caller = LOCAL
    ) -> Inbox:
        """What waits for the caller. Looking at it reads nothing: use `wait` or `get_interaction` for that.

        Where nothing is unread but something runs in the background, it is looked again for `wait_s` seconds until one
        of those has ended or asks something."""
        ...

    async def get_interaction(self, interaction_id: str, *, caller: Caller = LOCAL) -> Result: ...

    async def queue(self, *, limit: int = 100, caller: Caller = LOCAL) -> list[Standing]:
        """What runs and what waits, in the order in which it was accepted, with the reason for waiting."""
        ...

    async def get_session(self, session_id: str, *, caller: Caller = LOCAL) -> Session: ...

    async def transcript(
        self, session_id: str, *, limit: int = 10, before: str | None = None, caller: Caller = LOCAL
    ) -> tuple[Session, list[Turn]]:
        """The session and up to `limit` turns that end at its head (or just before the turn `before`)."""
        ...

    async def list_sessions(
        self,
        *,
        state: Literal["active", "expired", "all"] = "active",
        labels: dict[str, str] | None = None,
        unread: bool = False,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page: ...

    async def fork_session(
        self,
        session_id: str,
        *,
        at: str | None = None,
        title: str | None = None,
        model: str | None = None,
        ttl_s: float | None = None,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Session:
        """A new session whose head is `at` (any interaction on the path; default: the head). O(1)."""
        ...

    async def delete_session(self, session_id: str, *, caller: Caller = LOCAL) -> Receipt:
        """Cancel what runs in it and remove it."""
        ...

    async def keep_session(self, session_id: str, ttl_s: float | None = None, *, caller: Caller = LOCAL) -> Session:
        """Give a session another time to live, which begins now: seconds, 0 for ever, `None` the default. Also one that
        has expired, as long as it is there."""
        ...

    async def export_data(
        self,
        session_ids: list[str] | None = None,
        *,
        path: str | None = None,
        with_environments: bool = False,
        replace: bool = False,
        wait_s: float | None = None,
        progress: Progress | None = None,
        caller: Caller = LOCAL,
    ) -> Exported | None:
        """Write sessions (`None`: everything of the caller's) with all that belongs to them into one zip.

        Args:
            path: the file, or a folder to put it into; `None` is the data folder's `exports`.
            with_environments: the files of workspaces too.
            replace: write over a file that is there.
            wait_s: return `None` when it is not done by then; it goes on, and the same call finds it again. Without it
                the call waits to the end, and cancelling it stops the work and leaves nothing.
            progress: told now and then what is being written.

        Raises: NotFound, AmbiguousId, Deleted, Expired (a session); Conflict, StorageFull, StorageError.
        """
        ...

    async def import_data(
        self,
        path: str,
        *,
        dry_run: bool = False,
        as_new: bool = False,
        restore: bool = False,
        wait_s: float | None = None,
        progress: Progress | None = None,
        caller: Caller = LOCAL,
    ) -> Imported | None:
        """Bring in what `export_data` wrote, whole or not at all. What is here and equal is skipped.

        Args:
            path: the file, or the name or `interactd://exports/` URI of an export of this machine.
            dry_run: check everything, keep nothing.
            as_new: give everything new ids.
            restore: bring back what was deleted or had expired here.
            wait_s, progress: as in `export_data`.

        Raises:
            InvalidArgument: it is no archive, or a damaged or hostile one; `member` and `line` say where.
            Conflict: something here differs from it, or was deleted here.
            NotFound, StorageFull, StorageError.
        """
        ...

    async def read_export(
        self, name: str, *, offset: int = 0, limit: int = 1_000_000, caller: Caller = LOCAL
    ) -> tuple[int, bytes]:
        """The size of an export in the data folder, and up to `limit` of its bytes from `offset`. Raises: NotFound."""
        ...

    async def storage(self, *, caller: Caller = LOCAL) -> Json:
        """What takes how much, and what goes when: `{"database", "files", "total_bytes", "expiring", "retention",
        "clock_doubted"}`."""
        ...

    async def vacuum(self, *, caller: Caller = LOCAL) -> Json:
        """Rewrite the database without its unused parts. Raises: StorageFull: no room to do it in."""
        ...

    async def search(
        self,
        query: str,
        *,
        session_id: str | None = None,
        limit: int = 10,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page: ...

    async def agents(self, *, caller: Caller = LOCAL) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        """Every agent that can be used from the caller's folder, and what is wrong with the rest."""
        ...

    async def artifacts(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Artifact]:
        """The files that were kept of an agent's turn, by name; empty while it runs.

        Raises: NotFound, AmbiguousId, Expired, Deleted (the interaction or its session).
        """
        ...

    async def requests(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Json]:
        """What an agent's turn asked of the network until now, allowed or not: `{"at", "method", "host", "port",
        "verdict", "reason", "bytes", "ms"}`; what runs still is told of when it ends. Raises: as above."""
        ...

    async def left_out(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Json]:
        """Which files of an agent's turn were not kept: `{"reason", "count", "names" (some)}`. Raises: as above."""
        ...

    async def read_artifact(
        self, interaction_id: str, name: str, *, offset: int = 0, limit: int = 1_000_000, caller: Caller = LOCAL
    ) -> tuple[Artifact, bytes]:
        """One kept file and up to `limit` of its bytes from `offset`. `name` is its name or its `art_` id.

        Raises: as `artifacts`, and NotFound when it has no such file (`suggestions` in the fields).
        """
        ...

    async def zip_artifacts(self, interaction_id: str, names: list[str], *, caller: Caller = LOCAL) -> Artifact:
        """Pack kept files of a turn into one zip; the same choice gives the same bytes. The zip's `path` is on this
        machine, in the data folder; `read_artifact` reads it by its name too. It goes when the session goes, or a day
        after it was last asked for.

        Raises: as `read_artifact`, and InvalidArgument when they are too many or too large for one zip.
        """
        ...

    @property
    def environments(self) -> Environments:
        """The environments of this machine, where agents work.

        Raises: SandboxUnavailable where this engine was made without any.
        """
        ...

    @property
    def schedules(self) -> Schedules:
        """Triggers, which start turns at their times, and webhooks, which tell of how turns ended.

        Raises:
            NotFound: this engine was made without any.
        """
        ...

    async def models(self, *, refresh: bool = False, caller: Caller = LOCAL) -> list[ModelInfo]:
        """What is reachable with the keys of the caller's connection, and why the rest is not."""
        ...

    async def usage(
        self, *, by: str = "day", since_s: float | None = None, limit: int = 50, caller: Caller = LOCAL
    ) -> Json:
        """What was spent, by `day`, `model`, `agent` or `session`, in the last `since_s` seconds (whole days of what
        deleted sessions cost): `{"by", "since", "lines", "more", "total", "today", "stored_bytes", "hosted"}`. A line
        has `key` (`None`: deleted sessions, or turns without an agent), `calls`, `tokens`, `input`, `output`,
        `thought`, `cached`, `usd` (`None`: no price known), `unsure_usd` and `unpriced_calls` where there are any,
        `active_s` and `sandbox_s`. `hosted` is an estimate (`engine.money.hosted`)."""
        ...

    async def set_budget(self, session_id: str, budget: Any, *, caller: Caller = LOCAL) -> Json:
        """Replace what a session's turns together may cost, `None` for no limit; as `costs` of it, with its
        `session_id`. What was spent stays counted."""
        ...

    async def costs(
        self, *, interaction_ids: Sequence[str] = (), session_ids: Sequence[str] = (), caller: Caller = LOCAL
    ) -> dict[str, Json]:
        """What turns and sessions have cost, by whole id: `{"usd", "tokens", "steps", "seconds", "budget"?, "left"?}`,
        and `unsure_usd`, `unpriced_calls`, `reserved_usd`, `sandbox_seconds` where there are any."""
        ...

    async def price(self, model: str, *, caller: Caller = LOCAL) -> Json:
        """What a model costs: `{"model", "price"}`, the latter `None` (and a `repair`) when nobody knows."""
        ...

    async def status(self, *, caller: Caller = LOCAL) -> Json:
        """`unread` and `waiting` are the caller's; `auto` is `Catalog.explain_auto` for the caller's connection:

        `{"version", "uptime_s", "busy", "queued", "unread", "waiting", "store": {...}, "auto": "...", "home",
        "schedules": {...}}`; the last is `Schedules.status`, where there are any."""
        ...
