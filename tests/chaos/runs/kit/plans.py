"""What the scripted model does: a plan for each run, the same whenever it is asked, and a note of every question."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from support.provider import Call, Reply, Request

Kind = Literal["code", "bash", "write", "list", "safe", "ask", "never"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TAG = re.compile(r"run (\d+)")
_ID = re.compile(r"r(\d+)-(\d+)-(\d+)-(\w+)")


def call_of(id: str) -> Call:
    """The call with that id; code leaves its id in the file `log` of the workspace."""
    kind = kind_of(id)
    if kind == "code":
        code = f"with open('log', 'a') as f:\n    f.write('{id}\\n')\nprint('ran {id}')"
        return Call("code_execution", {"language": "python", "code": code}, id=id)
    if kind == "bash":
        return Call("code_execution", {"language": "bash", "code": f"echo {id} >> log; echo ran {id}"}, id=id)
    if kind == "write":
        return Call("write_file", {"path": f"{id}.txt", "content": id}, id=id)
    if kind == "list":
        return Call("list_dir", {"path": "."}, id=id)
    return Call(f"bump_{kind}", {}, id=id)


def kind_of(id: str) -> str:
    found = _ID.fullmatch(id)
    assert found, id
    return found[4]


def round_of(id: str) -> int:
    found = _ID.fullmatch(id)
    assert found, id
    return int(found[2])


@dataclass
class Plans:
    """Call ids by run and round; an answer without a call ends the run."""

    seed: int
    rounds: tuple[int, int] = (2, 4)
    calls: tuple[int, int] = (1, 2)
    kinds: tuple[Kind, ...] = KINDS
    pause_s: float = 0.01
    asked: dict[int, list[int]] = field(default_factory=lambda: defaultdict[int, list[int]](list))
    """Rounds that the model was asked for, by run, in order."""
    _made: dict[int, list[list[str]]] = field(default_factory=dict[int, list[list[str]]])

    def of(self, run: int) -> list[list[str]]:
        if run not in self._made:
            chance = random.Random(f"{self.seed}/{run}")
            self._made[run] = [
                [f"r{run}-{at}-{n}-{chance.choice(self.kinds)}" for n in range(chance.randint(*self.calls))]
                for at in range(chance.randint(*self.rounds))
            ]
        return self._made[run]

    def note(self, run: int) -> None:
        """Let the run do nothing but write into `log`, which keeps that file as it is then."""
        self._made[run] = [[f"r{run}-0-0-bash"]]

    def let(self, run: int, rounds: Sequence[Sequence[Kind]]) -> None:
        """Let the run make calls of these kinds, round by round."""
        self._made[run] = [
            [f"r{run}-{at}-{n}-{kind}" for n, kind in enumerate(kinds)] for at, kinds in enumerate(rounds)
        ]

    def ids(self, run: int) -> list[str]:
        return [id for at in self.of(run) for id in at]

    def answer(self, request: Request) -> Reply:
        """The provider's part."""
        run, at = asked_for(request)
        self.asked[run].append(at)
        plan = self.of(run)
        if at < len(plan):
            return Reply(text=[f"step {at} ", self.pause_s, f"of run {run}."], calls=[call_of(id) for id in plan[at]])
        return Reply(text=["done ", self.pause_s, f"run {run}", self.pause_s, "."])

    def end(self, run: int) -> str:
        return f"done run {run}."


def asked_for(request: Request) -> tuple[int, int]:
    """The run a request is about, and how many answers of the model it has already."""
    run, answers = -1, 0
    for message in request.json["messages"]:
        if message["role"] == "user" and (found := _TAG.search(text_of(message))):
            run, answers = int(found[1]), 0
        answers += message["role"] == "assistant"
    assert run >= 0, request.json["messages"]
    return run, answers


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
