"""The note that is kept with an open interaction: what is about to be done, and what a next runner must know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from interactd.nouns import Json, Usage

_OF_DISPATCH: Final = ("ran", "not_before", "wait_s", "why", "retries")
_OF_AGENTS: Final = ("seconds", "cwd", "environment", "limits", "due")


@dataclass(frozen=True, slots=True)
class Note:
    """Journalled before each model call; the next daemon reads it after a crash."""

    call: int = 1
    """Number of the model call in this run, from 1."""
    connection: str | None = None
    """Whose keys to use. An id only; what the connection's environment holds is never written."""
    deaths: int = 0
    """Attempts at this call that ended with the daemon's death."""
    bad_calls: int = 0
    """Rounds in a row in which the model called functions that do not exist."""
    usage: Usage | None = None
    """What earlier model calls of this run used; the outcome adds it up."""
    handed_over: bool = False
    """The last runner left on purpose: that was no death."""
    waiting: bool = False
    """The runner was not yet at the model: its end was no attempt's."""
    flight: tuple[str, ...] = ()
    """Ids of the tool calls that are being made: without a result, their outcome is unknown after a crash."""
    ran: float = 0.0
    """Seconds that earlier attempts ran, for the turn's own time-out."""
    not_before: float | None = None
    """Time of day before which it is not to be attempted."""
    wait_s: float = 0.0
    """How long that was from when it was decided: it never waits longer, whatever happens to the clock."""
    why: str = ""
    """The error code for which it is tried again."""
    retries: int = 0
    """How often that has happened since it last got on."""
    seconds: float = 0.0
    """What the run has worked so far, without the time it waited or lay dead."""
    cwd: str | None = None
    """The caller's folder, for finding agents and local sources."""
    environment: Json | None = None
    """What the turn's environment is to be made from, until there is one."""
    limits: Json | None = None
    """The caller's limits for this turn, over the agent's."""
    due: float | None = None
    """When the first of its open questions is answered by default; the store finds it by this."""

    def as_dict(self) -> Json:
        note: Json = {"call": "tool" if self.flight else "model", "n": self.call}
        for name in ("connection", "deaths", "bad_calls", "handed_over", "waiting", *_OF_DISPATCH, *_OF_AGENTS):
            if value := getattr(self, name):
                note[name] = value
        if self.flight:
            note["flight"] = list(self.flight)
        if self.usage is not None:
            note["usage"] = self.usage.as_dict()
        return note

    @classmethod
    def read(cls, note: Json | None) -> Note:
        """Read what `as_dict` wrote; without a note it is the first call of a first attempt."""
        if note is None:
            return cls()
        return cls(
            call=note.get("n", 1),
            connection=note.get("connection"),
            deaths=note.get("deaths", 0),
            bad_calls=note.get("bad_calls", 0),
            usage=Usage.from_dict(note["usage"]) if "usage" in note else None,
            handed_over=note.get("handed_over", False),
            waiting=note.get("waiting", False),
            flight=tuple(note.get("flight", ())),
            ran=note.get("ran", 0.0),
            not_before=note.get("not_before"),
            wait_s=note.get("wait_s", 0.0),
            why=note.get("why", ""),
            retries=note.get("retries", 0),
            seconds=note.get("seconds", 0.0),
            cwd=note.get("cwd"),
            environment=note.get("environment"),
            limits=note.get("limits"),
            due=note.get("due"),
        )

    def after_death(self) -> Note:
        """The note for the next attempt, when the daemon was found dead at this one."""
        died = not (self.handed_over or self.waiting)
        return replace(self, deaths=self.deaths + died, handed_over=False, waiting=False)

    def answered(self) -> Note:
        """The note for going on after an answer: what was used until then is on the interaction already."""
        fresh = replace(self, usage=None, deaths=0, bad_calls=0, retries=0, flight=(), due=None)
        return replace(fresh, handed_over=False, waiting=False)

    def begun(self) -> Note:
        """The note of a runner that begins: what was waited for is over."""
        return replace(self, not_before=None, wait_s=0.0, why="", handed_over=False)

    def again(self, pause_s: float, now: float, why: str) -> Note:
        """The note of a run that is tried again in `pause_s`."""
        return replace(self, not_before=now + pause_s, wait_s=pause_s, why=why, retries=self.retries + 1)

    def next_call(self, usage: Usage | None, *, bad: bool) -> Note:
        """The note for the next model call of the same run."""
        return replace(
            self,
            call=self.call + 1,
            deaths=0,
            retries=0,
            usage=usage,
            bad_calls=self.bad_calls + 1 if bad else 0,
        )
