"""What may be said to a question: `allow` or `deny`, with a reason and for how much it holds."""

from __future__ import annotations

from typing import Any, Final, cast

from interactd.engine.checks.text import check_text, kind_of
from interactd.errors import InvalidArgument
from interactd.nouns import Json

SCOPES: Final = ("call", "run", "session")
_FIELDS: Final = ("decision", "scope", "reason")
_YES: Final = frozenset(
    ("allow", "allowed", "yes", "y", "true", "ok", "okay", "approve", "approved", "again", "run", "accept")
)
_NO: Final = frozenset(("deny", "denied", "no", "n", "false", "reject", "rejected", "decline", "declined", "refuse"))
_MAX_REASON: Final = 8_000


def read_answer(field: str, value: Any, *, is_error: bool, kind: str) -> Json:
    """Return an answer as it is journalled: `{"decision", "scope"?, "reason"?}`.

    Args:
        field: where it stands, for messages.
        value: a word, a boolean, or an object.
        is_error: the caller could not decide: a no.
        kind: of the question.

    Raises:
        InvalidArgument: it is no clear answer.
    """
    if isinstance(value, list):
        # Contents, as some clients write every result.
        parts = cast("list[Any]", value)
        if len(parts) == 1 and isinstance(parts[0], dict):
            value = cast("Json", parts[0]).get("text")
    given: Json = cast("Json", value) if isinstance(value, dict) else {"decision": value}
    if set(given) == {"result"}:
        given = {"decision": given["result"]}
    if "decision" not in given:
        said = next((name for name in ("approved", "allow", "answer") if name in given), None)
        if said is not None:
            given = {"decision": given[said], **{name: item for name, item in given.items() if name != said}}
    for name in given:
        if name not in _FIELDS:
            raise InvalidArgument(
                f"{field}: unknown field {str(name)[:60]!r}", repair=_repair(kind), field=f"{field}.{str(name)[:60]}"
            )
    out: Json = {"decision": "deny" if is_error else _decision(field, given.get("decision"), kind)}
    scope = given.get("scope")
    if scope not in (None, *SCOPES):
        raise InvalidArgument(
            f"{field}.scope: expected one of {', '.join(SCOPES)}, got {str(scope)[:60]!r}",
            repair=_repair(kind),
            field=f"{field}.scope",
        )
    if scope not in (None, "call"):
        if kind == "replay":
            raise InvalidArgument(
                f"{field}.scope: whether a call that was cut off runs again is answered for this call alone",
                repair="Leave scope out.",
                field=f"{field}.scope",
            )
        out["scope"] = scope
    if given.get("reason") not in (None, ""):
        reason = given["reason"]
        if not isinstance(reason, str):
            raise InvalidArgument(f"{field}.reason: expected text, got {kind_of(reason)}", field=f"{field}.reason")
        out["reason"] = check_text(f"{field}.reason", reason, max_bytes=_MAX_REASON)
    return out


def _decision(field: str, value: Any, kind: str) -> str:
    if isinstance(value, bool):
        return "allow" if value else "deny"
    if isinstance(value, str):
        word = value.strip().strip("\"'.!").lower()
        if word in _YES:
            return "allow"
        if word in _NO:
            return "deny"
    got = repr(value[:60]) if isinstance(value, str) else kind_of(value)
    raise InvalidArgument(f"{field}: expected allow or deny, got {got}", repair=_repair(kind), field=field)


def _repair(kind: str) -> str:
    scope = "" if kind == "replay" else ', "scope": "call" | "run" | "session"'
    return f'Give "allow", "deny", or {{"decision": "allow" | "deny"{scope}, "reason": "..."}}.'
