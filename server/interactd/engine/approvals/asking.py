"""The questions of a run: what they say, and until when they can be answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from interactd.approvals import Verdict
from interactd.approvals.deciding import DEADLINE_S
from interactd.engine.agents.steps import arguments_of, function_of, question
from interactd.engine.core import Core
from interactd.nouns import Step

_SHOWN: Final = 300
_REPLAY: Final = "The daemon died while {name} ran, and nobody knows whether it took effect. Shall it run again?"


def approvals(core: Core, agent: str, asked: Sequence[tuple[Step, Verdict]]) -> list[Step]:
    """One question for each call that may not be made unasked."""
    now = core.clock()
    return [
        question(call, "approval", _text(agent, call, verdict), due=now + verdict.deadline_s, default=verdict.default)
        for call, verdict in asked
    ]


def replay(core: Core, call: Step) -> Step:
    """The question whether a call that a crash left in doubt is made again. Without an answer it is not."""
    patience = (core.settings.approvals or {}).get("deadline_s") or DEADLINE_S
    return question(call, "replay", _REPLAY.format(name=function_of(call)), due=core.clock() + patience)


def _text(agent: str, call: Step, verdict: Verdict) -> str:
    what = _what(function_of(call) or "a tool", arguments_of(call))
    reason = f" ({verdict.reason})" if verdict.reason else ""
    return f"Agent {agent} wants to {what}. May it?{reason}"


def _what(name: str, arguments: dict[str, Any]) -> str:
    path = _line(arguments.get("path") or ".")
    if name == "code_execution":
        return f"run this {arguments.get('language') or 'code'}: {_line(arguments.get('code') or '')}"
    known = {
        "write_file": f"write the file {path}",
        "replace_in_file": f"change the file {path}",
        "delete_file": f"delete {path}",
        "view_file": f"read the file {path}",
        "list_dir": f"list the folder {path}",
        "search_files": f"search in {path}",
        "url_fetch": f"fetch {_line(arguments.get('url') or '')}",
    }
    return known.get(name) or f"call {name} with {_line(json.dumps(arguments, ensure_ascii=False))}"


def _line(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
