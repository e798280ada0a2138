"""The shape of `approvals`: one word, or an object of policies, rules, a deadline and the answer when it passes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from interactd.approvals.matching import BadPattern, Conditions, check_domain, check_glob, check_regex

Word = Literal["always_allow", "always_ask", "auto"]
Decision = Literal["allow", "ask", "deny"]
POLICIES: Final[tuple[Word, ...]] = ("always_allow", "always_ask", "auto")
DECISIONS: Final[tuple[Decision, ...]] = ("allow", "ask", "deny")
FIELDS: Final = ("policy", "tools", "rules", "deadline_s", "default")
RULE_FIELDS: Final = ("tools", "paths", "command", "domains", "arguments", "read_only", "decision", "reason")
MAX_RULES: Final = 100
MAX_NAMES: Final = 100
MAX_DEADLINE_S: Final = 6 * 86_400.0
"""A day less than an environment is kept for: the run has to find it when it goes on."""


class Malformed(ValueError):
    """A policy has not the shape it should have. `path` leads to the field: names and numbers."""

    def __init__(self, path: tuple[str | int, ...], problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{self.where('approvals')}: {problem}")

    def where(self, root: str) -> str:
        """The field's name, with what holds the policy in front."""
        return root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of an `auto` policy. All its conditions have to hold."""

    decision: Decision
    tools: tuple[str, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one place says. `None` is: it says nothing about that."""

    word: Word | None = None
    tools: Mapping[str, Word] = field(default_factory=dict[str, Word])
    rules: tuple[Rule, ...] = ()
    deadline_s: float | None = None
    default: Literal["allow", "deny"] | None = None

    def word_for(self, names: Collection[str]) -> Word | None:
        """The policy of a tool, which goes by these names (its own first, then its group's)."""
        for name in names:
            if name in self.tools:
                return self.tools[name]
        for pattern, word in self.tools.items():
            if "*" in pattern and any(fnmatch.fnmatchcase(name, pattern) for name in names):
                return word
        return self.word


def clean(given: Any, known: Collection[str] | None = None) -> dict[str, Any] | None:
    """Return a policy as it is kept: an object, without what says nothing; `None` for none.

    Args:
        given: as somebody wrote it.
        known: names of tools and groups; another one without a `*` is a mistake. `None`: any name may be one.

    Raises:
        Malformed: it is none.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return {"policy": _word((), given)}
    if not isinstance(given, Mapping):
        raise Malformed((), f"expected one of {', '.join(POLICIES)}, or an object, got {_shown(given)}")
    body = cast("Mapping[Any, Any]", given)
    _only(body, FIELDS, ())
    out: dict[str, Any] = {}
    if body.get("policy") is not None:
        out["policy"] = _word(("policy",), body["policy"])
    if tools := _tools(body.get("tools"), known):
        out["tools"] = tools
    if rules := _rules(body.get("rules"), known):
        out["rules"] = rules
    if body.get("deadline_s") is not None:
        out["deadline_s"] = _deadline(body["deadline_s"])
    if body.get("default") is not None:
        if body["default"] not in ("allow", "deny"):
            raise Malformed(("default",), f"expected allow or deny, got {_shown(body['default'])}")
        out["default"] = body["default"]
    return out or None


def parse(kept: Mapping[str, Any]) -> Policy:
    """Read what `clean` returned. A `policy` of null is a policy that says nothing of tools it does not name."""
    rules = tuple(
        Rule(
            decision=rule["decision"],
            tools=tuple(rule.get("tools", ())),
            conditions=Conditions(
                paths=tuple(rule.get("paths", ())),
                command=rule.get("command"),
                domains=tuple(rule.get("domains", ())),
                arguments=tuple(rule.get("arguments", {}).items()),
                read_only=rule.get("read_only"),
            ),
            reason=rule.get("reason", ""),
        )
        for rule in kept.get("rules", ())
    )
    # Rules are what `auto` goes by: who writes some wants them heeded.
    word = kept.get("policy", "auto" if rules else None)
    return Policy(word, kept.get("tools", {}), rules, kept.get("deadline_s"), kept.get("default"))


def _tools(given: Any, known: Collection[str] | None) -> dict[str, Word]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Malformed(("tools",), f"expected an object of tools and their policies, got {_shown(given)}")
    out: dict[str, Word] = {}
    for name, word in cast("Mapping[Any, Any]", given).items():
        at = ("tools", str(name)[:60])
        out[_name(at, name, known)] = _word(at, word)
    if len(out) > MAX_NAMES:
        raise Malformed(("tools",), f"expected at most {MAX_NAMES} tools, got {len(out)}")
    return out


def _rules(given: Any, known: Collection[str] | None) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise Malformed(("rules",), f"expected a list of rules, got {_shown(given)}")
    listed = cast("list[Any]", given)
    if len(listed) > MAX_RULES:
        raise Malformed(("rules",), f"expected at most {MAX_RULES} rules, got {len(listed)}")
    return [_rule(("rules", number), rule, known) for number, rule in enumerate(listed)]


def _rule(at: tuple[str | int, ...], given: Any, known: Collection[str] | None) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise Malformed(at, f"expected an object with decision and conditions, got {_shown(given)}")
    rule = cast("Mapping[Any, Any]", given)
    _only(rule, RULE_FIELDS, at)
    if rule.get("decision") not in DECISIONS:
        got = _shown(rule["decision"]) if "decision" in rule else "nothing"
        raise Malformed((*at, "decision"), f"expected one of {', '.join(DECISIONS)}, got {got}")
    out: dict[str, Any] = {}
    if rule.get("tools") is not None:
        names = _texts((*at, "tools"), rule["tools"])
        out["tools"] = [_name((*at, "tools"), name, known) for name in names]
    for name, check in (("paths", check_glob), ("domains", check_domain)):
        if rule.get(name) is not None:
            out[name] = [_checked((*at, name), check, text) for text in _texts((*at, name), rule[name])]
    if rule.get("command") is not None:
        out["command"] = _checked((*at, "command"), check_regex, rule["command"])
    if rule.get("arguments") is not None:
        wanted: Any = rule["arguments"]
        if not isinstance(wanted, Mapping) or not wanted:
            raise Malformed((*at, "arguments"), f"expected an object of names and patterns, got {_shown(wanted)}")
        out["arguments"] = {
            str(name)[:200]: _checked((*at, "arguments", str(name)[:60]), check_regex, pattern)
            for name, pattern in cast("Mapping[Any, Any]", wanted).items()
        }
    if rule.get("read_only") is not None:
        if not isinstance(rule["read_only"], bool):
            raise Malformed((*at, "read_only"), f"expected true or false, got {_shown(rule['read_only'])}")
        out["read_only"] = rule["read_only"]
    out["decision"] = rule["decision"]
    if rule.get("reason") is not None:
        reason = rule["reason"]
        if not isinstance(reason, str) or not reason.strip() or len(reason) > 500 or not reason.isprintable():
            raise Malformed((*at, "reason"), "expected one line of at most 500 characters")
        out["reason"] = reason.strip()
    return out


def _checked(at: tuple[str | int, ...], check: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(at, f"expected text, got {_shown(value)}")
    try:
        check(value)
    except BadPattern as error:
        raise Malformed(at, str(error)) from None
    return value


def _texts(at: tuple[str | int, ...], given: Any) -> list[str]:
    listed: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [given]
    if not listed or len(listed) > MAX_NAMES or not all(isinstance(one, str) and one for one in listed):
        raise Malformed(at, f"expected a text or a list of 1 to {MAX_NAMES} texts, got {_shown(given)}")
    return listed


def _name(at: tuple[str | int, ...], name: Any, known: Collection[str] | None) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise Malformed(at, f"expected the name of a tool, got {_shown(name)}")
    if known is not None and "*" not in name and name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}, or patterns with *"
        raise Malformed(at, f"there is no tool {_shown(name)}; {hint}")
    return name


def _word(at: tuple[str | int, ...], given: Any) -> Word:
    if given not in POLICIES:
        raise Malformed(at, f"expected one of {', '.join(POLICIES)}, got {_shown(given)}")
    return given


def _deadline(given: Any) -> float:
    wrong = isinstance(given, bool) or not isinstance(given, int | float)
    if wrong or not 1 <= given <= MAX_DEADLINE_S:
        raise Malformed(("deadline_s",), f"expected seconds from 1 to {MAX_DEADLINE_S:,.0f}, got {_shown(given)}")
    return float(given)


def _only(given: Mapping[Any, Any], known: Collection[str], at: tuple[str | int, ...]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"it may have {', '.join(known)}"
            raise Malformed(at, f"unknown field {_shown(name)}; {hint}")


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    return "a list" if isinstance(value, list | tuple) else "an object"
