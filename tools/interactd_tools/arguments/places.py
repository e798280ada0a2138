"""Fields about who takes a turn and where: agents, environments, limits, names of files."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BeforeValidator, Field

from interactd.approvals import POLICIES, Malformed, clean
from interactd.errors import InvalidArgument
from interactd.ids import PREFIXES, parse_prefix
from interactd.nouns import Json
from interactd_tools.arguments.fields import Line, refuse, wrong
from interactd_tools.arguments.guard import bad_values
from interactd_tools.arguments.problems import did_you_mean, shown

MAX_BODY = 4_000_000
"""Bytes of an environment body as JSON: its inline sources are in it."""
MAX_NAME = 4096
BODY_FIELDS: Final = ("sources", "env", "network", "limits", "approvals", "from_environment", "environment_id", "type")
_BODY = "{sources, env, network, limits}"
_EXPECTED = f"an environment id (env_...) or an object {_BODY}"


def environment_id(value: str) -> str:
    """Return the normalised id, or part of one."""
    text = value.strip().strip("\"'").removeprefix("environments/")
    try:
        return parse_prefix("environment", text)
    except InvalidArgument as error:
        raise wrong(error.message.partition(": ")[2]) from None


def read_environment(value: object) -> str | Json:
    """Return an environment as the engine takes it: an id, or a body to make one from.

    Raises:
        PydanticCustomError: it is neither, or a field of the body is not one.
    """
    given: object = value
    if isinstance(value, str):
        if not value.strip().startswith("{"):
            # "remote" is what the hosted API calls a fresh one.
            return {} if value.strip().lower() in ("remote", "new") else environment_id(value)
        try:
            given = json.loads(value)
        except (ValueError, RecursionError):
            raise refuse(_EXPECTED, value) from None
    if not isinstance(given, dict):
        raise refuse(_EXPECTED, given)
    return read_body(cast("dict[str, Any]", given))


def read_body(given: dict[str, Any]) -> Json:
    """Return an environment body whose fields are ones there are; the rest is checked where it is made."""
    for name, problem in bad_values(given).items():
        raise wrong(f"{name}: {problem.partition(': ')[2]}" if name in BODY_FIELDS else problem)
    for name in given:
        if name not in BODY_FIELDS:
            meant = did_you_mean(name, BODY_FIELDS)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(BODY_FIELDS[:5])}"
            raise wrong(f"{shown(name)}: no such field, {hint}")
    if len(json.dumps(given)) > MAX_BODY:
        raise wrong(
            f"expected at most {MAX_BODY:,} bytes of JSON, got more: put large files into a folder or repository"
        )
    return {name: item for name, item in given.items() if item is not None and name != "type"}


_POLICY = f"one of {', '.join(POLICIES)}, or an object {{policy, tools, rules, deadline_s, default}}"


def read_approvals(value: object) -> Json:
    """Return a policy as the engine takes it.

    Raises:
        PydanticCustomError: it is none; names of tools are checked by the engine, which knows them.
    """
    given: object = value
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            given = json.loads(value)
        except (ValueError, RecursionError):
            raise refuse(_POLICY, value) from None
    if isinstance(given, dict):
        for problem in bad_values(cast("dict[str, Any]", given)).values():
            raise wrong(problem)
    try:
        return clean(given.strip().lower() if isinstance(given, str) else given) or {}
    except Malformed as error:
        where = error.where("").lstrip(".")
        raise wrong(f"{where}: {error.problem}" if where else error.problem) from None


Approvals = Annotated[
    Json,
    BeforeValidator(read_approvals),
    # What it holds is said once, in run_agent_background.
    Field(json_schema_extra={"schema": {"type": "string", "x-expected": _POLICY}}),
]
AgentName = Annotated[Line, Field(json_schema_extra={"x-expected": "the id of an agent"})]
EnvironmentId = Annotated[
    str,
    AfterValidator(environment_id),
    Field(
        json_schema_extra={"x-expected": f"an environment id ({PREFIXES['environment']}...)"},
    ),
]
Place = Annotated[
    str | Json,
    BeforeValidator(read_environment),
    Field(
        description=f"Where it works: an environment's id, or JSON {_BODY}.",
        json_schema_extra={"schema": {"type": "string", "x-expected": _EXPECTED}},
    ),
]


def _whole(low: int, high: int, expected: str) -> Any:
    return Field(ge=low, le=high, json_schema_extra={"schema": {"type": "integer", "x-expected": expected}})


Steps = Annotated[int, _whole(1, 10_000, "a whole number from 1 to 10000")]
RunTokens = Annotated[int, _whole(1, 10**12, "a whole number of at least 1")]
RunSeconds = Annotated[
    float,
    Field(
        ge=1, le=7 * 86400, json_schema_extra={"schema": {"type": "number", "x-expected": "seconds from 1 to 604800"}}
    ),
]


def _name(value: str) -> str:
    if not value or len(value) > MAX_NAME:
        raise refuse(f"a file's name of 1 to {MAX_NAME:,} characters", value)
    return value


FileName = Annotated[
    str, AfterValidator(_name), Field(json_schema_extra={"x-expected": "a file's name as listed, or its art_ id"})
]


def limits(steps: int | None, tokens: int | None, seconds: float | None) -> Json | None:
    """Return a run's limits as the engine takes them; `None` when none is given."""
    given = {"steps": steps, "tokens": tokens, "seconds": seconds}
    return {name: value for name, value in given.items() if value is not None} or None
