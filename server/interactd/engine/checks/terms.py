"""On what terms a turn runs: what it may cost, what it must ask before doing, and when it goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, cast

from interactd.approvals import Malformed, clean
from interactd.config import amounts
from interactd.engine.checks.text import check_json, kind_of
from interactd.errors import InvalidArgument
from interactd.nouns import Json

BUDGET: Final[dict[str, tuple[float, float]]] = {
    "usd": (0, 1_000_000),
    "tokens": (1, 10_000_000_000),
    "steps": (1, 10_000),
    "seconds": (1, 7 * 86_400),
}
"""What a budget may hold, and from where to where."""
_WHOLE: Final = frozenset({"tokens", "steps"})
DISPATCH: Final[dict[str, tuple[float, float]]] = {
    "priority": (-100, 100),
    "delay_s": (0, 30 * 86_400),
    "start_timeout_s": (1, 7 * 86_400),
    "timeout_s": (1, 7 * 86_400),
    "retries": (0, 20),
}
"""What may be said about when a turn goes, and from where to where. Higher priorities go first; 0 is usual."""
_WHOLE_DISPATCH: Final = frozenset({"priority", "retries"})


@dataclass(frozen=True, slots=True)
class Terms:
    """The three, checked; each `None` where nothing was said."""

    budget: Json | None = None
    approvals: Json | None = None
    dispatch: Json | None = None

    def arguments(self) -> Json:
        """For the digest of an idempotency key: what was not said does not count."""
        given = {"budget": self.budget, "approvals": self.approvals, "dispatch": self.dispatch}
        return {name: value for name, value in given.items() if value is not None}


def terms(
    budget: Any = None, approvals: Any = None, dispatch: Any = None, *, known: Collection[str] | None = None
) -> Terms:
    """Check the arguments. `known` are the names that tools of agents go by.

    Raises:
        InvalidArgument: one has the wrong shape; the message names the field.
    """
    return Terms(
        check_budget(budget),
        _approvals(approvals, known),
        _numbers("dispatch", dispatch, DISPATCH, _WHOLE_DISPATCH),
    )


def check_budget(given: Any) -> Json | None:
    """Check a budget: an object, or an amount as people say it (`"$2"`, `2`).

    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        try:
            given = amounts.budget(given)
        except ValueError as error:
            raise InvalidArgument(f"budget: {error}, got {given!r:.60}", field="budget") from None
    return _numbers("budget", given, BUDGET, _WHOLE)


def _numbers(field: str, given: Any, known: dict[str, tuple[float, float]], whole: frozenset[str]) -> Json | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InvalidArgument(f"{field}: expected an object, got {kind_of(given)}", field=field)
    clean: Json = {}
    for name, value in cast("dict[Any, Any]", given).items():
        if name not in known:
            raise InvalidArgument(
                f"{field}: unknown field {name!r:.80}", repair=f"It may have {', '.join(known)}.", field=field
            )
        low, high = known[name]
        right = isinstance(value, int) or (name not in whole and isinstance(value, float))
        if isinstance(value, bool) or not right or not low <= value <= high:
            raise InvalidArgument(
                f"{field}.{name}: expected a {'whole ' if name in whole else ''}number from {low:,} to {high:,}, "
                f"got {value!r:.40}",
                field=f"{field}.{name}",
            )
        clean[name] = value
    return clean or None


def _approvals(given: Any, known: Collection[str] | None) -> Json | None:
    if isinstance(given, dict):
        check_json("approvals", given)
    try:
        return clean(given, known)
    except Malformed as error:
        where = error.where("approvals")
        raise InvalidArgument(
            f"{where}: {error.problem}",
            repair='Give "always_ask", "always_allow", or {"policy", "tools", "rules", "deadline_s", "default"}.',
            field=where,
        ) from None
