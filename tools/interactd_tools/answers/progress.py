"""What an agent is at: the number of its step, what it does now, and the files it has written so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from interactd.nouns import Interaction, Json, Step
from interactd.sandbox.port import GUARANTEES, Isolation
from interactd_tools.answers.text import one_line, plural
from interactd_tools.arguments.problems import printable

_QUESTION = "approve_call"
_DOING = {
    "code_execution": "running {}",
    "view_file": "reading {}",
    "write_file": "writing {}",
    "replace_in_file": "changing {}",
    "delete_file": "deleting {}",
    "list_dir": "listing {}",
    "search_files": "searching {}",
    "url_fetch": "fetching {}",
}
_NAMES = {"code_execution_call": "code_execution", "url_context_call": "url_fetch"}
_WRITES = ("write_file", "replace_in_file")
_MOST_FILES = 4


def is_agents(one: Interaction) -> bool:
    """Whether an agent takes this turn."""
    return one.agent is not None


def steps_taken(steps: Sequence[Step]) -> int:
    """Count the calls an agent made."""
    return sum(_is_call(step) for step in steps)


def progress(steps: Sequence[Step], *, writing: bool = False, placed: bool = True) -> str:
    """Return one line: `step 3: running python · files written: a.csv, b.png`.

    Args:
        steps: of the interaction so far.
        writing: whether its model streams text just now.
        placed: whether its sandbox is there.
    """
    if not placed:
        return "waiting for its sandbox"
    open_ = _open(steps)
    now = f"{doing(open_[-1])}" if open_ else "the model is writing" if writing else "the model is thinking"
    if len(open_) > 1:
        now += f" and {len(open_) - 1} more"
    written = files_written(steps)
    more = f" and {len(written) - _MOST_FILES} more" if len(written) > _MOST_FILES else ""
    files = f" · files written: {', '.join(written[-_MOST_FILES:])}{more}" if written else ""
    number = steps_taken(steps) + (0 if open_ else 1)
    return f"step {number}: {now}{files}"


def doing(call: Step | Json) -> str:
    """Say in a few words what a call does: `running python`, `writing report.md`."""
    body = call.body if isinstance(call, Step) else call
    kind = call.type if isinstance(call, Step) else ""
    name = _NAMES.get(kind) or str(body.get("name") or "a tool")
    arguments = _object(body.get("arguments"))
    what: Any = next(
        (arguments[key] for key in ("language", "path", "url", "urls", "pattern") if arguments.get(key)), ""
    )
    if isinstance(what, list):
        what = ", ".join(str(one) for one in cast("list[Any]", what))
    if name == "code_execution":
        what = what or "code"
    if name not in _DOING:
        return "calling " + one_line(printable(name), 60)
    return _DOING[name].format(one_line(printable(str(what)), 80)).rstrip()


def files_written(steps: Sequence[Step]) -> list[str]:
    """Return the paths that file tools wrote, each once, oldest first; what code wrote is only known at the end."""
    failed = {step.body.get("call_id") for step in steps if step.body.get("is_error")}
    done = {step.body.get("call_id") for step in steps if step.type.endswith("_result")} - failed
    paths: dict[str, None] = {}
    for step in steps:
        if step.type == "function_call" and step.body.get("name") in _WRITES and step.body.get("id") in done:
            path = str(_object(step.body.get("arguments")).get("path") or "")
            if path:
                paths[one_line(printable(path.removeprefix("/workspace/")), 80)] = None
    return list(paths)


def sandbox_label(isolation: Json | None) -> str:
    """Return what the run's sandbox truly enforced, in one line; empty where there was none."""
    if not isolation:
        return ""
    levels = {name: isolation.get(name, "absent") for name in ("launcher", *GUARANTEES)}
    return Isolation(**levels).label


def figures(steps: Sequence[Step]) -> str:
    """Return how many steps a run took, for its last line."""
    count = steps_taken(steps)
    return plural(count, "step") if count else ""


def _open(steps: Sequence[Step]) -> list[Step]:
    given = {step.body.get("call_id") for step in steps if step.type.endswith("_result")}
    return [step for step in steps if _is_call(step) and step.body.get("id") not in given]


def _is_call(step: Step) -> bool:
    # A question to the caller is journalled as a call too, and is no step of the agent's.
    return step.type.endswith("_call") and step.body.get("name") != _QUESTION


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}
